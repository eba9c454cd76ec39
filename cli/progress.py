"""Progress of a preparation, and how signals end it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nemo_pipeline.store.text import pluralize

from .console import err, new_progress, say, styled, warn
from .options import in_options


class RunProgress:
    """Events of a run on standard error: a bar on a terminal, a line per video elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = None if quiet or not err.is_terminal else new_progress("videos")
        self._task: Any = None
        self._done_before = self._total = self._n = self._failed = 0
        self._frames_done = 0
        self._running: dict[str, int] = {}
        self._started = 0.0

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def n_finished(self) -> int:
        """Videos that are done, in this run and before."""
        return self._done_before + self._n

    @property
    def n_all(self) -> int:
        """Videos of the run."""
        return self._done_before + self._total

    def farewell(self) -> None:
        """Say what is kept and how to resume."""
        if self._bar is not None:
            self._bar.stop()
        be = "is" if self.n_finished == 1 else "are"
        kept = (
            f"{self.n_finished} of {pluralize(self.n_all, 'video')} {be} done and kept"
            if self.n_all
            else "nothing was begun"
        )
        say(f"Stopped: {kept}. Rerun the same command to resume.")
        err.file.flush()

    def on_event(self, event: Any) -> None:
        """Show one event."""
        if event.kind == "note":
            warn(event.text)
        elif event.kind == "stage":
            if not self._quiet:
                say(event.text)
        elif event.kind == "checking":
            self._checking(event)
        elif event.kind == "planned":
            if self._bar is not None and self._task is not None:  # of an earlier step
                self._bar.remove_task(self._task)
            self._task, self._failed = None, 0
            self._done_before, self._total, self._started = event.n, event.total, time.monotonic()
            if not self._quiet:
                say(f"{event.n} done, {event.total} to do")
            if self._bar is not None and event.total:
                self._task = self._bar.add_task("preparing", total=event.total, note="")
        elif event.kind == "frames":
            self._running[event.file] = event.n
            self._show()
        elif event.kind == "video":
            self._video(event)
        elif event.kind == "drawn":
            self._drawn(event)

    def _checking(self, event: Any) -> None:
        """Files that may be done already are hashed: seconds for many, and nothing to see for few."""
        if self._bar is not None and event.total >= 20:
            if self._task is None:
                self._task = self._bar.add_task("checking", total=event.total, note="")
            self._bar.update(self._task, completed=event.n)

    def _drawn(self, event: Any) -> None:
        """Annotated copies, after the run."""
        if event.text:
            warn(f"{event.file}: no annotated copy: {event.text}")
        if self._bar is not None:
            if event.n == 1:
                self._task = self._bar.add_task("drawing", total=event.total, note="")
            self._bar.update(self._task, completed=event.n)
        elif not self._quiet and not event.text:
            say(f"[{event.n}/{event.total}] {event.file}: annotated")

    def _video(self, event: Any) -> None:
        self._n = event.n
        self._running.pop(event.file, None)
        result = event.staged.result
        self._frames_done += result.n_decoded
        statuses = sorted({row.status for row in result.rows})
        kept = sum(row.length for row in result.rows)
        failed = not kept
        self._failed += failed
        self._show()
        if self._quiet:
            return
        if self._bar is None:
            left = self._left()
            say(
                f"[{event.n}/{event.total}] {event.file}: {', '.join(statuses)}, "
                f"{_used(kept, result.n_decoded)}; "
                f"{self._rate():.0f} frames/s, {left} left, {self._failed} failed"
            )
        elif failed:
            message = result.rows[0].message
            err.print(styled(f"{event.file}: {', '.join(statuses)}. {in_options(message)}", "yellow"))

    def _rate(self) -> float:
        frames = self._frames_done + sum(self._running.values())
        return frames / max(time.monotonic() - self._started, 1e-3)

    def _left(self) -> str:
        if not self._n:
            return "?"
        seconds = (time.monotonic() - self._started) / self._n * (self._total - self._n)
        hours, rest = divmod(int(seconds + 0.5), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            note = f"{self._rate():.0f} frames/s" + (f", {self._failed} failed" if self._failed else "")
            self._bar.update(self._task, completed=self._n, note=note)


def _used(kept: int, decoded: int) -> str:
    """ "68 of 70 frames"; with several persons "140 faces in 70 frames"."""
    if kept > decoded:
        return f"{pluralize(kept, 'face')} in {pluralize(decoded, 'frame')}"
    return f"{kept} of {pluralize(decoded, 'frame')}"


@contextlib.contextmanager
def stop_on_signals(farewell: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP (a terminal that was closed; not under nohup) raise KeyboardInterrupt, after which the
    body has 1.8 s to end.

    Then, or at a second signal, `farewell` is called and the process ends: all that counts is on disk.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def say() -> None:
        with contextlib.suppress(Exception):
            farewell()

    def leave() -> None:
        # In a thread of its own: what the main thread was printing when it was interrupted stays in the console's
        # buffer of that thread, which may never be written again.
        last = threading.Thread(target=say, daemon=True)
        last.start()
        last.join(5)
        os._exit(130)

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            leave()
        asked = True
        timer = threading.Timer(1.8, leave)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        # Threads of the cluster may still be winding down; nobody needs to wait for them.
        leave()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ClipProgress:
    """Clips as their ages are estimated: a bar on a terminal, nothing elsewhere (each clip has its line anyway)."""

    def __init__(self, total: int, quiet: bool) -> None:
        self._bar = None if quiet or not err.is_terminal else new_progress("clips")
        self._total, self._failed = total, 0
        self._done: set[Any] = set()
        self._task: Any = None

    def __enter__(self) -> ClipProgress:
        if self._bar is not None:
            self._task = self._bar.add_task("estimating", total=self._total, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def frames(self, clip: Any, n: int) -> None:
        """So many frames of a clip were decoded."""
        self._show(clip.file, pluralize(n, "frame"))

    def drawing(self, file: str, n: int) -> None:
        """So many frames of a clip were drawn."""
        self._show(file, f"{pluralize(n, 'frame')} drawn")

    def finished(self, path: Any, failed: bool) -> None:
        """One row of a clip is done."""
        self._done.add(path)
        self._failed += failed
        self._show("", "")

    def above(self, say_it: Callable[[], None]) -> None:
        """Say something, on either stream, without the bar in its way."""
        if self._bar is None:
            say_it()
            return
        self._bar.stop()  # it clears its line
        try:
            say_it()
        finally:
            self._bar.start()

    def _show(self, file: str, what: str) -> None:
        if self._bar is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            now = f"{shortened(file, 18)}: {what}" if file else ""
            note = ", ".join(part for part in (now, failed) if part)
            self._bar.update(self._task, completed=len(self._done), note=note)


def shortened(text: str, most: int) -> str:
    """`text`, or its two ends, as at most `most` characters."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"
