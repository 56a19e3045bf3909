"""What benchmarks make of labelled zoos: their ground truth, shares and AUC."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ban_jax.comparing import statistics
from ban_jax.zoo import labelled as _labelled
from ban_jax.zoo import success

entries, labelled = _labelled.entries, _labelled.labelled
has_failed = _labelled.has_failed


def success_counted(entries: Sequence[dict[str, Any]]) -> str:
    """What the success of these models is, and was when they were found to have failed."""
    older = len(success.without_excess(entries))
    backdoored = sum(entry["kind"] != "clean" for entry in entries)
    if not older:
        return "excess over the same images without trigger"
    return f"of {older} of {backdoored} models the raw rate, their excess is unknown"


def share(count: int, total: int) -> list[float]:
    """A share and its 95 % interval (Wilson's)."""
    found = statistics.share(count, total, "wilson")
    return [math.nan if x is None else x for x in found[2:]]


auc = statistics.auc


def auc_interval(backdoored: np.ndarray, clean: np.ndarray) -> list[float]:
    """The AUC and its 95 % interval: bootstrap draws over models."""
    found = statistics.area(backdoored.tolist(), clean.tolist())
    return [math.nan] * 3 if found is None else list(found)
