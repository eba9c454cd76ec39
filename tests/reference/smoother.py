"""4253H, twice, as a plain loop over one series: the passes as they are published, with no vectorisation at all."""

from statistics import median


def _once(y: list[float]) -> list[float]:
    n = len(y)
    h = []
    for i in range(n - 1):  # between sample i and i + 1
        window = y[i - 1 : i + 3] if 1 <= i <= n - 3 else y[i : i + 2]
        h.append(median(window))
    u = [y[0], *((h[i - 1] + h[i]) / 2 for i in range(1, n - 1)), y[-1]]
    v = list(u)
    for i in range(1, n - 1):
        reach = 2 if 2 <= i <= n - 3 else 1
        v[i] = median(u[i - reach : i + reach + 1])
    w = list(v)
    for i in range(1, n - 1):
        w[i] = median(v[i - 1 : i + 2])
    z = list(w)
    z[0] = median([w[0], w[1], 3 * w[1] - 2 * w[2]])
    z[-1] = median([w[-1], w[-2], 3 * w[-2] - 2 * w[-3]])
    return [z[0], *((z[i - 1] + 2 * z[i] + z[i + 1]) / 4 for i in range(1, n - 1)), z[-1]]


def smooth_4253h_twice(y: list[float]) -> list[float]:
    """The whole smoother on one series."""
    if len(y) < 3:
        return list(y)
    s = _once(y)
    rough = [a - b for a, b in zip(y, s, strict=True)]
    return [a + b for a, b in zip(s, _once(rough), strict=True)]
