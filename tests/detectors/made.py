"""Vectors, a rule and baselines for tests of witnesses, made up."""

import math
import statistics

import numpy as np

from ban_jax.detectors import witnesses
from ban_jax.detectors.rules import Baseline

RULE = witnesses.Agreement(
    ("a", "b", "c"),
    needed=("a", "b"),
    dear=("c",),
    thresholds={"within": 9.0, "trusted": 3.0, "population": 3.0, "profile": 3.0},
    suspicious={"within": 6.0, "trusted": 2.0, "population": 2.0, "profile": 2.0},
    doubt=2.0,
    explained={"a": "own"},
)
"""Its numbers are not those of a detector, which are tuned."""


def left_out(vector, i):
    """z of one class and its unit, loop by loop: the others' mean and deviation."""
    others = [float(x) for j, x in enumerate(vector) if j != i]
    unit = statistics.stdev(others) * math.sqrt(1 + 1 / len(others))
    return (vector[i] - statistics.mean(others)) / unit, unit


def errors_of(vectors, size=0.0):
    """Standard errors of all entries, all of one size."""
    return {name: np.full(len(vector), size) for name, vector in vectors.items()}


def profile_of(*names, count=5):
    """A baseline whose curves are flat: vectors are read as they are."""
    centre = {name: np.zeros(count) for name in names}
    return Baseline("profile", centre, dict.fromkeys(names, 1.0), 9)
