"""A recognised state dict -> our variables, strictly, and back.

What an architecture is made of comes from the model itself (`network_search.expected`), so
there is no second table of names to keep.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ban_jax.checkpoints import (
    candidate,
    computed,
    errors,
    hashing,
    limits,
    network_search,
    recognise,
    tensor,
)
from ban_jax.models import pytorch_names

_ELSEWHERE = {
    "persistent id": "the numbers lie in other files: of a PyTorch file that was unpacked? "
    "Then pack its folder again, as a zip archive without compression",
    "torch.storage._load_from_bytes": "pickled without torch.save, which keeps the numbers "
    "as further pickles: where the file is trusted, load it and save it with torch.save",
}
"""Kinds of elements that are not read -> what is to be done."""


def convert(
    found: recognise.Recognised, budget: limits.Budget
) -> dict[str, dict[str, Any]]:
    """Variables (`params`, `batch_stats`) as contiguous float32 arrays.

    Raises:
      CheckpointError: one for all missing and unexpected entries and wrong shapes.
    """
    assert found.spec is not None
    table = network_search.expected(found.spec)
    check(found, table)
    flat = {}
    for common, (name, shape) in table.items():
        axes = pytorch_names.axes_from_pytorch(name, len(shape))
        array = found.tensors[common].float32(budget, axes)
        kept = array.ndim - len(pytorch_names.unit_axes(name))
        flat[name] = array.reshape(array.shape[:kept])
    return hashing.unflatten(flat)


def check(
    found: recognise.Recognised, table: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Compares names and shapes.

    Raises:
      CheckpointError: naming everything that is wrong.
    """
    spec = found.spec
    assert spec is not None
    missing = [name for name in table if name not in found.tensors]
    unexpected = [
        f"{errors.show(found.keys[name])} {value.shape}"
        for name, value in found.tensors.items()
        if name not in table
    ] + [f"{errors.show(name)} (there twice)" for name in found.clashes]
    wrong = [
        f"{errors.show(found.keys[name])} should be {shape}, is "
        f"{found.tensors[name].shape}"
        for name, (_, shape) in table.items()
        if name in found.tensors and found.tensors[name].shape != shape
    ]
    wrong += [
        f"{errors.show(found.keys[name])} should be floating point, is "
        f"{found.tensors[name].storage.dtype}"
        for name in table
        if name in found.tensors
        and found.tensors[name].storage.dtype not in tensor.FLOATS
    ]
    if not missing and not unexpected and not wrong:
        return
    fit = f"width {spec.width}, {spec.num_classes} classes, {spec.stem} stem"
    parts = [f"does not fit {spec.architecture} ({fit}, {spec.in_channels} channels)"]
    for label, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of the wrong shape or type", wrong),
    ):
        if names:
            parts.append(f"{len(names)} {label}: {errors.listing(names)}")
    parts += filter(None, (_class_count(found), computed.advice(found.keys.values())))
    parts += [
        told
        for kind, told in _ELSEWHERE.items()
        if any(found.tensors[name].storage.dtype == kind for name in found.tensors)
    ]
    raise errors.CheckpointError("; ".join(parts))


def _class_count(found: recognise.Recognised) -> str:
    """Says so if the last layer contradicts itself about the number of classes."""
    assert found.spec is not None
    head = found.spec.create().classifier_name
    weight, bias = (found.tensors.get(f"{head}.{leaf}") for leaf in ("weight", "bias"))
    if weight and bias and weight.shape[:1] != bias.shape[:1]:
        return (
            f"the last layer's weight is for {weight.shape[0]} classes and its "
            f"bias for {bias.size}: the class count is wrong in one of them"
        )
    return ""


def names_of(path: str, found: recognise.Recognised) -> candidate.Names:
    """What `to_torch_names` needs to give the file's own names back."""
    assert found.spec is not None
    table = network_search.expected(found.spec)
    counters = []
    for name, value in found.counters.items():
        if value.size == 1 and value.storage.dtype == "int64":
            counters.append((name, int(value.view().reshape(()))))
    return candidate.Names(
        path,
        tuple((table[common][0], key) for common, key in found.keys.items())
        + tuple((table[common][0], key) for key, common in found.aliases),
        tuple(counters),
    )


def to_torch_names(
    variables: Mapping[str, Any], names: candidate.Names | None = None
) -> dict[str, np.ndarray]:
    """Variables as a PyTorch state dict: the file's names, order and layout.

    Args:
      variables: `params` and `batch_stats`; other collections are left out.
      names: of the file the variables came from; None gives the common names.

    Returns:
      Arrays by name. For a file in PyTorch's layout, reading and giving back is exact:
      the same names, shapes and float32 values, and the counters of its normalisation
      layers.
    """
    flat = hashing.flatten({k: variables[k] for k in hashing.HASHED if k in variables})
    if names is None:
        names = candidate.Names(
            "", tuple((name, pytorch_names.common_name(name)) for name in flat)
        )
    state: dict[str, np.ndarray] = {}
    for ours, theirs in names.keys:
        array = np.asarray(flat[ours])
        if not theirs.startswith(tuple(f"{name}/" for name in hashing.HASHED)):
            axes = pytorch_names.axes_to_pytorch(ours, array.ndim)
            array = array if axes is None else array.transpose(axes)
            array = array.reshape(array.shape + pytorch_names.unit_axes(ours))
        state[theirs] = np.ascontiguousarray(array)
    for name, count in names.counters:
        state[name] = np.asarray(count, np.int64)
    return state


def numbers(value: Any) -> list[float] | None:
    """A short list of numbers from a list, tuple or tensor of a file; else None."""
    if isinstance(value, tensor.Tensor):
        if not 0 < value.size <= 16:
            return None
        budget = limits.Budget(1024, "a remark")
        return [float(x) for x in value.float32(budget).reshape(-1)]
    if (
        isinstance(value, (list, tuple))
        and 0 < len(value) <= 16
        and all(_is_number(x) for x in value)
    ):
        return [float(x) for x in value]
    return [float(value)] if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
