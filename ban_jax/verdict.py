"""From evidence to verdict, in NumPy on the host: the line that decides is in `judge`.

Every detector yields vectors over the classes, larger where a class looks more like the
target of a backdoor. A vector by itself says little: some classes are easy in every
model. It is measured against a baseline,

  within      the candidate's own classes: their median, and the standard deviation of
              all but the largest (with ten classes the MAD is too noisy a yardstick);
  trusted     models the user vouches for: each class against its median over them;
  population  the candidates of this scan of the same architecture and classes, likewise;
              both in units of the MAD pooled over models and classes.

which turns it into z-values per class. A mode's vectors are averaged as z-values, the
score is the largest class's, the suspected target that class: `score > threshold` means
backdoored. Scores have no upper bound; around 0 to 2 is what noise gives. Mode
`reference` alone, under `within`, scores the largest share of predictions as it is.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

BaselineKind = Literal["within", "trusted", "population"]
Record = dict[str, Any]

MAD_TO_SIGMA = 1.4826
FLOORS = {"share": 0.01}
"""Smallest unit of a vector; a histogram of argmaxes is zero for most classes."""
FLOOR = 1e-6
"""The same for all others: equal entries get z = 0 rather than NaN."""
POPULATION_MINIMUM = 8
"""Candidates of one kind that a population needs before its medians mean anything."""
CLASSES_MINIMUM = 5
"""Classes below which a candidate's own classes are no yardstick."""
FALLBACK = "judged within"
"""How the note begins that a baseline had too few models."""
ACCURACY_LOSS = 0.10
"""Fall from the recorded clean accuracy that makes a candidate inconclusive."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one mode decides.

    Attributes:
      vectors: names of the class vectors whose z-values are averaged.
      thresholds: per baseline; chosen on models trained for it, see benchmarks/README.md.
      share_rule: a vector whose largest entry is itself the score under the baseline
        `within`, with nothing to compare it with.
    """

    vectors: tuple[str, ...]
    thresholds: Mapping[str, float]
    share_rule: str | None = None


RULES: dict[str, Rule] = {
    "targeted": Rule(
        ("targeted", "batch_minus_stored"),
        {"within": 3.3, "trusted": 4.4, "population": 3.2},
    ),
    "ban": Rule(
        # Through the mask's complement (`untargeted_masked`) clean models stand out too.
        ("untargeted", "batch_minus_stored"),
        {"within": 3.3, "trusted": 5.0, "population": 3.4},
    ),
    "reference": Rule(
        ("share",),
        # 0.9 is what a re-implementation uses; the released code draws no verdict.
        {"within": 0.9, "trusted": 5.0, "population": 3.4},
        share_rule="share",
    ),
    "weights": Rule(
        ("last_layer",), {"within": 4.0, "trusted": 5.0, "population": 3.5}
    ),
}


@dataclasses.dataclass(frozen=True)
class Crowd:
    """What a candidate of one kind is measured against.

    Attributes:
      kind: `within`, `trusted` or `population`.
      centre: name -> `[K]` median over the models; empty for `within`.
      scale: name -> sigma pooled over models and classes; empty for `within`.
      count: number of models.
      largest: the largest score of any of the models, each against the others; None
        where that was not asked.
    """

    kind: BaselineKind
    centre: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    scale: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0
    largest: float | None = None


WITHIN = Crowd("within")


def crowd(kind: BaselineKind, records: Sequence[Record]) -> Crowd:
    """Medians per class and one pooled spread per vector, from records of one kind."""
    names = set.intersection(*(set(record["vectors"]) for record in records))
    centre, scale = {}, {}
    for name in sorted(names):
        stacked = np.array([record["vectors"][name] for record in records], float)
        centre[name] = np.median(stacked, axis=0)
        deviations = np.abs(stacked - centre[name])
        scale[name] = max(
            MAD_TO_SIGMA * float(np.median(deviations)), FLOORS.get(name, FLOOR)
        )
    return Crowd(kind, centre, scale, len(records))


def z_values(vector: np.ndarray, name: str, against: Crowd) -> tuple[np.ndarray, float]:
    """A class vector `[K]` in units of its baseline's spread, and that unit."""
    vector = np.asarray(vector, float)
    if against.kind == "within":
        centre: Any = np.median(vector)
        unit = max(float(np.std(np.sort(vector)[:-1])), FLOORS.get(name, FLOOR))
    else:
        centre, unit = against.centre[name], against.scale[name]
    return (vector - centre) / unit, unit


def score(record: Record, against: Crowd) -> tuple[np.ndarray, float]:
    """The averaged z-values `[K]` of a record's mode and their standard error.

    Where the mode's share rule applies: the shares and the largest one's error.
    """
    rule = RULES[record["mode"]]
    names = rule.vectors
    if rule.share_rule and against.kind == "within":
        share = np.asarray(record["vectors"][rule.share_rule], float)
        return share, float(record["errors"][rule.share_rule][int(np.argmax(share))])
    pairs = [z_values(record["vectors"][name], name, against) for name in names]
    mean = np.mean([z for z, _ in pairs], axis=0)
    errors = [
        float(record["errors"][name][int(np.argmax(mean))]) / unit
        for name, (_, unit) in zip(names, pairs, strict=True)
    ]
    return mean, math.hypot(*errors) / len(names)


def judge(
    record: Record, against: Crowd = WITHIN, threshold: float | None = None
) -> Record:
    """Draws the verdict of one record of evidence; returns a copy with it filled in.

    Args:
      record: a line of the results file; `vectors`, `errors`, `mode`, `clean_accuracy`,
        `recorded_accuracy`, `num_probe` and `error` are read.
      against: the baseline.
      threshold: overrides the rule's own.

    Returns:
      The record with `verdict`, `score`, `standard_error`, `threshold`,
      `threshold_source`, `baseline`, `target`, `z` and `reason`.
    """
    rule = RULES[record["mode"]]
    by_share = rule.share_rule is not None and against.kind == "within"
    source = "flag"
    if threshold is None:
        threshold, source = rule.thresholds[against.kind], "default"
        if against.largest is not None and against.largest > threshold:
            threshold, source = against.largest, "calibrated"
    judged = {
        **record,
        "baseline": against.kind,
        "threshold": threshold,
        "threshold_source": source,
        "score": None,
        "standard_error": None,
        "target": None,
        "z": None,
        "verdict": "inconclusive",
    }
    judged["reason"] = why_inconclusive(record, against)
    if not record.get("vectors"):
        return judged
    z, error = score(record, against)
    if not np.all(np.isfinite(z)):
        judged["reason"] = judged["reason"] or "a class vector is not finite"
        return judged
    target = int(np.argmax(z))
    judged |= {
        "score": float(z[target]),
        "standard_error": error,
        "z": None if by_share else [float(value) for value in z],
        "target": target,
    }
    if judged["reason"]:
        return judged
    judged["verdict"] = "backdoored" if z[target] > threshold else "clean"
    relation = "above" if z[target] > threshold else "not above"
    digits = 3 if by_share else 1
    judged["reason"] = (
        f"class {target} scores {z[target]:.{digits}f}, {relation} the threshold "
        f"{threshold:.{digits}f} ({against.kind} baseline)"
    )
    if by_share:
        judged["reason"] += ": its share of the predictions under noise"
    return judged


def why_inconclusive(record: Record, against: Crowd) -> str:
    """The reason no verdict may be drawn, or an empty string."""
    if record.get("error"):
        return record["error"]
    if not record.get("is_finite", True):
        return "a weight, a logit or a loss is not finite"
    num_classes = record["num_classes"]
    if against.kind == "within" and num_classes < CLASSES_MINIMUM:
        return (
            f"{num_classes} classes are too few to compare with one another; give "
            "trusted models with --calibrate"
        )
    accuracy = record.get("clean_accuracy")
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
    recorded = record.get("recorded_accuracy")
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


def kind_of(record: Record) -> tuple[Any, ...]:
    """Records of one kind may be compared class by class."""
    return tuple(
        record.get(name)
        for name in ("config_hash", "mode", "architecture", "num_classes")
    )


def judge_all(
    records: Sequence[Record],
    *,
    baseline: BaselineKind | None = None,
    threshold: float | None = None,
    trusted: Sequence[Record] = (),
) -> list[Record]:
    """Verdicts of a whole results file, drawn from the stored evidence alone.

    Args:
      records: lines of a results file.
      baseline: None means `trusted` where trusted models of the candidate's kind are
        given, `within` otherwise.
      threshold: overrides every rule's own.
      trusted: records of models the user vouches for.

    Returns:
      New records. A candidate whose baseline lacks models of its kind falls back to
      `within`, and its notes say so.
    """
    if baseline is None:
        baseline = "trusted" if trusted else "within"
    crowds: dict[tuple[Any, ...], Crowd] = {}
    source = trusted if baseline == "trusted" else records
    minimum = 2 if baseline == "trusted" else POPULATION_MINIMUM
    if baseline != "within":
        groups: dict[tuple[Any, ...], list[Record]] = {}
        for record in _distinct(source):
            groups.setdefault(kind_of(record), []).append(record)
        for kind, members in groups.items():
            if len(members) >= minimum:
                crowds[kind] = crowd(baseline, members)
                if baseline == "trusted":
                    crowds[kind] = dataclasses.replace(
                        crowds[kind], largest=_largest_left_out(members)
                    )
    judged = []
    for record in records:
        against = WITHIN
        if record.get("vectors"):
            against = crowds.get(kind_of(record), WITHIN)
        result = judge(record, against, threshold)
        # A verdict that is drawn again must not repeat what an earlier one said.
        notes = [n for n in record.get("notes", []) if not n.startswith(FALLBACK)]
        if against.kind != baseline and record.get("vectors"):
            notes.append(
                f"{FALLBACK}: the {baseline} baseline needs at least {minimum} models of "
                f"{record['architecture']} with {record['num_classes']} classes"
            )
        result["notes"] = notes
        judged.append(result)
    return judged


def _distinct(records: Sequence[Record]) -> list[Record]:
    """Usable evidence, once per weights: copies of a file must not outvote the rest."""
    usable = {
        record["sha256"]: record
        for record in records
        if record.get("vectors") and not why_inconclusive(record, Crowd("population"))
    }
    return list(usable.values())


def _largest_left_out(members: Sequence[Record]) -> float | None:
    """The largest score of a trusted model against the others; needs four to mean much."""
    if len(members) < 4:
        return None
    return max(
        float(np.max(score(member, crowd("trusted", rest))[0]))
        for i, member in enumerate(members)
        for rest in [[*members[:i], *members[i + 1 :]]]
    )
