"""Models that are compared with one another: trusted ones, or those of one scan."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ban_jax.detectors import rules
from ban_jax.detectors.rules import BaselineKind, Vectors

EXACT = 64
"""Models up to which each is scored against a centre without it; of more, one moves the
centre by next to nothing."""


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
