"""Pixel constants among the tensors of a file: buffers, or a layer before the network.

mean, std                  buffers, whatever they are prefixed with (`0.mean`,
                           `normalizer.new_std`, `pixel_mean`)
running_mean, running_var  a batch normalisation of the pixels
weight, bias               a convolution 1x1 that scales each channel alone
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ban_jax.checkpoints import limits, tensor
from ban_jax.models import common

_BUFFER = re.compile(
    r"(?P<where>(?:.*\.)?)_?(?:(?:new|pixel|image|img|input|channel|norm|data)_)?"
    r"(?P<what>mean|std|mu|sigma|sd)s?"
)
_CALLED = {"mu": "mean", "sigma": "std", "sd": "std"}
_LAYER = re.compile(
    r"(?:.*\.)?(?:0|\w*norm\w*|bn\w*|\w*prep\w*|\w*scal\w*|mean_?shift)"
)
_CHANNELS = (1, 3)
LARGEST = 4.0
"""Of means and deviations of pixels in [0, 1]; larger ones are of pixels in 0..255. What
programs use is at most 1."""


class Normaliser(NamedTuple):
    """Pixel constants that a file brings.

    Attributes:
      where: the prefix of its names, empty or ending in a dot.
      mean: per channel, or one number.
      std: the same.
      names: of the tensors.
    """

    where: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names: tuple[str, ...]


def normalisers(tensors: Mapping[str, tensor.Tensor]) -> list[Normaliser]:
    """What among these tensors, which are no network's, can be pixel constants.

    Args:
      tensors: by name.
    """
    budget = limits.Budget(2**20, "the pixel constants")
    buffers: dict[str, dict[str, str]] = {}
    layers: dict[str, dict[str, str]] = {}
    for name, value in tensors.items():
        found = _BUFFER.fullmatch(name)
        if found and value.size in _CHANNELS:
            what = _CALLED.get(found["what"], found["what"])
            buffers.setdefault(found["where"], {})[what] = name
            continue
        module, _, leaf = name.rpartition(".")
        if _LAYER.fullmatch(module):
            layers.setdefault(module, {})[leaf] = name
    made = []
    for where, names in buffers.items():
        if names.keys() == {"mean", "std"}:
            mean, std = (_flat(tensors[names[n]], budget) for n in ("mean", "std"))
            made.append(_normaliser(where, mean, std, names))
    for module, names in layers.items():
        constants = _of_layer({leaf: tensors[names[leaf]] for leaf in names}, budget)
        if constants is not None:
            made.append(_normaliser(f"{module}.", *constants, names))
    return made


def _normaliser(
    where: str, mean: np.ndarray, std: np.ndarray, names: Mapping[str, str]
) -> Normaliser:
    return Normaliser(
        where,
        tuple(map(float, mean)),
        tuple(map(float, std)),
        tuple(names.values()),
    )


def _flat(value: tensor.Tensor, budget: limits.Budget) -> np.ndarray:
    return value.float32(budget).reshape(-1).astype(np.float64)


def _of_layer(
    layer: Mapping[str, tensor.Tensor], budget: limits.Budget
) -> tuple[np.ndarray, np.ndarray] | None:
    """`[C]` mean and deviation of a layer that scales each channel alone; else None."""
    if any(value.size > max(_CHANNELS) ** 2 for value in layer.values()):
        return None
    if layer.keys() == {"weight", "bias"}:
        kernel = layer["weight"].float32(budget).astype(np.float64)
        if kernel.ndim != 4 or kernel.shape[2:] != (1, 1):
            return None
        scale = kernel[:, 0, 0, 0]
        if kernel.shape[1] > 1:  # all channels in, so only its own may count
            square = kernel[:, :, 0, 0]
            scale = np.diagonal(square)
            if square.shape[0] != square.shape[1] or np.any(square != np.diag(scale)):
                return None
        shift = _flat(layer["bias"], budget)
    elif layer.keys() >= {"running_mean", "running_var"}:
        mean, var = (
            _flat(layer[name], budget) for name in ("running_mean", "running_var")
        )
        if mean.size not in _CHANNELS or mean.shape != var.shape:
            return None
        scale, shift = 1 / np.sqrt(var + common.EPSILON), np.zeros_like(mean)
        if layer.keys() == {"running_mean", "running_var", "weight", "bias"}:
            scale = scale * _flat(layer["weight"], budget)
            shift = _flat(layer["bias"], budget)
        elif len(layer) > 2:
            return None
        shift = shift - mean * scale
    else:
        return None
    if scale.size not in _CHANNELS or np.shape(shift) != scale.shape:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, std = 0.0 - shift / scale, 1 / scale
    usable = np.all(np.isfinite(mean)) and np.all(np.isfinite(std)) and np.all(std > 0)
    return (mean, std) if usable else None


def chosen(found: list[Normaliser], root: str) -> tuple[Normaliser | None, str]:
    """The constants of the network under `root`, and what to say where they are unsure.

    Those nearest to the network by their names; where the nearest differ, none.
    """
    if not found:
        return None, ""

    def near(one: Normaliser) -> int:
        shared = 0
        for theirs, ours in zip(one.where.split("."), root.split("."), strict=False):
            if theirs != ours:
                break
            shared += 1
        return shared

    nearest = [one for one in found if near(one) == max(map(near, found))]
    if len({(one.mean, one.std) for one in nearest}) > 1:
        names = ", ".join(f"{one.where or 'the root'}" for one in nearest[:5])
        return (
            None,
            f"holds several pixel constants that differ ({names}): none is used",
        )
    return nearest[0], ""
