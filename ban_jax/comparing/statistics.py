"""Shares and areas with what chance makes of them, in NumPy on the host."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

CONFIDENCE = 0.95
DRAWS = 2000
"""Of the bootstrap."""


Scores = Sequence[float] | np.ndarray
"""One number per model."""


class Share(NamedTuple):
    """Hits of a total, their share, and the ends of its 95 % interval; None of none."""

    hits: int
    total: int
    value: float | None
    low: float | None
    high: float | None


class Area(NamedTuple):
    """An area under a curve, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def share(
    count: int, total: int, method: Literal["exact", "wilson"] = "exact"
) -> Share:
    """A share with its interval: `exact` is that of Clopper and Pearson."""
    if not total:
        return Share(count, total, None, None, None)
    # Imported here: it takes half a second, which other commands do not need.
    from scipy import stats

    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method=method)
    return Share(count, total, count / total, float(found.low), float(found.high))


def auc(backdoored: Scores, clean: Scores) -> float:
    """Probability that a backdoored model scores above a clean one, ties half."""
    bad, good = np.asarray(backdoored, float), np.sort(np.asarray(clean, float))
    below = np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")
    return float(np.mean(below) / (2 * len(good)))


def area(backdoored: Scores, clean: Scores) -> Area | None:
    """The AUC with its interval over models (bootstrap); None without both kinds."""
    groups = [np.asarray(group, float) for group in (backdoored, clean)]
    if not all(map(len, groups)):
        return None
    rng = np.random.default_rng(0)
    drawn = [
        auc(*(rng.choice(group, group.size) for group in groups)) for _ in range(DRAWS)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Area(auc(*groups), float(low), float(high))


def roc(backdoored: Scores, clean: Scores) -> list[tuple[float, float]]:
    """Points (share of clean models flagged, share of backdoored ones) of all thresholds.

    From (0, 0) to (1, 1); without both kinds no point.
    """
    if not len(backdoored) or not len(clean):
        return []
    bad, good = np.asarray(backdoored, float), np.asarray(clean, float)
    limits = np.unique(np.concatenate([bad, good]))[::-1]
    points = [(float(np.mean(good >= x)), float(np.mean(bad >= x))) for x in limits]
    return [(0.0, 0.0), *points]
