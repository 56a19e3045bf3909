"""What one vector over the classes says, read against clean models' curve, or level.

Clean models of one data set look alike: each class vector is nearly a curve of the data
set, up to a scale and an offset of the model, which are fitted away (`read`). The level
that is fitted away with them is looked at by itself (`above`).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ban_jax.detectors import rules

CLASSES_MINIMUM = 5
"""Measured classes below which a vector's own classes are no yardstick."""
PRIOR = 8
"""Models' worth of ordinary scatter that a class starts from: few models know little of
one class."""
SMALLEST = 0.005
"""Probability, and distance from 1, that several hundred images can tell."""


class Reading(NamedTuple):
    """A vector in units of its own unexplained spread.

    Attributes:
      z: `[K]`; NaN for classes that were not measured.
      units: `[K]` of each z, in the vector's own units.
    """

    z: np.ndarray
    units: np.ndarray


def read(
    vector: np.ndarray, errors: np.ndarray, centre: np.ndarray | None
) -> Reading | None:
    """A vector `[K]` against a curve `[K]` of clean models, or None where it is void.

    Void is a vector whose classes differ by no more than the standard errors of its
    entries, or of which too few classes were measured: it can say nothing.

    Args:
      vector: of the candidate; NaN for classes that were not measured.
      errors: `[K]` standard errors.
      centre: of clean models; None: the classes are compared as they are.
    """
    known = np.isfinite(vector)
    if centre is not None:
        known &= np.isfinite(centre)
    count = int(known.sum())
    if count < CLASSES_MINIMUM:
        return None
    rest, noise = vector[known], errors[known]
    if centre is not None:
        rest = rest - slope(rest, centre[known]) * centre[known]
    means = (rest.sum() - rest) / (count - 1)
    deviations = _deviations_of_others(rest)
    spread = float(np.std(vector[known]))
    if spread <= max(float(np.median(noise)), rules.FLOOR):
        return None
    units = np.maximum(deviations, np.maximum(noise, rules.FLOOR))
    units *= math.sqrt(1 + 1 / (count - 1))
    z = np.full(len(vector), np.nan)
    z[known] = (rest - means) / units
    of_all = np.full(len(vector), np.nan)
    of_all[known] = units
    return Reading(z, of_all)


def _deviations_of_others(values: np.ndarray) -> np.ndarray:
    """For each of `[N]` numbers the standard deviation of all the others."""
    count = len(values)
    centred = values - values.mean()
    squares = np.square(centred).sum() - np.square(centred)
    # The others' sum is minus the number itself, all of them being 0 together.
    variances = (squares - np.square(centred) / (count - 1)) / (count - 2)
    return np.sqrt(np.maximum(variances, 0.0))


@functools.lru_cache(maxsize=4)
def _pairs(count: int) -> tuple[np.ndarray, ...]:
    """Both indices of every pair of so many things."""
    return np.triu_indices(count, 1)


def slope(vector: np.ndarray, centre: np.ndarray) -> float:
    """The scale of a candidate's curve: Theil-Sen over all pairs of classes, at least 0."""
    first, second = _pairs(len(vector))
    run = centre[first] - centre[second]
    apart = np.abs(run) > rules.FLOOR
    if not apart.any():
        return 0.0
    rise = (vector[first] - vector[second])[apart]
    return max(float(np.median(rise / run[apart])), 0.0)


def class_spreads(read: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """How widely clean models scatter at each class, of their readings.

    The root of the mean square, with `PRIOR` further models that scatter by 1.

    Args:
      read: what the witnesses say of each model, name -> `[K]` z against the others.

    Returns:
      Name -> `[K]`.
    """
    spreads = {}
    for name in {name: None for one in read for name in one}:
        z = np.array([one[name] for one in read if name in one])
        known = np.isfinite(z)
        # Sorted: a sum of floats must not depend on the order of the models.
        squares = np.sort(np.where(known, z, 0.0) ** 2, axis=0).sum(0)
        spreads[name] = np.sqrt((squares + PRIOR) / (known.sum(0) + PRIOR))
    return spreads


def above(vector: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Logarithm of the odds ratio of probabilities `[K]` to clean models', see `LEVEL`."""
    return _logit(vector) - _logit(centre)


def _logit(share: np.ndarray) -> np.ndarray:
    """Logarithm of the odds of probabilities; NaN stays."""
    inside = np.clip(np.asarray(share, float), SMALLEST, 1 - SMALLEST)
    return np.log(inside / (1 - inside))
