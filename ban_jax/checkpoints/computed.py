"""Weights that PyTorch keeps as several tensors and computes before each use.

prune        `weight_orig`, `weight_mask`: their product
weight_norm  `weight_g`, `weight_v`, or `parametrizations.weight.original0`, `original1`:
             the second, scaled to the lengths that the first gives

Other parametrisations are not computed: what they do is code, and no tensor says it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ban_jax.checkpoints import limits, tensor

_PARAMETRISED = re.compile(r"(?P<module>.*\.)?parametrizations\.(?P<weight>\w+)\.")
_KEPT = re.compile(r"parametrizations\.\w+\.(original|0\.)|weight_(orig|g|u)$")
"""Names of what a weight is computed from."""
_QUANTISED = re.compile(
    r"(^|\.)(zero_point|weight\._(data|scale)|\w*(fake_quant|activation_post_process)\..*)$"
)
"""Names of what stands beside quantised weights, or weights that are quantised in use."""
_FLATTENED = re.compile(r"flat_param(_0)?$")
"""How FSDP calls the one tensor that it makes of all parameters of a module."""


class _Rule(NamedTuple):
    """How several tensors become one.

    Attributes:
      ends: of their names, the weight's own first; two spellings.
      fits: whether tensors of these shapes are such ones.
      compute: the weight, from their values.
      note: what is said of so many.
    """

    ends: tuple[tuple[str, ...], ...]
    fits: Callable[..., bool]
    compute: Callable[..., np.ndarray]
    note: str


class Computed:
    """A tensor that is computed from several; see `tensor.Tensor`.

    Attributes:
      parts: the tensors, of which the first has its shape.
    """

    __slots__ = ("compute", "offset", "parts", "shape", "size", "storage", "strides")

    def __init__(
        self, parts: tuple[tensor.Tensor, ...], compute: Callable[..., np.ndarray]
    ):
        self.parts, self.compute = parts, compute
        weight = parts[0]
        self.storage, self.offset = weight.storage, weight.offset
        self.shape, self.strides, self.size = weight.shape, weight.strides, weight.size

    def float32(
        self, budget: limits.Budget, axes: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """The contiguous result, its axes permuted by `axes`."""
        values = [part.float32(budget) for part in self.parts]
        # What is not finite or divided by zero is not a number in PyTorch, too.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            made = self.compute(*values)
        made = made if axes is None else made.transpose(axes)
        return np.ascontiguousarray(made, np.float32)


def compose(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The tensors of a file by name, with one for each weight that is kept as several.

    Returns:
      The tensors, and what is to be said of those that were computed.
    """
    made, notes = dict(tensors), []
    for rule in _RULES:
        count = 0
        for name in tensors:
            found = next((f for e in rule.ends if (f := _named(name, e))), None)
            if (
                found is None
                or found[0] in made
                or any(n not in made for n in found[1])
            ):
                continue
            parts = tuple(made[one] for one in found[1])
            if rule.fits(*(part.shape for part in parts)):
                for one in found[1]:
                    del made[one]
                made[found[0]] = Computed(parts, rule.compute)
                count += 1
        if count:
            notes.append(rule.note.format(count))
    return made, notes


def _named(name: str, ends: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """The name of the weight whose own part has this name, and the names of all parts."""
    stem = name.removesuffix(ends[0])
    if stem == name:
        return None
    weight = stem
    if not ends[0].startswith("_"):
        found = _PARAMETRISED.fullmatch(stem)
        if found is None:
            return None
        weight = f"{found['module'] or ''}{found['weight']}"
    return weight, [stem + end for end in ends]


def advice(names: Iterable[str]) -> str:
    """What to do about weights that are kept in another way; empty where none is."""
    names = list(names)
    if any(map(_FLATTENED.search, names)):
        return "parameters that FSDP flattened: save its full state dict"
    if any(map(_QUANTISED.search, names)):
        return "weights are quantised, or are when they are used: save them before that"
    if not any(map(_KEPT.search, names)):
        return ""
    return (
        "weights are kept as what they are computed from (spectral_norm, "
        "parametrizations): remove_spectral_norm or remove_parametrizations before saving "
        "makes them weights"
    )


def _is_length(weight: tuple[int, ...], length: tuple[int, ...]) -> bool:
    """Whether lengths are of all of a weight, or along one of its axes."""
    along = [
        tuple(n if i == axis else 1 for i, n in enumerate(weight))
        for axis in range(len(weight))
    ]
    return len(weight) > 1 and length in ((), *along)


def _scaled(weight: np.ndarray, length: np.ndarray) -> np.ndarray:
    axes = tuple(
        i for i in range(weight.ndim) if not length.ndim or length.shape[i] == 1
    )
    norm = np.sqrt(np.sum(np.square(weight), axes, keepdims=True))
    return weight * (length / norm)


_RULES = (
    _Rule(
        (("_orig", "_mask"),),
        lambda weight, mask: weight == mask,
        lambda weight, mask: weight * mask,
        "{} pruned weights were multiplied by their masks",
    ),
    _Rule(
        (("_v", "_g"), ("original1", "original0")),
        _is_length,
        _scaled,
        "{} weights were scaled to their lengths (weight_norm)",
    ),
)
