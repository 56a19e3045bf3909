"""Trees of many models as one tree with a leading model axis, and back."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import numpy as jnp

T = TypeVar("T")


def stack(population: Sequence[Any]) -> Any:
    """Gives every leaf a leading model axis: M trees of `[...]` -> one of `[M, ...]`."""

    def stacked(*leaves: Any) -> Any:  # NumPy knows no keys
        of_device = isinstance(leaves[0], jax.Array)
        return (jnp if of_device else np).stack(leaves)

    return jax.tree.map(stacked, *population)


def unstack(stacked: Any, count: int) -> list[Any]:
    """The first `count` trees of a stacked one, on the host."""
    stacked = jax.device_get(stacked)
    leaves, structure = jax.tree.flatten(stacked)
    return [
        jax.tree.unflatten(structure, [leaf[index] for leaf in leaves])
        for index in range(count)
    ]


def pad(population: Sequence[T], size: int) -> list[T]:
    """Repeats the last candidate up to `size`, so that every chunk has one shape."""
    return [*population, *[population[-1]] * (size - len(population))]
