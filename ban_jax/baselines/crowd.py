"""Models that are compared with one another: trusted ones, or those of one scan."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ban_jax.detectors import rules
from ban_jax.detectors.rules import BaselineKind, Vectors

EXACT = 64
"""Models up to which each is scored against a centre without it; of more, one moves the
centre by next to nothing."""

ROUNDS = 5
"""A crowd that has not settled by then swings between two states: either will do."""


def numbers(vectors: Mapping[str, Sequence[float | None]]) -> dict[str, np.ndarray]:
    """Vectors of a record; JSON's null is a number that was not finite or not measured."""
    return {name: np.array(values, float) for name, values in vectors.items()}


def left_out_scores(
    kind: BaselineKind,
    rule: rules.Rule,
    models: Sequence[Vectors],
    errors: Sequence[Vectors],
) -> list[float]:
    """The score of each model against all the others: what clean models score by chance.

    Args:
      kind: of the baseline.
      rule: of their detector.
      models: their vectors, at least two.
      errors: of these.
    """
    whole = rules.crowd(kind, models) if len(models) > EXACT else None
    return [
        float(
            np.max(
                rule.scores(
                    vectors,
                    errors[i],
                    whole or rules.crowd(kind, [*models[:i], *models[i + 1 :]]),
                ).values
            )
        )
        for i, vectors in enumerate(models)
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
        centre = rules.crowd("population", [models[i] for i in kept])
        inside = left_out_scores(
            "population", rule, [models[i] for i in kept], [errors[i] for i in kept]
        )
        scores = dict(zip(kept, inside, strict=True))
        for i in set(range(len(models))) - scores.keys():
            scores[i] = float(np.max(rule.scores(models[i], errors[i], centre).values))
        clean = [i for i in range(len(models)) if scores[i] <= limit]
        if clean == kept or len(clean) < least:
            break
        kept = clean
    null = tuple(scores[i] for i in kept if scores[i] <= limit)
    return dataclasses.replace(centre, null=null)


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
