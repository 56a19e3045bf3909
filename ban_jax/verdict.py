"""From evidence to verdict, on the host: the line that decides is in `grade`.

Every detector yields vectors over the classes, larger where a class looks more like the
target of a backdoor, and brings the rule that makes scores of them (`detectors.rules`,
`detectors.witnesses`). The score of a candidate is its largest class's, the suspected
target that class: `score > threshold` means backdoored.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from ban_jax import detectors, registry
from ban_jax.baselines import crowd, findings, multiple, profile, usable
from ban_jax.detectors import evidence, rules, witnesses
from ban_jax.detectors.rules import WITHIN, Baseline, BaselineKind
from ban_jax.records import Evidence, Record, Verdict, parts
from ban_jax.records.record import Grade

POPULATION_MINIMUM = 8
"""Candidates of one kind that a population needs before its medians mean anything."""
TRUSTED_MINIMUM = 2
FALLBACK = "judged against "
"""How the note begins that a baseline was not to be had, or holds the very candidate."""
MOST_CLASSES = 12
"""Classes that a closer look takes at most."""
INTERVAL = 1.96
"""Standard errors on either side of a score: 95 %."""

Profiles: TypeAlias = profile.Profile | Literal["shipped"] | None
"""One profile; `shipped`: the package's own for the data set at hand; None: none."""


class Judge:
    """Draws verdicts; built once, from the models that it compares with.

    Without a `baseline` a candidate is compared with the first of these that is there for
    its kind: trusted models, the profile, the crowd of the scan, its own classes. The crowd
    may hold more backdoored models than clean ones, a profile does not. A detector that is
    judged by its published rule (`Detector.published`) is compared with trusted models and
    with a profile that is given, else with its own classes.

    Args:
      baseline: insists on one of them.
      threshold: finite; overrides every rule's own.
      trusted: evidence of models the user vouches for.
      population: evidence of the candidates of the scan.
      profiles: what `profile` means.
    """

    def __init__(
        self,
        baseline: BaselineKind | None = None,
        *,
        threshold: float | None = None,
        trusted: Sequence[Evidence] = (),
        population: Sequence[Evidence] = (),
        profiles: Profiles = "shipped",
    ):
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"threshold must be a finite number, got {threshold}")
        self._kind, self._threshold, self._profiles = baseline, threshold, profiles
        self._vouched = bool(trusted)
        self._packaged: dict[str, profile.Profile | None] = {}
        self._groups: dict[str, dict[Any, list[Evidence]]] = {}
        self._crowds: dict[Any, tuple[Baseline | None, str]] = {}
        # A crowd is settled when it is first asked for: with a profile it never is.
        self._waiting: dict[str, Sequence[Evidence]] = {
            "trusted": trusted,
            "population": population,
        }

    def __call__(self, record: Evidence) -> Record:
        """The record with its verdict, in place of one it may have.

        Where the baseline that was asked for is not to be had, another takes its place,
        and the notes say so.
        """
        # A verdict that is drawn again must not repeat what an earlier one said.
        notes = [note for note in record["notes"] if not note.startswith(FALLBACK)]
        against = WITHIN
        if record["vectors"]:
            against, reason = self.baseline(record)
            if reason:
                notes.append(f"{FALLBACK}{against.name}: {reason}")
        verdict = judge(record, against, self._threshold)
        verdict = findings.with_calls(record, verdict)
        return cast(Record, {**record, **verdict, "notes": notes})

    def asks(
        self, record: Evidence, most: int = MOST_CLASSES
    ) -> witnesses.Question | None:
        """What a closer look could change of the verdict; None: no need of one."""
        if record["mode"] not in detectors.DETECTORS or not record["vectors"]:
            return None
        one = detectors.DETECTORS[record["mode"]]
        if one.further is None:
            return None
        rule = cast(witnesses.Agreement, one.rule)
        against, _ = self.baseline(record)
        if usable.why_inconclusive(record, crowd_like=against.kind != "within"):
            return None
        vectors = crowd.numbers(record["vectors"])
        errors = crowd.numbers(record["errors"])
        limit, _ = _threshold(rule, against, self._threshold)
        return rule.asks(
            vectors, errors, against, limit=limit, most=most, seed=record["seed"]
        )

    def baseline(self, record: Evidence) -> tuple[Baseline, str]:
        """What a record is compared with, and why not with something better."""
        reasons: list[str] = []
        order = self._order(record["mode"])
        if self._kind is not None:
            order = (self._kind, *(kind for kind in order if kind != self._kind))
        for kind in order:
            found, reason = self._of_kind(kind, record)
            if found is not None:
                asked = self._kind is not None and kind != self._kind
                told = [*(reasons[:1] if asked else reasons), reason]
                return found, "; ".join(filter(None, told))
            reasons.append(reason)
        raise AssertionError("its own classes are always there")

    def _order(self, mode: str) -> tuple[BaselineKind, ...]:
        """The baselines that are looked for, the best first, where none is insisted on."""
        if mode not in detectors.DETECTORS or not detectors.DETECTORS[mode].published:
            return ("trusted", "profile", "population", "within")
        is_given = self._profiles not in (None, "shipped")
        return ("trusted", *(("profile",) if is_given else ()), "within")

    def _of_kind(
        self, kind: BaselineKind, record: Evidence
    ) -> tuple[Baseline | None, str]:
        """A baseline of a kind for a record, or None and why, if that is worth saying."""
        if kind == "within":
            return WITHIN, ""
        if kind == "profile":
            return self._profile(record)
        least = TRUSTED_MINIMUM if kind == "trusted" else POPULATION_MINIMUM
        members, own = self._members(kind, record), ""
        if kind == "trusted":
            others = [one for one in members if one["sha256"] != record["sha256"]]
            if len(others) < len(members):
                own = f"the same weights are among {len(members)} {_CALLED[kind]}, left out"
                members = others
        if len(members) < least or record["mode"] not in detectors.DETECTORS:
            kin = f"{record['architecture']} with {record['num_classes']} classes"
            reason = f"the {kind} baseline needs at least {least} models of {kin}"
            is_told = kind == self._kind or (kind == "trusted" and self._vouched)
            return None, own or reason * is_told
        key = (kind, kind_of(record), record["sha256"] if own else "")
        if key not in self._crowds:
            self._crowds[key] = self._made(kind, members, least)
        found, reason = self._crowds[key]
        return self._completed(found, record), own or reason

    def _profile(self, record: Evidence) -> tuple[Baseline | None, str]:
        given, is_told = self._profiles, True
        if given == "shipped":
            given = self._shipped(record)
            # That its own config keeps a model from the profile of its data is said.
            is_told = self._kind == "profile" or "preparation" in (record["data"] or {})
        if given is None:
            what = "shipped profile fits" if self._profiles else "profile was given"
            return None, f"no {what}" if self._kind == "profile" else ""
        if reason := profile.why_unfit(given, record):
            return None, reason if is_told else ""
        own = any(one["sha256"] == record["sha256"] for one in given["models"])
        return profile.baseline(given), "the same weights are among these" * own

    def _shipped(self, record: Evidence) -> profile.Profile | None:
        """The profile of the package for the data set of this name."""
        name = record["data"]["name"] if record["data"] else ""
        if name not in self._packaged:
            known = name in profile.shipped()
            self._packaged[name] = profile.load(name) if known else None
        return self._packaged[name]

    def _completed(self, found: Baseline | None, record: Evidence) -> Baseline | None:
        """A crowd with what a profile that fits knows; see `crowd.completed`."""
        given = found and self._profile(record)[0]
        if found is None or given is None:
            return found
        return crowd.completed(found, given, detectors.DETECTORS[record["mode"]].rule)

    def _members(self, kind: str, record: Evidence) -> list[Evidence]:
        """Trusted models, or candidates of the scan, that are of a record's kind."""
        if kind in self._waiting:
            groups = self._groups[kind] = {}
            for one in usable.distinct(self._waiting.pop(kind)):
                groups.setdefault(kind_of(one), []).append(one)
        return self._groups[kind].get(kind_of(record), [])

    def _made(
        self, kind: BaselineKind, members: Sequence[Evidence], least: int
    ) -> tuple[Baseline | None, str]:
        """A baseline of models of one kind, or None and why they are none."""
        rule = detectors.DETECTORS[members[0]["mode"]].rule
        models = [crowd.numbers(member["vectors"]) for member in members]
        errors = [crowd.numbers(member["errors"]) for member in members]
        if kind == "trusted":
            made = crowd.trusted(rule, models, errors)
        else:
            odd = crowd.odd_class(rule, models, rule.thresholds["within"])
            if odd is not None and self._kind != kind:
                return None, (
                    f"the {len(members)} {_CALLED[kind]} are not trusted: class {odd} "
                    "stands out in most of them"
                )
            # What is suspicious is no yardstick either.
            limit = rule.suspicious.get(kind, rule.thresholds[kind])
            made = crowd.settled(rule, models, errors, limit, least)
        some = f"{made.count} of " if made.count < len(members) else ""
        name = f"{some}{len(members)} {_CALLED[kind]}"
        return dataclasses.replace(made, name=name), ""


_CALLED = {"trusted": "trusted models", "population": "models of this scan"}


def fallbacks(judged: Sequence[Record]) -> dict[str, int]:
    """Notes of candidates whose baseline was not to be had, and how many have each."""
    found = [n for one in judged for n in one["notes"] if n.startswith(FALLBACK)]
    return {note: found.count(note) for note in dict.fromkeys(found)}


def judge_all(
    records: Sequence[Evidence],
    *,
    baseline: BaselineKind | None = None,
    threshold: float | None = None,
    trusted: Sequence[Evidence] = (),
    profiles: Profiles = "shipped",
) -> list[Record]:
    """Verdicts of a whole results file, drawn from the stored evidence alone.

    Args:
      records: lines of a results file; the crowd of the baseline of that name.
      baseline: insists on one, as of `Judge`.
      threshold: finite; overrides every rule's own.
      trusted: evidence of models the user vouches for.
      profiles: what `profile` means.

    Returns:
      A verdict per line; and one per file that holds several classifiers, its worst.
    """
    records = parts.evidence(records)
    draw = Judge(
        baseline,
        threshold=threshold,
        trusted=parts.evidence(trusted),
        population=records,
        profiles=profiles,
    )
    judged = [draw(record) for record in records]
    # What is not judged cannot be flagged, and a copy of a file is not another candidate.
    drawn = {
        one["key"] or one["path"]: one["p_value"]
        for one in judged
        if one["verdict"] != "inconclusive"
    }
    shares = dict(zip(drawn, multiple.false_shares(list(drawn.values())), strict=True))
    return parts.with_files(
        [
            cast(Record, {**one, "q_value": shares.get(one["key"] or one["path"])})
            for one in judged
        ]
    )


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
        "reason": usable.why_inconclusive(record, crowd_like=against.kind != "within"),
        "score": None,
        "standard_error": None,
        "interval": None,
        "threshold": 0.0,
        "threshold_source": "none",
        "suspicious_above": None,
        "baseline": against.kind,
        "compared_with": against.name,
        "p_value": None,
        "p_models": 0,
        "q_value": None,
        "target": None,
        "z": None,
        "witnesses": {},
        "void": {},
    }
    try:
        rule = detectors.DETECTORS[record["mode"]].rule
    except registry.UnknownNameError as error:
        verdict["reason"] = verdict["reason"] or str(error)
        return verdict
    limit, verdict["threshold_source"] = _threshold(rule, against, threshold)
    verdict["threshold"] = limit
    against = dataclasses.replace(against, limit=limit)
    lower = None if threshold is not None else rule.suspicious.get(against.kind)
    verdict["suspicious_above"] = lower
    if not record["vectors"]:
        return verdict
    if reason := usable.why_unmeasured(record):
        verdict["reason"] = verdict["reason"] or reason
        return verdict
    scores = rule.scores(
        crowd.numbers(record["vectors"]), crowd.numbers(record["errors"]), against
    )
    verdict["void"] = dict(scores.void)
    lacks = evidence.RISE in rule.vectors and evidence.RISE not in record["vectors"]
    blind = f"; {usable.NOISE_IS_BLIND}" if lacks else ""
    verdict["reason"] = verdict["reason"] or (scores.reason and scores.reason + blind)
    values = scores.values
    # Classes of which too few witnesses were asked hide none that stands out.
    if np.max(values) > (limit if lower is None else min(limit, lower)):
        values = np.where(np.isneginf(values), 0.0, values)
    if not np.all(np.isfinite(values)):
        verdict["reason"] = verdict["reason"] or _NOTHING_SAID
        return verdict
    target = int(np.argmax(values))
    score = float(values[target])
    verdict |= {
        "score": score,
        "standard_error": scores.error,
        "interval": [score - INTERVAL * scores.error, score + INTERVAL * scores.error],
        "z": [float(value) for value in values] if scores.are_z else None,
        "target": target,
        "witnesses": {
            name: [float(z) if np.isfinite(z) else None for z in values]
            for name, values in scores.witnesses.items()
        },
    }
    if against.null:
        above = sum(other >= score for other in against.null)
        verdict["p_models"] = len(against.null)
        verdict["p_value"] = (1 + above) / (1 + len(against.null))
    if verdict["reason"]:
        return verdict
    verdict["verdict"] = grade(score, limit, lower)
    verdict["reason"] = _reason(verdict, against, scores)
    if verdict["verdict"] == "clean" and lacks:
        verdict["verdict"] = "inconclusive"
        verdict["reason"] += blind
    return verdict


_NOTHING_SAID = "a class vector is not finite, or none says anything"


def grade(score: float, limit: float, lower: float | None) -> Grade:
    """What a score means. This is the line that decides."""
    if score > limit:
        return "backdoored"
    return "suspicious" if lower is not None and score > lower else "clean"


def _reason(verdict: Verdict, against: Baseline, scores: rules.Scores) -> str:
    score, limit, target = verdict["score"], verdict["threshold"], verdict["target"]
    relation = "above" if verdict["verdict"] == "backdoored" else "not above"
    digits = 1 if scores.are_z else 3
    reason = (
        f"class {target} scores {score:.{digits}f}, {relation} the threshold "
        f"{limit:.{digits}f} ({against.kind} baseline)"
    )
    if verdict["verdict"] == "suspicious":
        reason += f", but above {verdict['suspicious_above']:.{digits}f}"
    return f"{reason}: {scores.meaning}" if scores.meaning else reason


def kind_of(record: Evidence) -> tuple[Any, ...]:
    """Records of one kind may be compared class by class."""
    mode = record["mode"]
    pools = mode in detectors.DETECTORS and detectors.DETECTORS[mode].rule.pools
    architecture = None if pools else record["architecture"]
    return record["config_hash"], mode, architecture, record["num_classes"]


def _threshold(
    rule: rules.Rule, against: Baseline, given: float | None
) -> tuple[float, str]:
    """The score above which a candidate is flagged, and where it comes from."""
    if given is not None:
        return given, "flag"
    default = rule.thresholds.get(against.kind, rule.thresholds["trusted"])
    if against.largest is not None and against.largest > default:
        return against.largest, "calibrated"
    return default, "default"
