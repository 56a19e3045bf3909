"""What benchmarks make of labelled zoos: their ground truth, shares and AUC."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from ban_jax.zoo import listing, success

CONFIDENCE = 0.95
DRAWS = 2000
"""Of the bootstrap."""


def entries(folder: str) -> list[dict[str, Any]]:
    """The models that a zoo's `zoo.json` lists."""
    with open(os.path.join(folder, listing.INDEX), encoding="utf-8") as file:
        return json.load(file)


def labelled(folder: str) -> dict[str, dict[str, Any]]:
    """Path of each checkpoint -> its entry of `zoo.json`."""
    return {os.path.join(folder, entry["file"]): entry for entry in entries(folder)}


def has_failed(entry: dict[str, Any]) -> bool:
    """Whether a model's backdoor failed in training."""
    return bool(entry.get("failed"))


def success_counted(entries: Sequence[dict[str, Any]]) -> str:
    """What the success of these models is, and was when they were found to have failed."""
    older = len(success.without_excess(entries))
    backdoored = sum(entry["kind"] != "clean" for entry in entries)
    if not older:
        return "excess over the same images without trigger"
    return f"of {older} of {backdoored} models the raw rate, their excess is unknown"


def share(count: int, total: int) -> list[float]:
    """A share and its 95 % interval (Wilson's)."""
    if not total:
        return [float("nan")] * 3
    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return [count / total, float(found.low), float(found.high)]


def auc(backdoored: Sequence[float], clean: Sequence[float]) -> float:
    """Probability that a backdoored model scores above a clean one, ties half."""
    labels = [1] * len(backdoored) + [0] * len(clean)
    return float(metrics.roc_auc_score(labels, [*backdoored, *clean]))


def auc_interval(backdoored: np.ndarray, clean: np.ndarray) -> list[float]:
    """The AUC and its 95 % interval: `DRAWS` bootstrap draws over models."""
    rng = np.random.default_rng(0)
    draws = [
        auc(*(rng.choice(group, group.size) for group in (backdoored, clean)))
        for _ in range(DRAWS)
    ]
    tail = (1 - CONFIDENCE) / 2
    return [auc(backdoored, clean), *np.quantile(draws, [tail, 1 - tail]).tolist()]
