"""What the verdicts of detectors were worth, where the truth is known.

A candidate that could not be judged is neither found nor clean: it counts as wrong in the
accuracy, is in no curve where it has no score, and has a column of its own.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ban_jax.comparing import budget, runs, statistics
from ban_jax.records import Record
from ban_jax.zoo import labelled

ALL = "all"
Truth = Mapping[str, Mapping[str, Any]]
"""Path -> its entry of `zoo.json`."""


class Row(TypedDict):
    """Figures of one attack (or of clean models) and architecture, `all` of several.

    Attributes:
      attack: that the models have in common.
      architecture: that they have in common.
      models: how many.
      flagged: called backdoored; of clean models these are false alarms.
      right: judged correctly, an inconclusive one never is.
      right_target: flagged, and the target named; of those that have one target.
      auc: against the clean models of the same architecture.
      suspicious: how many.
      inconclusive: how many.
    """

    attack: str
    architecture: str
    models: int
    flagged: statistics.Share
    right: statistics.Share
    right_target: statistics.Share | None
    auc: statistics.Area | None
    suspicious: int
    inconclusive: int


class Cost(TypedDict):
    """What a candidate of an architecture took; None where it is not known.

    Attributes:
      architecture: of the candidates.
      seconds: of computing, compilation left out.
      compile_seconds: once.
      forward_equivalents: mean.
      chunk_bytes: that the largest chunk takes of a device's memory, as XLA plans it.
      config: the settings.
      budget: how they follow from one, `budget.Fitted.told`.
    """

    architecture: str
    seconds: float | None
    compile_seconds: float
    forward_equivalents: float | None
    chunk_bytes: int | None
    config: dict[str, Any]
    budget: dict[str, Any] | None


class Method(TypedDict):
    """All figures of a detector.

    Attributes:
      name: of the detector.
      summary: what it does, in a few words.
      baselines: what candidates were compared with, and how many were.
      total: over all models; `auc` is over all architectures, `flagged` of the
        backdoored ones alone.
      false_alarms: of the clean ones.
      rows: per attack and architecture.
      costs: per architecture.
      seconds: per candidate, mean over all.
      forward_equivalents: per candidate, mean over all.
      chunk_bytes: the largest.
      roc: points (false alarms, detections) of all thresholds.
      candidates: path, verdict, score, target and reason of each.
    """

    name: str
    summary: str
    baselines: dict[str, int]
    total: Row
    false_alarms: statistics.Share
    rows: list[Row]
    costs: list[Cost]
    seconds: float | None
    forward_equivalents: float | None
    chunk_bytes: int | None
    roc: list[tuple[float, float]]
    candidates: list[dict[str, Any]]


def method(
    name: str,
    summary: str,
    judged: Sequence[Record],
    truth: Truth,
    run: runs.Run,
    fitted: Mapping[str, budget.Fitted],
) -> Method:
    """The figures of one detector.

    Args:
      name: of it.
      summary: what it does, in a few words.
      judged: its records with their verdicts.
      truth: of each path.
      run: what it took.
      fitted: architecture -> how its settings follow from a budget; empty without one.
    """
    good, bad = _apart(judged, truth)
    whole = _row(ALL, ALL, judged, truth)
    whole["flagged"] = _flagged(bad)
    costs = [_cost(one, judged, truth, run, fitted) for one in run.spent]
    spent = list(run.spent.values())
    measured = sum(one.candidates for one in spent)
    counted = [one for one in judged if not one["error"]]
    seconds = sum(one.device_seconds for one in spent)
    work = sum(one["forward_equivalents"] for one in counted)
    return {
        "name": name,
        "summary": summary,
        "baselines": dict(
            collections.Counter(
                one["baseline"] for one in judged if one["score"] is not None
            )
        ),
        "total": whole,
        "false_alarms": _flagged(good),
        "rows": rows(judged, truth),
        "costs": costs,
        "seconds": seconds / measured if measured else None,
        "forward_equivalents": work / len(counted) if counted else None,
        "chunk_bytes": max((one.chunk_bytes for one in spent), default=0) or None,
        "roc": statistics.roc(_scores(bad), _scores(good)),
        "candidates": [
            {
                "model": truth[one["path"]].get("name", one["path"]),
                "attack": labelled.attack(truth[one["path"]]),
                "true_target": truth[one["path"]].get("target"),
                **{field: one[field] for field in ("verdict", "score", "target")},
                "reason": one["reason"],
            }
            for one in judged
        ],
    }


def rows(judged: Sequence[Record], truth: Truth) -> list[Row]:
    """Per attack and architecture, and per attack where there are several.

    Clean models first; each backdoored group is set against the clean models of its
    architecture.
    """
    groups: dict[tuple[str, str], list[Record]] = collections.defaultdict(list)
    for one in judged:
        entry = truth[one["path"]]
        groups[labelled.attack(entry), entry["architecture"]].append(one)
    attacks = collections.Counter(attack for attack, _ in groups)
    for attack, count in attacks.items():
        if count > 1:
            groups[attack, ALL] = [
                one for one in judged if labelled.attack(truth[one["path"]]) == attack
            ]
    order = sorted(groups, key=lambda key: (key[0] != labelled.CLEAN, *key))
    clean, _ = _apart(judged, truth)
    found = []
    for attack, architecture in order:
        members = groups[attack, architecture]
        beside = [
            one
            for one in clean
            if architecture in (ALL, truth[one["path"]]["architecture"])
        ]
        row = _row(attack, architecture, [*members, *beside], truth)
        own = _row(attack, architecture, members, truth)
        found.append({**own, "auc": None if attack == labelled.CLEAN else row["auc"]})
    return found  # type: ignore[return-value]


def _row(attack: str, architecture: str, judged: Sequence[Record], truth: Truth) -> Row:
    good, bad = _apart(judged, truth)
    named = [one for one in bad if truth[one["path"]].get("target") is not None]
    hit = [
        one
        for one in named
        if one["verdict"] == "backdoored"
        and one["target"] == truth[one["path"]]["target"]
    ]
    right = sum(one["verdict"] == "backdoored" for one in bad)
    right += sum(one["verdict"] in ("clean", "suspicious") for one in good)
    return {
        "attack": attack,
        "architecture": architecture,
        "models": len(judged),
        "flagged": _flagged(judged),
        "right": statistics.share(right, len(judged)),
        "right_target": statistics.share(len(hit), len(named)) if named else None,
        "auc": statistics.area(_scores(bad), _scores(good)),
        "suspicious": sum(one["verdict"] == "suspicious" for one in judged),
        "inconclusive": sum(one["verdict"] == "inconclusive" for one in judged),
    }


def _apart(judged: Sequence[Record], truth: Truth) -> tuple[list[Record], list[Record]]:
    """Clean ones and backdoored ones."""
    good = [one for one in judged if labelled.is_clean(truth[one["path"]])]
    bad = [one for one in judged if not labelled.is_clean(truth[one["path"]])]
    return good, bad


def _flagged(judged: Sequence[Record]) -> statistics.Share:
    return statistics.share(
        sum(one["verdict"] == "backdoored" for one in judged), len(judged)
    )


def _scores(judged: Sequence[Record]) -> list[float]:
    """Of those that were judged."""
    return [
        one["score"]
        for one in judged
        if one["score"] is not None and one["verdict"] != "inconclusive"
    ]


def _cost(
    architecture: str,
    judged: Sequence[Record],
    truth: Truth,
    run: runs.Run,
    fitted: Mapping[str, budget.Fitted],
) -> Cost:
    spent = run.spent[architecture]
    work = [
        one["forward_equivalents"]
        for one in judged
        if truth[one["path"]]["architecture"] == architecture and not one["error"]
    ]
    return {
        "architecture": architecture,
        "seconds": spent.device_seconds / spent.candidates
        if spent.candidates
        else None,
        "compile_seconds": spent.compile_seconds,
        "forward_equivalents": sum(work) / len(work) if work else None,
        "chunk_bytes": spent.chunk_bytes or None,
        "config": run.configs[architecture],
        "budget": fitted[architecture].told() if architecture in fitted else None,
    }
