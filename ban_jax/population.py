"""Many candidates at once: the only home of `jit`, `vmap`, `shard_map` and placement."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ban_jax.types import Array, Network, Probe, Variables

T = TypeVar("T")
MODELS = "models"
"""Name of the mesh's only axis."""


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


class Placement(NamedTuple):
    """Where the candidates of a chunk are computed. Hashable.

    Attributes:
      devices: of this process, all of one kind; a chunk is shared out among them.
      stacked: whether the candidates of a device share one program by `jax.vmap`. Else
        each gets the program of a single one, so that no result can depend on a
        neighbour: on host threads side by side where the device is one CPU (one
        candidate does not fill its cores), one after another where they are several.
    """

    devices: tuple[jax.Device, ...]
    stacked: bool

    @property
    def on_threads(self) -> bool:
        return not self.stacked and len(self.devices) == 1

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (MODELS,), axis_types=(AxisType.Auto,))

    def split(self) -> NamedSharding:
        """The leading axis dealt out to the devices."""
        return NamedSharding(self.mesh, PartitionSpec(MODELS))

    def everywhere(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def rounded(self, count: int) -> int:
        """The smallest multiple of the devices that holds `count` candidates."""
        return -(-count // len(self.devices)) * len(self.devices)


def default_placement() -> Placement:
    """This process's devices: a CPU gets native convolutions, which do not stack."""
    return Placement(tuple(jax.local_devices()), jax.default_backend() != "cpu")


def default_chunk(backend: str) -> int:
    """Candidates per device at once: one per core of a CPU, few enough for its memory."""
    return min(cores(), 4) if backend == "cpu" else 16


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def identity_words(sha256: str) -> np.ndarray:
    """A hash as `[8]` uint32: `fold_in` takes 32 bits at a time."""
    return np.frombuffer(bytes.fromhex(sha256), dtype=">u4").astype(np.uint32)


def fold_words(key: Array, words: Array | np.ndarray) -> Array:
    """A candidate's key: the scan's, folded with the words `[8]` of its own identity."""
    for index in range(8):
        key = jax.random.fold_in(key, words[index])
    return key


def identity_key(seed: int, sha256: str) -> Array:
    """A candidate's random key: the seed and its own weights, never its neighbours."""
    return fold_words(jax.random.key(seed), identity_words(sha256))


def place(members: Sequence[Any], placement: Placement, size: int) -> Any:
    """A chunk as `for_each` takes it: padded to `size`, stacked, on its devices.

    Returns at once: the copies to the devices go on behind it. On host threads candidates
    stay as they are.
    """
    if placement.on_threads:
        return list(members)
    return jax.device_put(stack(pad(members, size)), placement.split())


def program(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    member: Any,
    shared: Any,
    size: int,
) -> jax.stages.Compiled:
    """`function` for a chunk of `size` candidates, compiled once per shape.

    Args:
      function: `(member, shared) -> result` of one candidate; hashable.
      placement: where.
      member: any one candidate; shapes and types count, values do not.
      shared: what all candidates are given; values do not count.
      size: of the chunk; a multiple of the devices. Not used on host threads, where the
        program is that of one candidate.
    """
    if not placement.on_threads:
        member = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *np.shape(leaf)), leaf.dtype),
            member,
        )
    leaves, structure = jax.tree.flatten((member, shared))
    return _compiled(function, placement, structure, tuple(map(_abstract, leaves)))


@functools.cache
def _compiled(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    structure: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
) -> jax.stages.Compiled:
    return (
        _jitted(function, placement)
        .lower(*jax.tree.unflatten(structure, leaves))
        .compile()
    )


def _jitted(function: Callable[[Any, Any], Any], placement: Placement) -> Any:
    """No buffer is donated: a candidate's evidence is far smaller than its weights."""
    if placement.on_threads:
        return jax.jit(function)

    def on_one_device(members: Any, shared: Any) -> Any:
        if placement.stacked:
            return jax.vmap(function, in_axes=(0, None))(members, shared)
        return jax.lax.map(lambda member: function(member, shared), members)

    axes = PartitionSpec(MODELS)
    # Devices exchange nothing, and the check would want every loop's start marked.
    sharded = jax.shard_map(
        on_one_device,
        mesh=placement.mesh,
        in_specs=(axes, PartitionSpec()),
        out_specs=axes,
        check_vma=False,
    )
    return jax.jit(
        sharded,
        in_shardings=(placement.split(), placement.everywhere()),
        out_shardings=placement.split(),
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of a leaf, a Python number's weakness included."""
    kind = jax.typeof(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)


def for_each(
    step: Callable[[Any, Any], Any],
    placement: Placement,
    placed: Any,
    shared: Any,
    count: int,
) -> list[Any]:
    """Runs a chunk and waits for it: results of the first `count`, on the host.

    Args:
      step: a program, or several of the same placement in turn.
      placement: the same.
      placed: from `place`.
      shared: what all candidates are given.
      count: how many are real; on host threads only those are there.
    """
    if not placement.on_threads:
        return unstack(step(placed, shared), count)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda one: jax.device_get(step(one, shared)), placed))


def run(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    members: Sequence[Any],
    shared: Any,
    size: int,
) -> list[Any]:
    """`function(member, shared)` of each member, on the host: one chunk of `size`."""
    compiled = program(function, placement, members[0], shared, size)
    placed = place(members, placement, size)
    return for_each(compiled, placement, placed, shared, len(members))
