"""Many candidates at once: the only home of `jit`, `vmap`, stacking and placement."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.config import DetectorConfig
from ban_jax.types import Array, Network, Probe, Variables

T = TypeVar("T")


class Detect(Protocol):
    """The shape of every detector: one candidate, pure."""

    def __call__(
        self,
        network: Network,
        variables: Variables,
        probe: Probe,
        *,
        key: Array,
        config: Any,
    ) -> Any: ...


def stack(population: Sequence[Any]) -> Any:
    """Gives every leaf a leading model axis: M trees of `[...]` -> one of `[M, ...]`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *population)


def pad(population: Sequence[T], size: int) -> list[T]:
    """Repeats the last candidate up to `size`, so that every chunk has one shape."""
    return [*population, *[population[-1]] * (size - len(population))]


def identity_key(seed: int, sha256: str) -> Array:
    """A candidate's random key: the seed and its own weights, never its neighbours."""
    words = np.frombuffer(bytes.fromhex(sha256), dtype=">u4").astype(np.uint32)
    key = jax.random.key(seed)
    for word in words:
        key = jax.random.fold_in(key, word)
    return key


def default_tile(backend: str, chunk: int) -> int:
    """How many candidates run side by side: one on a CPU, the whole chunk elsewhere.

    A CPU is filled by one model; one after another, each uses the native convolution and
    the memory of one, and no result can depend on a neighbour.
    """
    return 1 if backend == "cpu" else chunk


def default_chunk(backend: str) -> int:
    """Candidates handed over at once: results stream out singly where nothing is lost."""
    return 1 if backend == "cpu" else 16


@functools.partial(jax.jit, static_argnames=("function", "tile"))
def for_each(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    tile: int,
    count: Array | int,
    *shared: Any,
) -> Any:
    """`function(*one candidate's arguments, *shared)` for all M, one compiled program.

    Args:
      function: hashable; called with the unstacked `arguments` and with `shared`.
      arguments: pytrees whose leaves have a leading axis M, a multiple of `tile`.
      tile: candidates computed side by side by `jax.vmap`; tiles follow one another.
      count: how many of the M are real. Padding costs nothing where `tile` is 1.
      *shared: passed to every call as they are.

    Returns:
      The function's result with a leading axis M; zeros or repetitions beyond `count`.
    """

    def one(arguments: tuple[Any, ...]) -> Any:
        return function(*arguments, *shared)

    if tile > 1:
        return jax.lax.map(one, arguments, batch_size=tile)

    def one_if_real(numbered: tuple[Array, tuple[Any, ...]]) -> Any:
        index, arguments = numbered
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(one, arguments),
        )
        return jax.lax.cond(index < count, one, lambda _: zeros, arguments)

    size = jax.tree.leaves(arguments)[0].shape[0]
    return jax.lax.map(one_if_real, (jnp.arange(size), arguments))


@functools.cache
def _bound(detect: Callable[..., Any], network: Network) -> Callable[..., Any]:
    def call(
        variables: Variables, key: Array, probe: Probe, config: DetectorConfig
    ) -> Any:
        return detect(network, variables, probe, key=key, config=config)

    return call


def run(
    detect: Callable[..., Any],
    network: Network,
    variables: Variables,
    keys: Array,
    probe: Probe,
    config: DetectorConfig,
    *,
    tile: int,
    count: int,
) -> Any:
    """Evidence of M stacked candidates, every leaf with a leading axis M.

    Args:
      detect: a detector, for one candidate (`Detect`).
      network: their common architecture.
      variables: stacked, `[M, ...]`.
      keys: `[M]` typed keys.
      probe: images `[T, B, H, W, C]` and labels `[T, B]`, shared by all.
      config: floats are traced; a changed one compiles nothing.
      tile: see `for_each`.
      count: how many of the M are real.
    """
    function = _bound(detect, network)
    return for_each(function, (variables, keys), tile, count, probe, config)


def unstack(stacked: Any, count: int) -> list[Any]:
    """The first `count` trees of a stacked one, on the host."""
    stacked = jax.device_get(stacked)
    leaves, structure = jax.tree.flatten(stacked)
    return [
        jax.tree.unflatten(structure, [leaf[index] for leaf in leaves])
        for index in range(count)
    ]
