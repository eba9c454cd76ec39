"""Presentation times that always run forward: missing, repeated, backward and negative ones are replaced."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: After this many times in a row that do not run forward, the clock was set back: it is followed from there.
PATIENCE = 16


@dataclasses.dataclass
class TimeRepairs:
    """What `repair_times` did, filled while its items are read.

    Attributes:
        n_replaced: times that were missing, repeated or out of order.
        moved: seconds by which the whole clip was moved since it began before zero.
        n_set_back: how often the clock was set back.
    """

    n_replaced: int = 0
    moved: float = 0.0
    n_set_back: int = 0


def repair_times(
    timed: Iterable[tuple[float, Item]], interval: float, done: TimeRepairs | None = None
) -> Iterator[tuple[float, bool, Item]]:
    """Give every item a time later than the one before it, its own wherever that is possible.

    Times that are missing or not later than the last good one are spread evenly up to the next good one, so
    that a repeated time does not push all that follow. Times before zero move the whole clip to start at
    zero. A clock that was set back (two recordings in one file) continues from the last time, with its own
    steps. At most `PATIENCE` items are held back.

    Args:
        timed: (seconds or NaN, item), in presentation order.
        interval: seconds between two items where nothing else says so.
        done: counts what is done.

    Yields:
        (seconds, whether that is another time than the item's own, item), in the same order.
    """
    clock: _Clock[Item] = _Clock(interval, done or TimeRepairs())
    for time, item in timed:
        yield from clock.push(time, item)
    yield from clock.finish()


class _Clock(Generic[Item]):
    def __init__(self, interval: float, done: TimeRepairs) -> None:
        self._step = interval
        self._done = done
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
                self._done.moved = -first
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
        set_back = self._last is not None and raw + self._shift < self._last - 1e-6
        self._done.n_set_back += set_back
        self._done.n_replaced += not set_back
        if math.isfinite(raw):
            self._shift = time - raw
        self._last = time
        yield time, True, item
        for raw, item in waiting[1:]:
            yield from self.push(raw, item)

    def _spread(self, start: float, step: float) -> Iterator[tuple[float, bool, Item]]:
        """The waiting items, the first one step after `start`."""
        waiting, self._waiting = self._waiting, []
        self._done.n_replaced += len(waiting)
        for k, (_, item) in enumerate(waiting, start=1):
            self._last = max(0.0, start + step * k)
            yield self._last, True, item

    def _tell(self, time: float, item: Item) -> tuple[float, bool, Item]:
        self._last = time
        return time, self._shift != 0.0, item
