"""Presentation times that always run forward: missing, repeated, backward and negative ones are replaced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: After this many times in a row that do not run forward, the clock was set back: it is followed from there.
PATIENCE = 16


def repair_times(timed: Iterable[tuple[float, Item]], interval: float) -> Iterator[tuple[float, bool, Item]]:
    """Give every item a time later than the one before it, its own wherever that is possible.

    Times that are missing or not later than the last good one are spread evenly up to the next good one, so
    that a repeated time does not push all that follow. Times before zero move the whole clip to start at
    zero. A clock that was set back (two recordings in one file) goes on from the last time, with its own
    steps. At most `PATIENCE` items are held back.

    Args:
        timed: (seconds or NaN, item), in presentation order.
        interval: seconds between two items where nothing else says so.

    Yields:
        (seconds, whether it was replaced, item), in the same order.
    """
    clock: _Clock[Item] = _Clock(interval)
    for time, item in timed:
        yield from clock.push(time, item)
    yield from clock.finish()


class _Clock(Generic[Item]):
    def __init__(self, interval: float) -> None:
        self._step = interval
        self._last: float | None = None
        self._shift = 0.0
        self._waiting: list[tuple[float, Item]] = []

    def push(self, raw: float, item: Item) -> Iterator[tuple[float, bool, Item]]:
        time = raw + self._shift
        if self._last is None and math.isfinite(time):
            # The first time there is: those before it lie one interval apart, and none below zero.
            first = time - self._step * len(self._waiting)
            if first < 0.0:
                self._shift -= first
                time -= first
            yield from self._spread(time - self._step * (len(self._waiting) + 1), self._step)
            yield self._tell(time, item)
        elif self._last is not None and time > self._last:
            step = (time - self._last) / (len(self._waiting) + 1)
            yield from self._spread(self._last, step)
            self._step = step
            yield self._tell(time, item)
        else:
            self._waiting.append((raw, item))
            if len(self._waiting) >= PATIENCE:
                yield from self._restart()

    def finish(self) -> Iterator[tuple[float, bool, Item]]:
        """The items still held back, one step apart."""
        yield from self._spread(-self._step if self._last is None else self._last, self._step)

    def _restart(self) -> Iterator[tuple[float, bool, Item]]:
        """No time fits any more: the next one is one step after the last."""
        waiting, self._waiting = self._waiting, []
        raw, item = waiting[0]
        time = 0.0 if self._last is None else self._last + self._step
        if math.isfinite(raw):
            self._shift = time - raw
        self._last = time
        yield time, True, item
        for raw, item in waiting[1:]:
            yield from self.push(raw, item)

    def _spread(self, start: float, step: float) -> Iterator[tuple[float, bool, Item]]:
        """The waiting items, the first one step after `start`."""
        waiting, self._waiting = self._waiting, []
        for k, (_, item) in enumerate(waiting, start=1):
            self._last = max(0.0, start + step * k)
            yield self._last, True, item

    def _tell(self, time: float, item: Item) -> tuple[float, bool, Item]:
        self._last = time
        return time, self._shift != 0.0, item
