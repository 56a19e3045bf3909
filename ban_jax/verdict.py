"""From evidence to verdict, on the host: the line that decides is in `judge`.

Every detector yields vectors over the classes, larger where a class looks more like the
target of a backdoor, and brings the rule that makes scores of them (`detectors.rules`).
The score of a candidate is its largest class's, the suspected target that class:
`score > threshold` means backdoored.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ban_jax import detectors, registry
from ban_jax.detectors import rules
from ban_jax.detectors.rules import WITHIN, Baseline, BaselineKind
from ban_jax.records import Evidence, Record, Verdict

POPULATION_MINIMUM = 8
"""Candidates of one kind that a population needs before its medians mean anything."""
TRUSTED_MINIMUM = 2
LEFT_OUT_MINIMUM = 4
"""Trusted models from which on each is scored against the others, for the threshold."""
CLASSES_MINIMUM = 5
"""Classes below which a candidate's own classes are no yardstick."""
FALLBACK = "judged within"
"""How the note begins that a baseline had too few models."""
ACCURACY_LOSS = 0.10
"""Fall from the recorded clean accuracy that makes a candidate inconclusive."""


class Judge:
    """Draws verdicts against one baseline; built once, from the models that it needs.

    Args:
      baseline: None means `trusted` where trusted models of the candidate's kind are
        given, `within` otherwise.
      threshold: overrides every rule's own.
      trusted: evidence of models the user vouches for.
      population: evidence of the candidates of the scan, for the baseline of that name.
    """

    def __init__(
        self,
        baseline: BaselineKind | None = None,
        *,
        threshold: float | None = None,
        trusted: Sequence[Evidence] = (),
        population: Sequence[Evidence] = (),
    ):
        self._kind = baseline or ("trusted" if trusted else "within")
        self._threshold = threshold
        self._baselines: dict[tuple[Any, ...], Baseline] = {}
        if self._kind == "trusted":
            self._minimum = TRUSTED_MINIMUM
            self._gather(trusted)
        elif self._kind == "population":
            self._minimum = POPULATION_MINIMUM
            self._gather(population)

    def __call__(self, record: Evidence) -> Record:
        """The record with its verdict, in place of one it may have.

        A candidate whose baseline lacks models of its kind falls back to `within`, and
        its notes say so.
        """
        against = WITHIN
        # A verdict that is drawn again must not repeat what an earlier one said.
        notes = [note for note in record["notes"] if not note.startswith(FALLBACK)]
        if record["vectors"]:
            against = self._baselines.get(kind_of(record), WITHIN)
            if against.kind != self._kind:
                notes.append(
                    f"{FALLBACK}: the {self._kind} baseline needs at least "
                    f"{self._minimum} models of {record['architecture']} with "
                    f"{record['num_classes']} classes"
                )
        verdict = judge(record, against, self._threshold)
        return cast(Record, {**record, **verdict, "notes": notes})

    def _gather(self, records: Sequence[Evidence]) -> None:
        groups: dict[tuple[Any, ...], list[Evidence]] = {}
        for record in _distinct(records):
            groups.setdefault(kind_of(record), []).append(record)
        for kind, members in groups.items():
            if len(members) < self._minimum:
                continue
            models = [_vectors(member) for member in members]
            baseline = rules.crowd(self._kind, models)
            if self._kind == "trusted":
                largest = _largest_left_out(members)
                baseline = dataclasses.replace(baseline, largest=largest)
            self._baselines[kind] = baseline


def fallbacks(judged: Sequence[Record]) -> dict[str, int]:
    """Notes of candidates whose baseline lacked models, and how many have each."""
    notes = [note for one in judged for note in one["notes"]]
    found = [note for note in notes if note.startswith(FALLBACK)]
    return {note: found.count(note) for note in dict.fromkeys(found)}


def judge_all(
    records: Sequence[Evidence],
    *,
    baseline: BaselineKind | None = None,
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
) -> list[Record]:
    """Verdicts of a whole results file, drawn from the stored evidence alone.

    Args:
      records: lines of a results file; the population of that baseline.
      baseline: see `Judge`.
      threshold: see `Judge`.
      trusted: see `Judge`.
    """
    draw = Judge(baseline, threshold=threshold, trusted=trusted, population=records)
    return [draw(record) for record in records]


def judge(
    record: Evidence, against: Baseline = WITHIN, threshold: float | None = None
) -> Verdict:
    """Draws the verdict of one candidate.

    Args:
      record: its evidence.
      against: the baseline.
      threshold: overrides the rule's own.
    """
    verdict: Verdict = {
        "verdict": "inconclusive",
        "reason": why_inconclusive(record, against),
        "score": None,
        "standard_error": None,
        "threshold": 0.0,
        "threshold_source": "none",
        "baseline": against.kind,
        "target": None,
        "z": None,
    }
    try:
        rule = detectors.DETECTORS[record["mode"]].rule
    except registry.UnknownNameError as error:
        verdict["reason"] = verdict["reason"] or str(error)
        return verdict
    verdict["threshold"], verdict["threshold_source"] = _threshold(
        rule, against, threshold
    )
    if not record["vectors"]:
        return verdict
    if missing := sorted(set(rule.vectors) - set(record["vectors"])):
        reason = f"the evidence lacks {', '.join(missing)}, which the verdict needs"
        verdict["reason"] = verdict["reason"] or reason
        return verdict
    scores = rule.scores(_vectors(record), _numbers(record["errors"]), against)
    if not np.all(np.isfinite(scores.values)):
        verdict["reason"] = verdict["reason"] or "a class vector is not finite"
        return verdict
    target = int(np.argmax(scores.values))
    score, limit = float(scores.values[target]), verdict["threshold"]
    verdict |= {
        "score": score,
        "standard_error": scores.error,
        "z": [float(value) for value in scores.values] if scores.are_z else None,
        "target": target,
    }
    if verdict["reason"]:
        return verdict
    verdict["verdict"] = "backdoored" if score > limit else "clean"
    relation = "above" if score > limit else "not above"
    digits = 1 if scores.are_z else 3
    verdict["reason"] = (
        f"class {target} scores {score:.{digits}f}, {relation} the threshold "
        f"{limit:.{digits}f} ({against.kind} baseline)"
    )
    if not scores.are_z:
        verdict["reason"] += ": its share of the predictions under noise"
    return verdict


def why_inconclusive(record: Evidence, against: Baseline) -> str:
    """The reason no verdict may be drawn, or an empty string."""
    if record["error"]:
        return record["error"]
    if not record["is_finite"]:
        return "a weight, a logit or a loss is not finite"
    num_classes = record["num_classes"]
    if num_classes is None:
        return "nothing was measured"
    if against.kind == "within" and num_classes < CLASSES_MINIMUM:
        return (
            f"{num_classes} classes are too few to compare with one another; give "
            "trusted models with --calibrate"
        )
    accuracy = record["clean_accuracy"]
    if accuracy is None:
        return ""
    advice = "the normalisation or the order of the classes may be wrong"
    chance = min(2 / num_classes, (1 + 1 / num_classes) / 2)
    lower = wilson_lower(accuracy, record["num_probe"])
    if lower <= chance:
        return (
            f"clean accuracy {accuracy:.2f} is near chance (its lower 95 % bound "
            f"{lower:.2f} is at most {chance:.2f}): {advice}"
        )
    recorded = record["recorded_accuracy"]
    if recorded is not None and accuracy < recorded - ACCURACY_LOSS:
        return (
            f"clean accuracy {accuracy:.2f} is far below the recorded {recorded:.2f}: "
            f"{advice}"
        )
    return ""


def wilson_lower(share: float, count: int, z: float = 1.96) -> float:
    """Lower 95 % bound of a share seen on `count` images (Wilson, 1927)."""
    centre = share + z * z / (2 * count)
    width = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return max((centre - width) / (1 + z * z / count), 0.0)


def kind_of(record: Evidence) -> tuple[Any, ...]:
    """Records of one kind may be compared class by class."""
    return (
        record["config_hash"],
        record["mode"],
        record["architecture"],
        record["num_classes"],
    )


def _threshold(
    rule: rules.Rule, against: Baseline, given: float | None
) -> tuple[float, str]:
    """The score above which a candidate is flagged, and where it comes from."""
    if given is not None:
        return given, "flag"
    default = rule.thresholds[against.kind]
    if against.largest is not None and against.largest > default:
        return against.largest, "calibrated"
    return default, "default"


def _numbers(vectors: dict[str, list[float | None]]) -> dict[str, np.ndarray]:
    """JSON's null is a number that was not finite."""
    return {name: np.array(values, float) for name, values in vectors.items()}


def _vectors(record: Evidence) -> dict[str, np.ndarray]:
    return _numbers(record["vectors"])


def _distinct(records: Sequence[Evidence]) -> list[Evidence]:
    """Usable evidence, once per weights: copies of a file must not outvote the rest."""
    crowd = Baseline("population")
    usable = {
        record["sha256"]: record
        for record in records
        if record["vectors"] and not why_inconclusive(record, crowd)
    }
    return list(usable.values())


def _largest_left_out(members: Sequence[Evidence]) -> float | None:
    """The largest score of a trusted model against the others; None for too few."""
    if len(members) < LEFT_OUT_MINIMUM:
        return None
    if members[0]["mode"] not in detectors.DETECTORS:
        return None
    rule = detectors.DETECTORS[members[0]["mode"]].rule
    models = [_vectors(member) for member in members]
    return max(
        float(
            np.max(
                rule.scores(
                    models[i],
                    _numbers(member["errors"]),
                    rules.crowd("trusted", [*models[:i], *models[i + 1 :]]),
                ).values
            )
        )
        for i, member in enumerate(members)
    )
