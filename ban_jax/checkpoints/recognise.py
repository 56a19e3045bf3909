"""Names and shapes of a state dict -> the architecture, and a common naming.

The common naming is that of the CIFAR implementations of the field (`layer1.0.conv1`,
`shortcut`, `linear`), from which `convert` derives our own. Other programs differ in
prefixes (`module.`), in `downsample` and `fc` (torchvision, timm, FeatureRE), or put
the layers under `features.` and `classifier.` (TrojanZoo).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ban_jax import models
from ban_jax.checkpoints import candidate, contents, errors, hashing, tensor

IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|neuron_(noise|mask)\w*|total_ops|total_params)$"
)
"""Entries that are no weights: counters, the noise and masks of noisy normalisation
layers (BAN, ANP, RNP), and what profilers leave behind."""
COUNTER = "num_batches_tracked"
_STATISTICS = re.compile(r"(^|\.)_?(mean|std)$")
_BLOCK = re.compile(r"(layer|dense)(\d)\.(\d+)\.")
_RESNETS: Mapping[tuple[int, ...], str] = {
    (2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3): "resnet34",
}
_DENSENETS: Mapping[tuple[int, ...], str] = {(6, 12, 24, 16): "densenet121"}
_VGG16 = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)


class Recognised(NamedTuple):
    """A state dict under the common names.

    Attributes:
      spec: the architecture; None if it is not one of ours.
      reason: if None, why.
      tensors: by common name, PyTorch's layout.
      keys: common name -> the file's name.
      counters: the file's `num_batches_tracked`.
      mean, std: buffers of a normalisation layer inside the model, if there is one.
      clashes: the file's names that would have a common name twice.
    """

    spec: candidate.ModelSpec | None
    reason: str
    tensors: dict[str, tensor.Tensor]
    keys: dict[str, str]
    counters: dict[str, tensor.Tensor]
    mean: tensor.Tensor | None
    std: tensor.Tensor | None
    clashes: tuple[str, ...]


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
    prefix = _common_prefix(list(tensors))
    renamed: dict[str, tensor.Tensor] = {}
    names: dict[str, str] = {}
    clashes = []
    rename = _renaming([name.removeprefix(prefix) for name in tensors])
    for name, value in tensors.items():
        common = rename(name.removeprefix(prefix))
        if common in renamed:
            clashes.append(keys[name])
        else:
            renamed[common] = value
            names[common] = keys[name]
    shapes = {name: value.shape for name, value in renamed.items()}
    spec, reason = _spec(shapes, architecture)
    return Recognised(
        spec,
        reason,
        renamed,
        names,
        counters,
        statistics.get("mean"),
        statistics.get("std"),
        tuple(clashes),
    )


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
        common = torch_name(name)
        renamed[common] = to_torch_layout(value)
        keys[common] = name
    return renamed, keys, statistics


_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def torch_name(name: str) -> str:
    """`params/layer1_0/conv1/kernel` -> `layer1.0.conv1.weight`; others unchanged."""
    collection, *modules, leaf = name.split("/")
    if not modules or (collection, leaf) not in _LEAVES:
        return name
    modules = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    path = ".".join(modules) + "." + _LEAVES[collection, leaf]
    # `features` is a method of our modules, so VGG's list of layers is called `layers`.
    return re.sub(r"^layers\.", "features.", path)


def to_torch_layout(value: tensor.Tensor) -> tensor.Tensor:
    """HWIO -> OIHW and `[F, K]` -> `[K, F]`, by permuting strides."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(value.shape))
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


def _renaming(names: list[str]) -> Callable[[str], str]:
    nested = any(
        name.startswith(("features.conv1.", "features.layer1.")) for name in names
    )
    heads = {
        name.rpartition(".")[0]
        for name in names
        if re.match(r"(classifier|fc|linear|head)\b", name)
    }
    # Several layers under classifier are another network (torchvision's VGG has three).
    head = heads.pop() if len(heads) == 1 else None
    vgg = any(name.startswith("features.0.") for name in names)

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if head is not None and module == head:
            return f"{'classifier' if vgg else 'linear'}.{leaf}"
        if nested:
            name = name.removeprefix("features.")
        return name.replace(".downsample.", ".shortcut.")

    return rename


def _spec(
    shapes: Mapping[str, tuple[int, ...]], forced: str | None
) -> tuple[candidate.ModelSpec | None, str]:
    architecture, reason = (forced, "") if forced else _architecture(shapes)
    if architecture is None:
        return None, reason
    if architecture not in models.ARCHITECTURES:
        return None, f"architecture {errors.show(architecture)} is not known"
    vgg = architecture.startswith("vgg")
    stem = shapes.get("features.0.weight" if vgg else "conv1.weight", ())
    head = "classifier" if vgg else "linear"
    weight, bias = shapes.get(f"{head}.weight", ()), shapes.get(f"{head}.bias", ())
    if len(stem) != 4 or (len(weight) != 2 and len(bias) != 1):
        return None, (
            f"the first convolution has shape {stem} and the last layer {weight}; "
            "expected four and two dimensions"
        )
    classes = weight[0] if len(weight) == 2 else bias[0]
    wide = architecture.startswith("resnet") and stem[2:] == (7, 7)
    kind = "imagenet" if wide else "cifar"
    if not classes or not stem[0] or not stem[1]:
        return None, "a layer without channels"
    return candidate.ModelSpec(architecture, classes, stem[0], stem[1], kind), ""


def _architecture(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str | None, str]:
    blocks: dict[str, dict[int, int]] = {"layer": {}, "dense": {}}
    for name in shapes:
        if match := _BLOCK.match(name):
            kind, stage, index = match[1], int(match[2]), int(match[3])
            blocks[kind][stage] = max(blocks[kind].get(stage, 0), index + 1)
    counts = {
        kind: tuple(stages.get(stage, 0) for stage in range(1, max(4, *stages, 4) + 1))
        for kind, stages in blocks.items()
    }
    if blocks["dense"]:
        return _lookup(_DENSENETS, counts["dense"], "dense blocks")
    if blocks["layer"]:
        if any(name.endswith(".conv3.weight") for name in shapes):
            return None, f"bottleneck residual blocks {counts['layer']} (ResNet50 kind)"
        found, reason = _lookup(_RESNETS, counts["layer"], "residual blocks")
        if found and not any(name.startswith("bn1.") for name in shapes):
            # A norm behind the stem is what a pre-activation network does not have.
            found = f"preact_{found}"
            if found not in models.ARCHITECTURES:
                return None, f"pre-activation residual blocks {counts['layer']}"
        return found, reason
    convolutions = tuple(
        sorted(
            int(name.split(".")[1])
            for name, shape in shapes.items()
            if re.fullmatch(r"features\.\d{1,3}\.weight", name) and len(shape) == 4
        )
    )
    if convolutions:
        missing = set(_VGG16) - set(convolutions)
        if set(convolutions) <= set(_VGG16) and len(missing) < 4:
            return "vgg16", ""
        return None, f"convolutions at features.{convolutions}, VGG16-BN has {_VGG16}"
    return None, "no layers named as in any of them"


def _lookup(
    table: Mapping[tuple[int, ...], str], counts: tuple[int, ...], what: str
) -> tuple[str | None, str]:
    if counts in table:
        return table[counts], ""
    return None, f"{what} {counts} per stage, known are " + ", ".join(
        f"{known} ({name})" for known, name in table.items()
    )
