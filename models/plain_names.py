"""Which tensors are a plain network of convolutions and linear layers, see `plain_cnn`."""

import math
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ban_jax.models import architecture

MOST = 7
"""Convolutions; the smallest VGG has eight."""
LARGEST_KERNEL = 11


class Part(NamedTuple):
    """A layer that has weights.

    Attributes:
      kind: `conv`, `norm` or `linear`.
      outputs: channels or numbers.
      size: of the kernel.
      bias: whether there is one.
    """

    kind: str
    outputs: int
    size: int = 3
    bias: bool = True


_LEAVES = {
    4: [{"weight"}, {"weight", "bias"}],
    2: [{"weight", "bias"}],
    1: [{"weight", "bias", "running_mean", "running_var"}],
}
"""Rank of a layer's weight -> the names of its tensors."""
_OURS = re.compile(r"features\.\d+|classifier")
_CONSTANT = re.compile(r"(mean|std|mu|sigma|sd)s?$")
"""What may lie beside the layers: the pixels' constants."""
_KINDS = {4: "conv", 2: "linear", 1: "norm"}


def read(shapes: architecture.Shapes) -> tuple[list[Part], list[int], int]:
    """Layers but the last, numbers that each linear layer takes, and input channels.

    Args:
      shapes: of all tensors.

    Raises:
      ValueError: where they are no such network.
    """
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if _OURS.fullmatch(module):
            modules.setdefault(module, {})[leaf] = shape
        elif not _CONSTANT.search(name):
            raise ValueError(f"{name} is of no layer of a plain network")
    parts: list[Part] = []
    takes: dict[str, list[int]] = {kind: [] for kind in _KINDS.values()}
    for name in sorted(modules, key=_order):
        leaves = modules[name]
        weight = leaves.get("weight", ())
        others = {leaf: shape for leaf, shape in leaves.items() if leaf != "weight"}
        known = set(leaves) in _LEAVES.get(len(weight), [])
        if not known or any(shape != weight[:1] for shape in others.values()):
            raise ValueError(f"{name} is no layer of a plain network")
        if len(weight) == 4 and not weight[2] == weight[3] <= LARGEST_KERNEL:
            raise ValueError(f"{name} is no square convolution")
        kind = _KINDS[len(weight)]
        takes[kind].append(weight[-1 if len(weight) < 4 else 1])
        size = weight[2] if len(weight) == 4 else 0
        parts.append(Part(kind, weight[0], size, "bias" in leaves))
    made = {kind: [p.outputs for p in parts if p.kind == kind] for kind in takes}
    chained = takes["conv"][1:] == made["conv"][:-1]
    chained &= takes["linear"][1:] == made["linear"][:-1]
    last = bool(parts) and parts[-1].kind == "linear"
    if not chained or not last or not 1 <= len(made["conv"]) <= MOST:
        raise ValueError("layers that do not follow each other")
    if made["norm"] not in ([], made["conv"]):
        raise ValueError("normalisation of some convolutions alone")
    return parts, takes["linear"], takes["conv"][0]


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    if "classifier.weight" not in shapes:
        return ""
    try:
        fields(shapes)
    except ValueError:
        return ""
    return None


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`.

    Raises:
      ValueError: where the tensors are no such network's.
    """
    parts, taken, channels = read(shapes)
    outputs = [part.outputs for part in parts if part.kind == "conv"]
    places = taken[0] // outputs[-1] if outputs[-1] else 0
    side = math.isqrt(places)
    if side < 1 or side * side * outputs[-1] != taken[0]:
        raise ValueError("the first linear layer takes no square map")
    return {
        "num_classes": parts[-1].outputs,
        "width": outputs[0],
        "in_channels": channels,
        "parts": tuple(parts[:-1]),
        "side": side,
    }


_BEHIND = re.compile(
    r"(^|[._])(fc|lin|linear|dense|classifier|head|out|output)s?([._\d]|$)"
)
"""Words of the layers behind the convolutions."""


def _order(module: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sorts layers: those behind the convolutions last, numbers as numbers."""
    words = re.findall(r"\d+|[^\d.]+", module)
    numbered = [(int(word), "") if word.isdecimal() else (-1, word) for word in words]
    return bool(_BEHIND.search(module)), numbered


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`: `features.0` and so on, the last `classifier`."""
    modules = {
        name.removesuffix(".weight") for name in names if name.endswith(".weight")
    }
    *others, last = sorted(modules, key=_order) or [""]
    numbers = {module: f"features.{number}" for number, module in enumerate(others)}
    numbers[last] = "classifier"

    def renamed(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        return f"{numbers[module]}.{leaf}" if module in numbers else name

    return {name: renamed(name) for name in names}
