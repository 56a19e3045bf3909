"""Programs of a whole chunk of models: dealt out to devices, stacked or one by one.

A program either measures its members, `(member, shared) -> result`, or advances them,
`(member, shared) -> (member, result)`: then it uses up the members' buffers, and the new
members stay on their devices until somebody asks for them.
"""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from ban_jax.population import compilation, naming, parted, stored, threads
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


Program = jax.stages.Compiled | stored.Program | parted.Program
"""A compiled program of `(members, shared)`; on host threads of one member."""


def program(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    member: Any,
    shared: Any,
    size: int,
    *,
    advances: bool = False,
) -> Program:
    """`function` for a chunk of `size` candidates, compiled once per shape.

    Of threads that ask for the same program at once, one compiles it.

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
    if isinstance(function, parted.Parted) and function.is_parted(placement):
        return parted.program(
            function,
            member,
            shared,
            lambda one, member, shared: program(one, placement, member, shared, size),
        )
    asked = _asked(function, placement, member, shared, size, advances)
    with _turn(*asked):
        return _compiled(*asked)


def is_known(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    member: Any,
    shared: Any,
    size: int,
) -> bool:
    """Whether an earlier process kept the `program` of these arguments.

    Of one in parts, the program of a part.
    """
    if isinstance(function, parted.Parted) and function.is_parted(placement):
        function, member = function.part, (member, np.int32(0))
    key = _key(*_asked(function, placement, member, shared, size, False))
    path = stored.path_of(key) if key else None
    return path is not None and os.path.exists(path)


def _asked(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    member: Any,
    shared: Any,
    size: int,
    advances: bool,
) -> tuple[Any, ...]:
    """What a program is known by in this process: the arguments of `_compiled`."""
    if not placement.on_threads:
        member = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *np.shape(leaf)), leaf.dtype),
            member,
        )
    trees = [jax.tree.flatten(tree) for tree in (member, shared)]
    return (
        function,
        placement,
        advances,
        tuple(structure for _, structure in trees),
        tuple(tuple(map(_abstract, leaves)) for leaves, _ in trees),
    )


_turns = threading.Lock()


def _turn(*asked: Any) -> threading.Lock:
    with _turns:
        return _turn_of(*asked)


@functools.lru_cache(maxsize=PROGRAMS)
def _turn_of(*asked: Any) -> threading.Lock:
    return threading.Lock()


@functools.lru_cache(maxsize=PROGRAMS)
def _compiled(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    advances: bool,
    structures: tuple[Any, Any],
    leaves: tuple[tuple[jax.ShapeDtypeStruct, ...], ...],
) -> Program:
    asked = (function, placement, advances, structures, leaves)
    if (key := _key(*asked)) and (found := _stored(key, *asked)):
        return found
    return (
        _jitted(function, placement, advances)
        .lower(*map(jax.tree.unflatten, structures, leaves))
        .compile()
    )


def _key(
    function: Callable[[Any, Any], Any],
    placement: Placement,
    advances: bool,
    structures: tuple[Any, Any],
    leaves: tuple[tuple[jax.ShapeDtypeStruct, ...], ...],
) -> str | None:
    """Under what a program is kept between processes; None where it is not.

    One that advances is not: it would lose the use of its members' buffers.
    """
    device = placement.devices[0]
    if advances or not stored.are_kept():
        return None
    if device.platform != jax.default_backend():
        return None
    shapes = [
        [str(one), one.weak_type, str(getattr(one, "sharding", None))]
        for group in leaves
        for one in group
    ]
    told = f"{device.platform} {device.device_kind} {device.client.platform_version}"
    parts = (
        f"{told} {len(placement.devices)} {placement.stacked}",
        *map(str, structures),
        repr(shapes),
    )
    try:
        return naming.digest(naming.name(function), *map(naming.steady, parts))
    except naming.Unnamed:
        return None


def _stored(
    key: str,
    function: Callable[[Any, Any], Any],
    placement: Placement,
    advances: bool,
    structures: tuple[Any, Any],
    leaves: tuple[tuple[jax.ShapeDtypeStruct, ...], ...],
) -> Program | None:
    """A program by way of the file of what it is compiled from; None where none can be
    had that way."""
    told = _told(placement, advances)
    name = getattr(function, "__name__", "") or getattr(
        getattr(function, "func", None), "__name__", "function"
    )
    if found := stored.read(key):
        try:
            return stored.compiled(found, name, leaves, told)
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            stored.ignored(str(stored.path_of(key)), error)
    try:
        traced = stored.trace(
            _on_devices(function, placement), structures, leaves, told
        )
        made = stored.compiled(traced, name, leaves, told)
    except (ValueError, NotImplementedError):
        return None
    stored.keep(key, traced._replace(needed=made.needed))
    return made


def _jitted(
    function: Callable[[Any, Any], Any], placement: Placement, advances: bool
) -> Any:
    return jax.jit(_on_devices(function, placement), **_told(placement, advances))


def _on_devices(
    function: Callable[[Any, Any], Any], placement: Placement
) -> Callable[[Any, Any], Any]:
    """What is compiled: of one candidate on host threads, else of a whole chunk."""
    if placement.on_threads:
        return function

    def on_one_device(members: Any, shared: Any) -> Any:
        if placement.stacked:
            return over_models(function, shared=1)(members, shared)
        return jax.lax.map(lambda member: function(member, shared), members)

    axes = PartitionSpec(MODELS)
    # Devices exchange nothing, and the check would want every loop's start marked.
    return jax.shard_map(
        on_one_device,
        mesh=placement.mesh,
        in_specs=(axes, PartitionSpec()),
        out_specs=axes,
        check_vma=False,
    )


def _told(placement: Placement, advances: bool) -> dict[str, Any]:
    """What `jax.jit` is told. Evidence takes no member's buffer: it is far smaller than
    the weights."""
    told: dict[str, Any] = {
        "donate_argnums": (0,) if advances else (),
        "compiler_options": compilation.options(placement.devices[0].platform),
    }
    if placement.on_threads:
        return told
    return {
        **told,
        "in_shardings": (placement.split(), placement.everywhere()),
        "out_shardings": placement.split(),
    }


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
    size: int | None = None,
) -> list[Any]:
    """Runs a chunk and waits for it: results of the first `count`, on the host.

    Args:
      step: a program, or several of the same placement in turn.
      placement: the same.
      placed: from `place`.
      shared: what all candidates are given.
      count: how many are real; on host threads only those are there.
      size: of a full chunk: as many parts of candidates are computed at once by a program
        in parts; None: `count`.
    """
    if isinstance(step, parted.Program):
        return step.for_each(placed, shared, max(size or 0, count))
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
    return for_each(compiled, placement, placed, shared, len(members), size)
