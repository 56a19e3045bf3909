"""Other ways to join the witnesses, compared, and what every threshold would give."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ban_jax import detectors, records
from ban_jax.baselines import crowd
from ban_jax.detectors import readings, witnesses
from benchmarks import _verdict_models, _zoo

RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest": lambda z: z[0],
    "second largest": lambda z: z[1],
    "second, and a tenth of what the largest, up to 6, is more": lambda z: (
        z[1] + 0.1 * np.maximum(np.minimum(z[0], 6) - z[1], 0)
    ),
    "mean of all": lambda z: z.mean(axis=0),
    "mean of second and third": lambda z: z[1:3].mean(axis=0),
    "mean of three, each at most 5": lambda z: np.minimum(z[:3], 5).mean(axis=0),
    "mean of three, each at most 8": lambda z: np.minimum(z[:3], 8).mean(axis=0),
}
"""From z `[W, K]`, the largest first per class, to scores `[K]`."""


def compare(models: Sequence[_verdict_models.Model], against: Any) -> dict[str, Any]:
    """What other ways to join the witnesses would score, and each witness alone."""
    rule: Any = detectors.DETECTORS[models[0].line["mode"]].rule
    table = collections.defaultdict(list)
    for model in models:
        vectors, errors = (
            crowd.numbers(model.line[part]) for part in ("vectors", "errors")
        )
        readings, _ = rule.read(vectors, errors, against)
        z = np.array([np.nan_to_num(r.z, nan=-9.0) for r in readings.values()])
        ordered = -np.sort(-z, axis=0)
        for name, join in RULES.items():
            table[name].append(float(np.max(join(ordered))))
        for name in rule.vectors:
            alone = readings[name].z if name in readings else np.zeros(1)
            table[f"{name} alone"].append(float(np.nanmax(alone)))
    clean = np.array([model.is_clean for model in models])
    works = np.array([model.works for model in models])
    found = {}
    for name, values in table.items():
        bad, good = np.array(values)[works], np.sort(np.array(values)[clean])
        limits = {
            rate: good[int(np.ceil((1 - rate) * len(good))) - 1]
            for rate in (0.01, 0.05)
        }
        found[name] = {
            "auc": round(_zoo.auc(list(bad), list(good)), 4),
            "clean_largest": round(float(good[-1]), 2),
            "backdoored_smallest": round(float(np.min(bad)), 2),
            **{
                f"detected_at_{rate}": round(float(np.mean(bad > limit)), 4)
                for rate, limit in limits.items()
            },
        }
    return found


def levels(models: Sequence[_verdict_models.Model], against: Any) -> dict[str, Any]:
    """What `witnesses.LEVEL` was drawn from: the largest log odds ratio of each model.

    Of clean models; of backdoored ones by whether they are flagged without a level; and of
    those beyond the line, how often the largest odds ratio, or the score of all witnesses
    among the classes beyond it, names the target.
    """
    rule: Any = detectors.DETECTORS[models[0].line["mode"]].rule
    (name,) = rule.levels
    others = dataclasses.replace(rule, levels={})
    reached: dict[str, list[float]] = {"clean": [], "flagged": [], "not flagged": []}
    named = collections.Counter[str]()
    for model in models:
        vectors, errors = (
            crowd.numbers(model.line[part]) for part in ("vectors", "errors")
        )
        if name not in vectors or not (model.is_clean or model.works):
            continue
        odds = readings.above(vectors[name], against.centre[name])
        largest = float(np.max(odds))
        if model.is_clean:
            reached["clean"].append(largest)
            continue
        says = others.scores(vectors, errors, against).values
        is_flagged = np.max(says) > rule.thresholds[against.kind]
        reached["flagged" if is_flagged else "not flagged"].append(largest)
        if largest > witnesses.LEVEL:
            among = np.where(odds > witnesses.LEVEL, says, -np.inf)
            target = model.truth["target"]
            named["beyond"] += 1
            named["by the odds ratio"] += int(np.argmax(odds) == target)
            named["by all witnesses"] += int(np.argmax(among) == target)
    return {
        "largest": {
            who: [round(value, 2) for value in sorted(values)]
            for who, values in reached.items()
        },
        "named": dict(named),
    }


def roc(
    models: Sequence[_verdict_models.Model], found: Sequence[records.Record]
) -> list[tuple[float, float]]:
    """`(share of clean models flagged, share of backdoored ones)` at every threshold."""
    pairs = list(zip(models, found, strict=True))
    clean = np.array([one["score"] or 0.0 for model, one in pairs if model.is_clean])
    bad = np.array([one["score"] or 0.0 for model, one in pairs if model.works])
    limits = np.unique(np.concatenate([clean, bad]))[::-1]
    return [
        (0.0, 0.0),
        *(
            (
                round(float(np.mean(clean >= limit)), 4),
                round(float(np.mean(bad >= limit)), 4),
            )
            for limit in limits
        ),
    ]
