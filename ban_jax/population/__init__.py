"""Many candidates at once: where they are computed, and by what programs.

The only room that calls `jax.jit`, `jax.shard_map`, or `jax.vmap` over models:
`program` compiles what a whole chunk of models computes, `compiled` what a single one does.
"""

from ban_jax.population.compilation import compiled, over_models
from ban_jax.population.identity import fold_words, identity_key, identity_words
from ban_jax.population.parted import Parted
from ban_jax.population.placement import (
    Placement,
    cores,
    default_chunk,
    default_placement,
)
from ban_jax.population.programs import (
    deal,
    for_each,
    is_known,
    place,
    program,
    run,
    share,
)
from ban_jax.population.stacking import pad, stack, unstack
from ban_jax.population.threads import interruptible, result_of, side_by_side

__all__ = [
    "Parted",
    "Placement",
    "compiled",
    "cores",
    "deal",
    "default_chunk",
    "default_placement",
    "fold_words",
    "for_each",
    "identity_key",
    "identity_words",
    "interruptible",
    "is_known",
    "over_models",
    "pad",
    "place",
    "program",
    "result_of",
    "run",
    "share",
    "side_by_side",
    "stack",
    "unstack",
]
