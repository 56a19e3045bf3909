"""Many candidates at once: the only home of `jit`, `vmap`, stacking and placement."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

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
    """How many candidates share a program: one on a CPU, the whole chunk elsewhere.

    On a CPU each gets the native convolution, and a chunk runs on host threads side by
    side, because one candidate does not fill two cores. No result can then depend on a
    neighbour.
    """
    return 1 if backend == "cpu" else chunk


def default_chunk(backend: str) -> int:
    """Candidates handed over at once: one per core of a CPU, few enough for its memory."""
    return min(cores(), 4) if backend == "cpu" else 16


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    tile: int,
    count: int,
    *shared: Any,
) -> Any:
    """`function(*one candidate's arguments, *shared)` for many, compiled once.

    Args:
      function: hashable; called with the unstacked `arguments` and with `shared`.
      arguments: pytrees whose leaves have a leading axis M, a multiple of `tile`.
      tile: candidates computed side by side by `jax.vmap`; tiles follow one another.
        With 1, candidates run on host threads instead.
      count: how many of the M are real; with a tile of 1 only those are computed.
      *shared: passed to every call as they are.

    Returns:
      The function's result with a leading axis, of `count` where `tile` is 1, else M.
    """
    if tile > 1:
        return _tiled(function, arguments, tile, *shared)
    leaves, structure = jax.tree.flatten(arguments)
    dispatch = threading.Lock()

    def one(index: int) -> Any:
        alone = jax.tree.unflatten(structure, [leaf[index] for leaf in leaves])
        with dispatch:  # so that the first two do not both compile
            result = _single(function, alone, *shared)
        return jax.device_get(result)

    with concurrent.futures.ThreadPoolExecutor(min(count, cores())) as pool:
        return stack(list(pool.map(one, range(count))))


@functools.partial(jax.jit, static_argnames="function")
def _single(
    function: Callable[..., Any], arguments: tuple[Any, ...], *shared: Any
) -> Any:
    return function(*arguments, *shared)


@functools.partial(jax.jit, static_argnames=("function", "tile"))
def _tiled(
    function: Callable[..., Any], arguments: tuple[Any, ...], tile: int, *shared: Any
) -> Any:
    return jax.lax.map(
        lambda alone: function(*alone, *shared), arguments, batch_size=tile
    )


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
