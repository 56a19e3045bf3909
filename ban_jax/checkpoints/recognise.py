"""Names and shapes of a state dict -> the architecture, and a common naming.

Each architecture says itself what its tensors are called and how it is known
(`ban_jax.models.Architecture`). What is removed here is what all programs may put around
the names: prefixes (`module.`), counters, a normalisation layer.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from ban_jax import models
from ban_jax.checkpoints import candidate, contents, hashing, tensor
from ban_jax.models import pytorch_names

IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|neuron_(noise|mask)\w*|total_ops|total_params)$"
)
"""Entries that are no weights: counters, the noise and masks of noisy normalisation
layers (BAN, ANP, RNP), and what profilers leave behind."""
COUNTER = "num_batches_tracked"
_STATISTICS = re.compile(r"(^|\.)_?(mean|std)$")


class Recognised(NamedTuple):
    """A state dict under the common names.

    Attributes:
      spec: the architecture; None if it is not a known one.
      reason: if None, why.
      tensors: by common name, PyTorch's layout.
      keys: common name -> the file's name.
      counters: the file's `num_batches_tracked`.
      mean, std: buffers of a normalisation layer inside the model, if there is one.
      clashes: the file's names that would have a common name twice.
      others: names of further architectures that have these tensors.
    """

    spec: candidate.ModelSpec | None
    reason: str
    tensors: dict[str, tensor.Tensor]
    keys: dict[str, str]
    counters: dict[str, tensor.Tensor]
    mean: tensor.Tensor | None
    std: tensor.Tensor | None
    clashes: tuple[str, ...]
    others: tuple[str, ...] = ()


class Named(NamedTuple):
    """Tensors under the common names of one architecture.

    Attributes:
      tensors: by common name, PyTorch's layout.
      keys: common name -> the file's name.
      clashes: the file's names that would have a common name twice.
    """

    tensors: dict[str, tensor.Tensor]
    keys: dict[str, str]
    clashes: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Common name -> shape."""
        return {name: value.shape for name, value in self.tensors.items()}


def recognise(group: contents.StateDict, architecture: str | None = None) -> Recognised:
    """Finds architecture, width, classes, channels and stem.

    Args:
      group: named tensors from a file.
      architecture: a name that is taken for granted instead of guessed.
    """
    tensors, keys = dict(group.tensors), {name: name for name in group.tensors}
    statistics: dict[str, tensor.Tensor] = {}
    counters: dict[str, tensor.Tensor] = {}
    if any(name.startswith("params/") for name in tensors):
        tensors, keys, statistics = _from_flax(tensors)
    else:
        for name in list(tensors):
            if IGNORED.search(name):
                if name.endswith(COUNTER):
                    counters[name] = tensors[name]
                del tensors[name]
            elif (match := _STATISTICS.search(name)) and tensors[name].size in (1, 3):
                statistics[match[2]] = tensors.pop(name)

    def recognised(
        named: Named, spec: candidate.ModelSpec | None, reason: str, *others: str
    ) -> Recognised:
        return Recognised(
            spec,
            reason,
            named.tensors,
            named.keys,
            counters,
            statistics.get("mean"),
            statistics.get("std"),
            named.clashes,
            others,
        )

    if architecture is not None:
        named = _named(models.ARCHITECTURES[architecture], tensors, keys)
        return recognised(named, *_spec(architecture, named))
    # The newest first: whoever registers a network with the names of ours means theirs.
    differences: list[str] = []
    fitting: list[tuple[str, Named]] = []
    for name in reversed(list(models.ARCHITECTURES)):
        named = _named(models.ARCHITECTURES[name], tensors, keys)
        difference = models.ARCHITECTURES[name].difference(named.shapes)
        if difference is None:
            fitting.append((name, named))
        elif difference and difference not in differences:
            differences.insert(0, difference)
    if not fitting:
        reason = "; ".join(differences) or "no layers named as in any of them"
        return recognised(Named(tensors, keys, ()), None, reason)
    (name, named), *others = fitting
    return recognised(named, *_spec(name, named), *(other for other, _ in others))


def _from_flax(
    tensors: Mapping[str, tensor.Tensor],
) -> tuple[dict[str, tensor.Tensor], dict[str, str], dict[str, tensor.Tensor]]:
    renamed: dict[str, tensor.Tensor] = {}
    keys: dict[str, str] = {}
    statistics: dict[str, tensor.Tensor] = {}
    for name, value in tensors.items():
        if name in ("normalisation/mean", "normalisation/std"):
            statistics[name.split("/")[1]] = value
            continue
        if not name.startswith(tuple(f"{tree}/" for tree in hashing.HASHED)):
            continue
        common = pytorch_names.common_name(name)
        # Two that would be one keep their own names, which no architecture has.
        common = name if common in renamed else common
        renamed[common] = to_torch_layout(name, value)
        keys[common] = name
    return renamed, keys, statistics


def to_torch_layout(name: str, value: tensor.Tensor) -> tensor.Tensor:
    """HWIO -> OIHW and `[F, K]` -> `[K, F]` of kernels, by permuting strides."""
    axes = pytorch_names.axes_to_pytorch(name, len(value.shape))
    if axes is None:
        return value
    return tensor.Tensor(
        value.storage,
        [value.shape[axis] for axis in axes],
        [value.strides[axis] for axis in axes],
        value.offset,
    )


def _common_prefix(names: list[str]) -> str:
    """What wrappers (DataParallel, torch.compile, Sequential) put before every name."""
    prefix = ""
    for _ in range(8 if names else 0):
        step, dot, _ = names[0].removeprefix(prefix).partition(".")
        longer = prefix + step + dot
        if not dot or not all(name.startswith(longer) for name in names):
            break
        prefix = longer
    return prefix


def _named(
    architecture: models.Architecture,
    tensors: Mapping[str, tensor.Tensor],
    keys: Mapping[str, str],
) -> Named:
    """The tensors under the names an architecture gives them."""
    prefix = _common_prefix(list(tensors))
    names = architecture.rename([name.removeprefix(prefix) for name in tensors])
    renamed: dict[str, tensor.Tensor] = {}
    origins: dict[str, str] = {}
    clashes = []
    for name, value in tensors.items():
        bare = name.removeprefix(prefix)
        common = names.get(bare, bare)
        if common in renamed:
            clashes.append(keys[name])
        else:
            renamed[common] = value
            origins[common] = keys[name]
    return Named(renamed, origins, tuple(clashes))


def _spec(name: str, named: Named) -> tuple[candidate.ModelSpec | None, str]:
    """The network of an architecture that has tensors of these shapes."""
    try:
        fields = models.ARCHITECTURES[name].fields(named.shapes)
        return candidate.ModelSpec.of(name, **fields), ""
    except ValueError as error:
        return None, str(error)
