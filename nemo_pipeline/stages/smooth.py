"""4253H, twice (Velleman 1980): the compound resistant smoother, for whole series and for streams of blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: How far an input sample can reach, in samples: 12 in the interior, 13 at an end (through Tukey's end-point rule).
#: An output this far from a cut in the data is the same with and without the cut.
SUPPORT = 13


def smooth_4253h_twice(x: ArrayLike) -> NDArray[np.float64]:
    """Smooth every series along the first axis by 4253H, twice: S(y) + S(y - S(y)).

    One application S is six passes, each on the previous one's complete output: running medians of 4, of 2, of 5, of
    3, Tukey's end-point rule, and hanning (Velleman 1980, JASA 75:609; Velleman & Hoaglin 1981). It commutes with
    a + b*y and with reversal of time, has no lag, and reproduces constants and straight lines.

    Args:
        x: (T, ...) real and finite; any T. Integers are converted, never truncated. Not altered.

    Returns:
        float64 array of the same shape. Series of fewer than 3 samples come back unchanged (as a copy).

    Examples:
        >>> import numpy as np
        >>> from nemo_pipeline import smooth_4253h_twice
        >>> y = np.arange(12.0)
        >>> y[5] = 100  # a single wrong sample
        >>> bool(np.abs(smooth_4253h_twice(y) - np.arange(12)).max() < 1)
        True

    Raises:
        ValueError: a value is NaN or infinite (interpolate or split before smoothing), `x` is complex, or has no first
            axis.
    """
    y = _real(x)
    if y.ndim == 0:
        raise ValueError("smooth_4253h_twice needs at least one axis (time first).")
    if not np.isfinite(y).all():
        where = np.unique(np.nonzero(~np.isfinite(y))[0])
        raise ValueError(
            f"4253H is not defined for NaN or infinite values (first at sample {where[0]}, {where.size} in all): "
            "interpolate or split the series before smoothing."
        )
    if len(y) < 3:
        return y
    smooth = _4253h(y)
    return smooth + _4253h(y - smooth)


def _real(x: ArrayLike) -> NDArray[np.float64]:
    """A float64 copy. Raises ValueError where `x` is complex: NumPy would leave out the imaginary part."""
    if np.iscomplexobj(x):
        raise ValueError(
            "4253H orders its samples, and complex numbers have no order: smooth .real and .imag."
        )
    return np.array(x, dtype=np.float64)


def _mean(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return (a + b) / 2


def _median3(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _median4(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of the two middle values: the larger of the two pairs' minima and the smaller of their maxima."""
    return _mean(
        np.maximum(np.minimum(a, b), np.minimum(c, d)), np.minimum(np.maximum(a, b), np.maximum(c, d))
    )


def _median5(*v: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of 3 of the fifth value and the middle two of the other four."""
    a, b, c, d, e = v
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return _median3(low, high, e)


def medians_of_5(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running medians of 5 along axis 0, of 3 next to the ends; the ends as they are. At least 3 samples."""
    v = u.copy()
    v[1] = _median3(u[0], u[1], u[2])
    v[-2] = _median3(u[-3], u[-2], u[-1])
    if len(u) >= 5:
        v[2:-2] = _median5(u[:-4], u[1:-3], u[2:-2], u[3:-1], u[4:])
    return v


def _4253h(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """One application of 4253H along axis 0; n >= 3 samples. Names are those of the published passes."""
    n = len(y)
    # 4: n-1 values between the samples; the two at the ends are medians (means) of 2.
    h = _mean(y[:-1], y[1:])
    if n >= 4:
        h[1:-1] = _median4(y[:-3], y[1:-2], y[2:-1], y[3:])
    # 2: back onto the samples.
    u = y.copy()
    u[1:-1] = _mean(h[:-1], h[1:])
    v = medians_of_5(u)
    # 3: once, not repeated to convergence.
    w = v.copy()
    w[1:-1] = _median3(v[:-2], v[1:-1], v[2:])
    # E: both ends from w.
    z = w.copy()
    z[0] = _median3(w[0], w[1], 3 * w[1] - 2 * w[2])
    z[-1] = _median3(w[-1], w[-2], 3 * w[-2] - 2 * w[-3])
    # H: hanning.
    s = z.copy()
    s[1:-1] = (z[:-2] + 2 * z[1:-1] + z[2:]) / 4
    return s


class StreamSmoother:
    """A smoother with finite reach, `smooth_4253h_twice` by default, of one series that arrives piece by piece.

    `push` takes the next samples and returns those outputs that no later sample can change; `finish` returns the
    rest. Their concatenation equals smoothing the whole series at once, to the bit; memory is bounded.

    Args:
        function: smooths a whole series along its first axis.
        support: how far an input sample can reach in it, in samples.
    """

    def __init__(
        self,
        function: Callable[[ArrayLike], NDArray[np.float64]] = smooth_4253h_twice,
        support: int = SUPPORT,
    ) -> None:
        self._function, self._support = function, support
        self._held: NDArray[np.float64] | None = None  # samples from `_first` on
        self._first = 0  # index of the first held sample
        self._done = 0  # outputs given so far

    def push(self, x: ArrayLike) -> NDArray[np.float64]:
        """Next samples (n, ...) in, finished outputs (m, ...) out, m >= 0. Raises ValueError on complex ones."""
        block = _real(x)
        self._held = block if self._held is None else np.concatenate([self._held, block])
        return self._give(self._first + len(self._held) - self._support)

    def finish(self) -> NDArray[np.float64]:
        """The outputs not given yet (m, ...)."""
        if self._held is None:
            return np.zeros((0,))
        return self._give(self._first + len(self._held))

    def _give(self, stop: int) -> NDArray[np.float64]:
        assert self._held is not None
        if stop <= self._done:
            return self._held[:0]
        smooth = self._function(self._held)[self._done - self._first : stop - self._first]
        self._done = stop
        keep_from = max(self._first, stop - self._support)
        self._held = self._held[keep_from - self._first :]
        self._first = keep_from
        return smooth
