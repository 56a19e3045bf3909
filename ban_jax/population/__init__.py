"""Many candidates at once: where they are computed, and by what programs."""

from ban_jax.population.identity import fold_words, identity_key, identity_words
from ban_jax.population.placement import (
    Placement,
    cores,
    default_chunk,
    default_placement,
)
from ban_jax.population.programs import for_each, place, program, run
from ban_jax.population.stacking import pad, stack, unstack

__all__ = [
    "Placement",
    "cores",
    "default_chunk",
    "default_placement",
    "fold_words",
    "for_each",
    "identity_key",
    "identity_words",
    "pad",
    "place",
    "program",
    "run",
    "stack",
    "unstack",
]
