"""Programs of a whole chunk of models: dealt out to devices, stacked or one by one.

A program either measures its members, `(member, shared) -> result`, or advances them,
`(member, shared) -> (member, result)`: then it uses up the members' buffers, and the new
members stay on their devices until somebody asks for them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from ban_jax.population import compilation, threads
from ban_jax.population.compilation import PROGRAMS, over_models
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
    *,
    advances: bool = False,
) -> jax.stages.Compiled:
    """`function` for a chunk of `size` candidates, compiled once per shape.

    Args:
      function: `(member, shared) -> result` of one candidate; pure, hashable.
      placement: where.
      member: any one candidate; shapes and types count, values do not.
      shared: what all candidates are given; values do not count.
      size: of the chunk; a multiple of the devices. Not used on host threads, where the
        program is that of one candidate.
      advances: the result is `(member, result)` with a member of the same shapes, which
        takes the place of the given one in memory.
    """
    if not placement.on_threads:
        member = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *np.shape(leaf)), leaf.dtype),
            member,
        )
    leaves, structure = jax.tree.flatten((member, shared))
    return _compiled(
        function, placement, advances, structure, tuple(map(_abstract, leaves))
    )


@functools.lru_cache(maxsize=PROGRAMS)
def _compiled(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    advances: bool,
    structure: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
) -> jax.stages.Compiled:
    return (
        _jitted(function, placement, advances)
        .lower(*jax.tree.unflatten(structure, leaves))
        .compile()
    )


def _jitted(
    function: Callable[[Any, Any], Any], placement: Placement, advances: bool
) -> Any:
    """Evidence takes no member's buffer: it is far smaller than the weights."""
    donated = (0,) if advances else ()
    told = compilation.options(placement.devices[0].platform)
    if placement.on_threads:
        return jax.jit(function, donate_argnums=donated, compiler_options=told)

    def on_one_device(members: Any, shared: Any) -> Any:
        if placement.stacked:
            return over_models(function, shared=1)(members, shared)
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
        donate_argnums=donated,
        compiler_options=told,
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of a leaf, a Python number's weakness included."""
    kind = jax.typeof(leaf) if not isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)


def share(tree: Any, placement: Placement) -> Any:
    """What all members of a chunk are given, on every device of the placement."""
    if placement.on_threads:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, placement.everywhere())


def deal(members: Sequence[Any], placement: Placement) -> list[Any]:
    """Members apart, for programs of one model: on the devices in turn.

    On host threads they stay as they are.
    """
    if placement.on_threads:
        return list(members)
    count = len(placement.devices)
    return [
        jax.device_put(member, placement.devices[index % count])
        for index, member in enumerate(members)
    ]


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
    return threads.side_by_side(
        lambda one: jax.device_get(step(one, shared)), placed, count
    )


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
