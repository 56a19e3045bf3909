"""Programs for many candidates: the only place that calls `jit`, `vmap` or `shard_map`."""

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ban_jax.population.placement import MODELS, Placement
from ban_jax.population.stacking import pad, stack, unstack


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
