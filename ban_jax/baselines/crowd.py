"""Models that are compared with one another: trusted ones, or those of one scan."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ban_jax.detectors import rules, witnesses
from ban_jax.detectors.rules import BaselineKind, Vectors

EXACT = 64
"""Models up to which each is scored against a centre without it; of more, one moves the
centre by next to nothing."""

ROUNDS = 5
"""A crowd that has not settled by then swings between two states: either will do."""


def numbers(vectors: Mapping[str, Sequence[float | None]]) -> dict[str, np.ndarray]:
    """Vectors of a record; JSON's null is a number that was not finite or not measured."""
    return {name: np.array(values, float) for name, values in vectors.items()}


def baseline(
    kind: BaselineKind,
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
    families: Sequence[Hashable] | None = None,
) -> rules.Baseline:
    """What candidates are compared with: the models' centre, and how they scatter.

    Args:
      kind: of the baseline.
      rule: of their detector.
      models: their vectors.
      errors: of these.
      families: what each is a version of, such as one model pruned and fine-tuned; a
        model is never compared with its own. None: all are strangers.
    """
    centres = _centres(kind, models, families or range(len(models)))
    read = _readings(rule, models, errors, centres)
    return dataclasses.replace(
        rules.crowd(kind, models), spreads=witnesses.class_spreads(read)
    )


def left_out_scores(
    kind: BaselineKind,
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
    families: Sequence[Hashable] | None = None,
) -> list[float]:
    """The score of each model against all the others: what clean models score by chance.

    Args:
      kind: of the baseline.
      rule: of their detector.
      models: their vectors, at least two.
      errors: of these.
      families: see `baseline`.
    """
    families = families or range(len(models))
    centres = _centres(kind, models, families)
    read = _readings(rule, models, errors, centres)
    whole = None
    if len(set(families)) > EXACT:
        whole = witnesses.class_spreads(read)
    found = []
    for own, centre, vectors, errs in zip(
        families, centres, models, errors, strict=True
    ):
        others = whole or witnesses.class_spreads(_strangers(read, families, own))
        against = dataclasses.replace(centre, spreads=others)
        found.append(float(np.max(rule.scores(vectors, errs, against).values)))
    return found


def _strangers(
    members: Sequence[Any], families: Sequence[Hashable], own: Hashable
) -> list[Any]:
    """Those of other families."""
    pairs = zip(members, families, strict=True)
    return [one for one, family in pairs if family != own]


def _centres(
    kind: BaselineKind, models: Sequence[Vectors], families: Sequence[Hashable]
) -> list[rules.Baseline]:
    """For each model the centre of the others; of all, where one moves it little."""
    if len(set(families)) > EXACT:
        return [rules.crowd(kind, models)] * len(models)
    known = {
        own: rules.crowd(kind, _strangers(models, families, own))
        for own in set(families)
    }
    return [known[own] for own in families]


def _readings(
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
    centres: Sequence[rules.Baseline],
) -> list[Mapping[str, np.ndarray]]:
    """What the witnesses say of each model against a centre."""
    return [
        rule.scores(*told).witnesses
        for told in zip(models, errors, centres, strict=True)
    ]


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
    some = [models[i] for i in kept], [errors[i] for i in kept]
    null = tuple(
        score for score in left_out_scores("population", rule, *some) if score <= limit
    )
    return dataclasses.replace(baseline("population", rule, *some), null=null)


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
