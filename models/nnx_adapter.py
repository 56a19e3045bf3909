"""Any NNX classifier whose last layer is an `nnx.Linear`, cut there.

The module is copied, its parameters and statistics become plain nested dicts, and every
call puts a fresh copy together: the user's own is neither changed nor held.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx, traverse_util
from jax import numpy as jnp

from ban_jax.models import cut
from ban_jax.types import Array, NormMode, Variables

COLLECTIONS = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
OTHERS = "others"
"""Collection of what is neither a parameter, a statistic nor a random stream."""
_NAME = "ban_jax_name"
"""Attribute of a linear layer of the copy: where it lies in the module."""
Path = tuple[Any, ...]
Names = tuple[tuple[str, Path], ...]
"""Name in our collections (`params/blocks/0/conv/kernel`) and path in the module."""

_calls: contextvars.ContextVar[list[str]] = contextvars.ContextVar("calls")
"""Names of the linear layers in the order of their calls, while a module is inspected."""


@functools.cache
def _tapped(layer: type) -> type:
    """A linear layer that notes what it is given."""

    def call(self: Any, inputs: Array, *args: Any, **kwargs: Any) -> Array:
        if (calls := _calls.get(None)) is not None:
            calls.append(getattr(self, _NAME))
        self.ban_jax_input = nnx.Intermediate(inputs)
        return layer.__call__(self, inputs, *args, **kwargs)

    return _overridden(layer, call)


@functools.cache
def _moded(layer: type) -> type:
    """Batch normalisation whose own attribute decides, not the call's argument."""

    def call(self: Any, x: Array, *_: Any, mask: Array | None = None, **__: Any):
        return layer.__call__(self, x, self.use_running_average, mask=mask)

    return _overridden(layer, call)


@functools.cache
def _idle(layer: type) -> type:
    """Dropout that drops nothing."""
    return _overridden(layer, lambda self, inputs, **_: inputs)


def _overridden(layer: type, call: Callable[..., Any]) -> type:
    """A class that a layer can change to; jit needs the same one each time."""
    return type(layer.__name__, (layer,), {"__call__": call})


def cut_module(
    module: nnx.Module, images: jax.ShapeDtypeStruct
) -> tuple[cut.Cut, dict[str, Any]]:
    """Cuts at the `nnx.Linear` that is called last.

    Args:
      module: left as it is.
      images: shape `[B, H, W, C]` and dtype.

    Returns:
      The cut, and the module's variables as nested dicts.

    Raises:
      ValueError: where there is no such layer, or the output is not `[B, K]`.
    """
    kind = type(module).__name__
    arguments = cut.arguments(type(module).__call__, kind)
    stored, batch = (_prepared(module, flag) for flag in (True, False))
    graph, streams, *states = nnx.split(
        stored, nnx.RngState, *COLLECTIONS.values(), ...
    )
    other_graph = nnx.split(batch, nnx.RngState, *COLLECTIONS.values(), ...)[0]
    names, variables = _named(states)
    idle = tuple(
        (path, value.shape, str(value.dtype)) for path, value in _flat(streams).items()
    )
    layout = (graph, other_graph, names, idle, arguments)
    calls: list[str] = []
    token = _calls.set(calls)
    try:
        output = jax.eval_shape(
            lambda variables, images: _merged(layout, variables, True)(
                images, **dict(arguments)
            ),
            variables,
            images,
        )
    finally:
        _calls.reset(token)
    classes = cut.num_classes(output, images.shape[0], kind)
    if not calls:
        raise cut.no_linear(kind, "nnx.Linear")
    kernel = traverse_util.flatten_dict(variables["params"], sep="/").get(
        f"{calls[-1]}/kernel"
    )
    if kernel is None or kernel.shape[-1] != classes:
        raise cut.CutError(
            f"{kind} returns {classes} logits, but its last nnx.Linear, {calls[-1]}, "
            f"has a kernel of shape {getattr(kernel, 'shape', None)}"
        )
    return _cut(layout, calls[-1], classes), variables


@functools.lru_cache(maxsize=64)
def _cut(layout: tuple[Any, ...], name: str, classes: int) -> cut.Cut:
    arguments = dict(layout[-1])

    def run(variables: Variables, images: Array, mode: NormMode):
        copy = _merged(layout, variables, mode == "stored")
        output = copy(images, **arguments)
        inputs = _layer(copy, name).ban_jax_input.get_value()
        if mode == "update":
            moved = _flat(nnx.state(copy, nnx.BatchStat))
            flat = {n: moved[p] for n, p in layout[2] if n.startswith("batch_stats/")}
            tree = traverse_util.unflatten_dict(flat, sep="/")
            variables = {**variables, **tree}
        return output, inputs, variables

    def last(variables: Variables, features: Array) -> Array:
        return _layer(_merged(layout, variables, True), name)(features)

    def kernel(variables: Variables) -> Array:
        params = traverse_util.flatten_dict(variables["params"], sep="/")
        return params[f"{name}/kernel"]

    return cut.Cut(run, last, kernel, name, classes)


def _prepared(module: nnx.Module, stored: bool) -> nnx.Module:
    """A copy whose layers do as those above."""
    copy = nnx.clone(module)
    copy.eval()
    for path, layer in list(nnx.iter_modules(copy)):
        if isinstance(layer, nnx.Linear):
            setattr(layer, _NAME, "/".join(map(str, path)))
            layer.__class__ = _tapped(type(layer))
        elif isinstance(layer, nnx.BatchNorm):
            layer.use_running_average = stored
            layer.axis_name = None  # there are no other devices to average over
            layer.__class__ = _moded(type(layer))
        elif isinstance(layer, nnx.Dropout):
            layer.__class__ = _idle(type(layer))
    return copy


def _named(states: list[nnx.State]) -> tuple[Names, dict[str, Any]]:
    """Nested dicts by collection, keys all text, and where each leaf belongs."""
    names: list[tuple[str, Path]] = []
    leaves: dict[str, Any] = {}
    for collection, state in zip([*COLLECTIONS, OTHERS], states, strict=True):
        for path, value in _flat(state).items():
            name = "/".join([collection, *map(str, path)])
            if name in leaves:
                raise cut.CutError(f"two variables of the module are called {name}")
            names.append((name, path))
            leaves[name] = value
    variables = traverse_util.unflatten_dict(leaves, sep="/")
    return tuple(names), {"params": {}, **variables}


def _flat(state: nnx.State) -> dict[Path, Any]:
    """Arrays by path."""
    return {
        path: leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in nnx.to_flat_state(state)
    }


def _merged(layout: tuple[Any, ...], variables: Variables, stored: bool) -> Any:
    """The module with these variables; random streams, which nothing draws from, anew."""
    graph, other_graph, names, idle, _ = layout
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    leaves = [(path, flat[name]) for name, path in names]
    for path, shape, dtype in idle:
        if dtype.startswith("key"):
            value = jnp.broadcast_to(jax.random.key(0), shape)
        else:
            value = jnp.zeros(shape, dtype)
        leaves.append((path, value))
    state = nnx.from_flat_state(leaves)
    return nnx.merge(graph if stored else other_graph, state)


def _layer(module: nnx.Module, name: str) -> Any:
    """The linear layer of a name."""
    for path, layer in nnx.iter_modules(module):
        if "/".join(map(str, path)) == name:
            return layer
    raise AssertionError(f"the copy lost {name}")
