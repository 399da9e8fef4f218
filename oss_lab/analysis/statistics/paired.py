"""Intervals of the difference of two accuracies, on the same problems or on different ones.

Newcombe's hybrid score interval (Stat. Med. 17, 1998, p. 2635, method 10) combines Wilson's limits
of both accuracies with their correlation. It stays within -1 ... 1, and has a width even if no
problem differs.
"""

from oss_lab.analysis.statistics.shares import Paired, Share, wilson

Interval = tuple[float, float]


def paired_interval(pair: Paired) -> Interval:
    """95% interval of first minus second; needs at least one problem.

    >>> from oss_lab.analysis.statistics.shares import Share
    >>> found = paired_interval(Paired(Share(48, 50), Share(38, 50), 0.2, 12, 2))
    >>> [round(bound, 4) for bound in found]
    [0.0569, 0.3404]
    """
    n, a, b = pair.first.n, pair.first.count, pair.second.count
    (low_a, high_a), (low_b, high_b) = wilson(a, n), wilson(b, n)
    correlation = phi(a - pair.only_first, pair.only_first, pair.only_second, n)
    first, second = a / n, b / n
    down = combine_distances(first - low_a, high_b - second, correlation)
    up = combine_distances(high_a - first, second - low_b, correlation)
    return pair.difference - down, pair.difference + up


def combine_distances(a: float, b: float, correlation: float) -> float:
    """Distance of a limit, from two correlated distances."""
    return max(0.0, a * a - 2 * correlation * a * b + b * b) ** 0.5


def phi(both: int, only_first: int, only_second: int, n: int) -> float:
    """Correlation of two right-or-wrong marks, corrected for continuity if it is positive."""
    neither = n - both - only_first - only_second
    first, second = both + only_first, both + only_second
    margins = first * (n - first) * second * (n - second)
    product = both * neither - only_first * only_second
    if not margins:
        return 0.0
    return (max(0.0, product - n / 2) if product > 0 else product) / margins**0.5


def contrast_interval(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """95% interval of a - b, from the intervals of both on different problems."""
    down = ((a - of_a[0]) ** 2 + (of_b[1] - b) ** 2) ** 0.5
    up = ((of_a[1] - a) ** 2 + (b - of_b[0]) ** 2) ** 0.5
    return a - b - down, a - b + up


def subtract_shares(first: Share, second: Share) -> tuple[float, float, float]:
    """First minus second and its 95% interval, for shares of different problems, at least one each.

    Newcombe, Stat. Med. 17, 1998, p. 873, method 10, with an example of his table II.

    >>> [round(each, 4) for each in subtract_shares(Share(56, 70), Share(48, 80))]
    [0.2, 0.0524, 0.3339]
    """
    assert first.value is not None
    assert second.value is not None
    assert first.interval is not None
    assert second.interval is not None
    low, high = contrast_interval(first.value, first.interval, second.value, second.interval)
    return first.value - second.value, low, high
