"""What the package knows of an architecture: how it is built and how it is recognised."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flax import traverse_util

from ban_jax.models import common, pytorch_names

Shapes = Mapping[str, tuple[int, ...]]
"""Common name -> shape in PyTorch's layout (`[O, F, height, width]`) of every tensor."""
Fields = Mapping[str, Any]
"""Arguments of the constructor; `num_classes`, `width` and `in_channels` among them."""
PROBED = ("num_classes", "width", "in_channels")
"""Fields that are read off a checkpoint's shapes when an architecture says nothing."""
_STEP = 2
"""How much larger a field is made to see what depends on it: networks may halve one."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture; one file each, one line in `models.ARCHITECTURES`.

    Another package brings one by naming it under the entry-point group
    `ban_jax.architectures`; `register_architecture` takes less.

    Attributes:
      constructor: the `Classifier`'s class, or whatever makes one from `Fields`.
      difference: `Shapes -> None` where they are this architecture's; otherwise how they
        differ, for the message, and an empty text where nothing is alike.
      fields: `Shapes -> Fields`, the sizes; a ValueError says what they lack.
      rename: names of a file, without the prefix they may share -> common names, which
        are `pytorch_names.common_name` of ours.
    """

    constructor: Callable[..., common.Classifier]
    difference: Callable[[Shapes], str | None]
    fields: Callable[[Shapes], Fields]
    rename: Callable[[Collection[str]], Mapping[str, str]] = pytorch_names.unchanged


def described(
    constructor: Callable[..., common.Classifier],
    recognise: Callable[[Shapes], Fields | None] | None = None,
    rename: Callable[[Collection[str]], Mapping[str, str]] = pytorch_names.unchanged,
) -> Architecture:
    """An architecture from as little as its constructor, see `register_architecture`."""
    if recognise is None:
        return Architecture(
            constructor,
            functools.partial(_other_names, constructor),
            functools.partial(_probed_fields, constructor),
            rename,
        )

    def difference(shapes: Shapes) -> str | None:
        return "" if recognise(shapes) is None else None

    def fields(shapes: Shapes) -> Fields:
        found = recognise(shapes)
        if found is None:
            raise ValueError("its `recognise` does not know these tensors")
        return found

    return Architecture(constructor, difference, fields, rename)


def sizes(shapes: Shapes, *, stem: str, head: str) -> Fields:
    """Classes, width and channels from the first convolution and the last layer.

    Args:
      shapes: of all tensors.
      stem: common name of the first convolution.
      head: common name of the last layer.

    Raises:
      ValueError: where either is missing or has no such shape.
    """
    first = shapes.get(f"{stem}.weight", ())
    weight, bias = shapes.get(f"{head}.weight", ()), shapes.get(f"{head}.bias", ())
    if len(first) != 4 or (len(weight) != 2 and len(bias) != 1):
        raise ValueError(
            f"the first convolution has shape {first} and the last layer {weight}; "
            "expected four and two dimensions"
        )
    classes = weight[0] if len(weight) == 2 else bias[0]
    if not classes or not first[0] or not first[1]:
        raise ValueError("a layer without channels")
    return {"num_classes": classes, "width": first[0], "in_channels": first[1]}


def shapes_of(module: common.Classifier) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Common name -> (our name, shape in PyTorch's layout) of every weight.

    Raises:
      ValueError: where two weights would have one common name.
    """
    variables = common.abstract_variables(module)
    trees = {name: variables.get(name, {}) for name in ("batch_stats", "params")}
    table: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, leaf in traverse_util.flatten_dict(trees, sep="/").items():
        rank = len(leaf.shape)
        axes = pytorch_names.axes_to_pytorch(name, rank) or range(rank)
        shape = (
            *(leaf.shape[axis] for axis in axes),
            *pytorch_names.unit_axes(name),
        )
        theirs = pytorch_names.common_name(name)
        if theirs in table:
            both = f"{name} and {table[theirs][0]}"
            raise ValueError(f"{both} would both be called {theirs} in a PyTorch file")
        table[theirs] = (name, shape)
    return table


def _other_names(
    constructor: Callable[..., common.Classifier], shapes: Shapes
) -> str | None:
    """None where the names are those of the constructor's own variables."""
    try:
        ours = _probes(constructor)[0]
    except Exception as error:  # a user's code may raise anything
        return f"{constructor} cannot be built: {type(error).__name__}: {error}"
    return None if shapes.keys() == ours.keys() else ""


def _probed_fields(
    constructor: Callable[..., common.Classifier], shapes: Shapes
) -> Fields:
    """Each field from the first axis whose length depends on it and on no other field.

    Lengths must be linear in the fields, as `2 * width` is.
    """
    base, grown = _probes(constructor)
    made = _made(constructor)
    fields = {}
    for field, table in grown.items():
        fields[field] = getattr(made, field)
        for name, axis in _axes(base, grown, field):
            shape = shapes.get(name, ())
            if axis < len(shape):
                slope = table[name][axis] - base[name][axis]
                distance = shape[axis] - base[name][axis]
                fields[field] += _STEP * distance // slope
                break
        if fields[field] < 1:
            raise ValueError(f"its {field} would be {fields[field]}")
    return fields


def _axes(
    base: Shapes, grown: Mapping[str, Shapes], field: str
) -> list[tuple[str, int]]:
    """Tensors and their axes that change with one field alone."""
    return [
        (name, axis)
        for name, shape in base.items()
        for axis, length in enumerate(shape)
        if [other for other in grown if grown[other][name][axis] != length] == [field]
    ]


@functools.lru_cache(maxsize=64)
def _made(constructor: Callable[..., common.Classifier]) -> common.Classifier:
    """The module at its own width."""
    return constructor(num_classes=4, in_channels=4)


@functools.lru_cache(maxsize=64)
def _probes(
    constructor: Callable[..., common.Classifier],
) -> tuple[Shapes, dict[str, Shapes]]:
    """Shapes at some sizes, and with one field at a time larger."""

    def shapes(**changed: int) -> dict[str, tuple[int, ...]]:
        fields = {field: getattr(_made(constructor), field) for field in PROBED}
        table = shapes_of(constructor(**{**fields, **changed}))
        return {name: shape for name, (_, shape) in table.items()}

    made = _made(constructor)
    return shapes(), {
        field: shapes(**{field: getattr(made, field) + _STEP}) for field in PROBED
    }
