"""Models that are compared with one another: trusted ones, or those of one scan."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ban_jax.detectors import readings, rules
from ban_jax.detectors.rules import BaselineKind, Vectors

EXACT = 64
"""Models up to which each is scored against a centre without it; of more, one moves the
centre by next to nothing."""

LEFT_OUT_MINIMUM = 4
"""Trusted models from which on each is scored against the others, for the threshold."""

ROUNDS = 5
"""A crowd that has not settled by then swings between two states: either will do."""


def numbers(vectors: Mapping[str, Sequence[float | None]]) -> dict[str, np.ndarray]:
    """Vectors of a record; JSON's null is a number that was not finite or not measured."""
    return {name: np.array(values, float) for name, values in vectors.items()}


def compared(
    kind: BaselineKind,
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
    families: Sequence[Hashable] | None = None,
) -> tuple[rules.Baseline, list[float]]:
    """What candidates are compared with, and what its models score against the others.

    Args:
      kind: of the baseline.
      rule: of their detector.
      models: their vectors, at least two.
      errors: of these.
      families: what each is a version of, such as one model pruned and fine-tuned; a
        model is never compared with its own. None: all are strangers.

    Returns:
      The models' centre, and how they scatter at each class; and the scores: what clean
      models score by chance.
    """
    families = families or range(len(models))
    many = len(set(families)) > EXACT
    whole = rules.crowd(kind, models)
    centres = [whole] * len(models) if many else _centres(kind, models, families)
    told = list(zip(models, errors, centres, strict=True))
    read = [rule.scores(*one).witnesses for one in told]
    spreads = readings.class_spreads(read)
    scores = []
    for own, (vectors, errs, centre) in zip(families, told, strict=True):
        others = (
            spreads if many else readings.class_spreads(_strangers(read, families, own))
        )
        against = dataclasses.replace(centre, spreads=others)
        scores.append(float(np.max(rule.scores(vectors, errs, against).values)))
    return dataclasses.replace(whole, spreads=spreads), scores


def _strangers(
    members: Sequence[Any], families: Sequence[Hashable], own: Hashable
) -> list[Any]:
    """Those of other families."""
    pairs = zip(members, families, strict=True)
    return [one for one, family in pairs if family != own]


def _centres(
    kind: BaselineKind, models: Sequence[Vectors], families: Sequence[Hashable]
) -> list[rules.Baseline]:
    """For each model the centre of those of other families."""
    known = {
        own: rules.crowd(kind, _strangers(models, families, own))
        for own in set(families)
    }
    return [known[own] for own in families]


def trusted(
    rule: rules.Rule, models: Sequence[Vectors], errors: Sequence[Vectors]
) -> rules.Baseline:
    """Models the user vouches for, with their scores where they are enough for a threshold.

    Args:
      rule: of their detector.
      models: their vectors, at least two.
      errors: of these.
    """
    found, scores = compared("trusted", rule, models, errors)
    if len(models) < LEFT_OUT_MINIMUM:
        return found
    # One of which nothing is said has none.
    known = tuple(score for score in scores if np.isfinite(score))
    return dataclasses.replace(found, null=known, largest=max(known, default=None))


def settled(
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
    limit: float,
    least: int,
) -> rules.Baseline:
    """The crowd of a scan without those of it that stand out.

    Backdoored models pull the centre towards their targets and widen what passes for
    usual. So those that score above `limit` are left out and the rest is looked at again,
    until nothing changes; `null` are the scores of the rest. Fewer than `least` are no
    crowd: then it stays whole.

    Args:
      rule: of their detector.
      models: their vectors.
      errors: of these.
      limit: score above which a model is left out.
      least: models that must be left.
    """
    kept = list(range(len(models)))
    for _ in range(ROUNDS):
        # Without how they scatter: backdoored ones would make their targets look usual.
        centre = rules.crowd("population", [models[i] for i in kept])
        inside = [centre] * len(kept)
        if len(kept) <= EXACT:
            inside = _centres("population", [models[i] for i in kept], kept)
        against = dict(zip(kept, inside, strict=True))
        scores = [
            float(np.max(rule.scores(*told, against.get(i, centre)).values))
            for i, told in enumerate(zip(models, errors, strict=True))
        ]
        clean = [i for i, score in enumerate(scores) if score <= limit]
        if clean == kept or len(clean) < least:
            break
        kept = clean
    crowd, scores = compared(
        "population", rule, [models[i] for i in kept], [errors[i] for i in kept]
    )
    null = tuple(score for score in scores if score <= limit)
    return dataclasses.replace(crowd, null=null)


def completed(
    found: rules.Baseline, given: rules.Baseline, rule: rules.Rule
) -> rules.Baseline:
    """A crowd with what a profile knows: the rule and its scale are the same.

    A profile of networks with batch statistics says nothing of those without, nor the
    other way round: these are left as they are.

    Trusted models take the profile's curves for vectors that too few of them have, and
    its clean scores. The candidates of a scan take its clean models as members besides:
    where most of them stand out, few are left to say what is usual.

    Args:
      found: of trusted models or of a scan.
      given: of a profile.
      rule: of their detector.
    """
    statistics = getattr(rule, "statistics", "")
    if (statistics in found.centre) != (statistics in given.centre):
        return found
    centre: dict[str, Any] = {**given.centre, **found.centre}
    spreads: dict[str, Any] = {**given.spreads, **found.spreads}
    if found.kind == "population":
        share = found.count / max(found.count + given.count, 1)
        for name in set(found.centre) & set(given.centre):
            centre[name] = _between(found.centre[name], given.centre[name], share)
        for name in set(found.spreads) & set(given.spreads):
            squares = [np.square(one.spreads[name]) for one in (found, given)]
            spreads[name] = np.sqrt(share * squares[0] + (1 - share) * squares[1])
    return dataclasses.replace(
        found,
        centre=centre,
        scale={**given.scale, **found.scale},
        spreads=spreads,
        null=(*found.null, *given.null),
    )


def _between(curve: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """A curve `[K]` and another one brought to its scale and offset, `share` of the first.

    Classes that only one of them knows are left as the first has them.
    """
    known = np.isfinite(curve) & np.isfinite(other)
    if known.sum() < readings.CLASSES_MINIMUM:
        return curve  # too few to tell scale and offset
    scaled = other * readings.slope(curve[known], other[known])
    scaled = scaled + np.median((curve - scaled)[known])
    return np.where(known, share * curve + (1 - share) * scaled, curve)


def odd_class(rule: rules.Rule, models: Sequence[Vectors], limit: float) -> int | None:
    """A class at which the models' own centre looks backdoored, or None.

    A crowd of which most share one target has that target in its centre, and would call
    every one of them clean.

    Args:
      rule: of their detector.
      models: their vectors.
      limit: score above which a class is odd, judged among the centre's own classes.
    """
    centre: dict[str, Any] = dict(rules.crowd("population", models).centre)
    none = {name: np.zeros(len(values)) for name, values in centre.items()}
    scores = rule.scores(centre, none, rules.WITHIN)
    target = int(np.argmax(scores.values))
    return target if scores.values[target] > limit else None
