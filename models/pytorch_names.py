"""Our names of weights, and the common ones, which are in PyTorch's spelling.

The common names are those of the CIFAR implementations of the field (`layer1.0.conv1`,
`shortcut`, `linear`). Other programs differ in `downsample` and `fc` (torchvision, timm,
FeatureRE), put the layers under `features.` and `classifier.` (TrojanZoo), or number those
of a block (pytorch-cifar100: `conv2_x.0.residual_function.3`; Hugging Face:
`resnet.encoder.stages.0.layers.0.layer.1.convolution`).
"""

import re
from collections.abc import Collection, Mapping

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_SQUARE = "/layer_scale/scale"
"""Ours is `[C]`; torchvision's layer scale is `[C, 1, 1]`, timm's `gamma` is `[C]`."""
_NUMBERED = re.compile(r"conv(\d)_x\.(\d+)\.(residual_function|shortcut)\.(\d)\.")
"""Of pytorch-cifar100: convolution, norm and activation are 0, 1, 2, and so on."""
_HUGGING_FACE = re.compile(
    r"(?:resnet\.)?(?:embedder\.embedder|encoder\.stages\.(\d)\.layers\.(\d+)\."
    r"(?:layer\.(\d)|shortcut))\.(convolution|normalization)\."
)
_BLOCK = re.compile(r"(layer|dense)(\d)\.(\d+)\.")


def common_name(ours: str) -> str:
    """`params/layer1_0/conv1/kernel` -> `layer1.0.conv1.weight`.

    A weight of another kind keeps its own last word (`params/embed/table` ->
    `embed.table`, and `running_` before it where it is a statistic).
    """
    collection, *modules, leaf = ours.split("/")
    other = leaf if collection == "params" else f"running_{leaf}"
    theirs = _LEAVES.get((collection, leaf), other)
    modules = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    path = ".".join([*modules, theirs])
    # `features` is a method of our modules, so VGG's list of layers is called `layers`.
    return re.sub(r"^layers\.", "features.", path)


def axes_to_pytorch(ours: str, rank: int) -> tuple[int, ...] | None:
    """Order of axes that turns a kernel `[..., F, O]` into `[O, F, ...]`; else None."""
    if rank < 2 or not ours.endswith("/kernel"):
        return None
    return (rank - 1, rank - 2, *range(rank - 2))


def axes_from_pytorch(ours: str, rank: int) -> tuple[int, ...] | None:
    """The inverse of `axes_to_pytorch`."""
    if rank < 2 or not ours.endswith("/kernel"):
        return None
    return (*range(2, rank), 1, 0)


def unit_axes(ours: str) -> tuple[int, ...]:
    """The axes of length one that PyTorch's layout has behind those of a weight of ours."""
    return (1, 1) if ours.endswith(_SQUARE) else ()


def unchanged(names: Collection[str]) -> Mapping[str, str]:
    """File's name -> common name, for programs that use the common names."""
    return {name: name for name in names}


def of_the_field(names: Collection[str], head: str = "linear") -> Mapping[str, str]:
    """File's name -> common name, for the programs named at the head of this file.

    Args:
      names: all of a file's, without the prefix they may share.
      head: our name of the last layer.
    """
    nested = any(
        name.startswith(("features.conv1.", "features.layer1.")) for name in names
    )
    heads = {
        name.rpartition(".")[0]
        for name in names
        if re.match(r"(classifier|fc|linear|head)\b", name)
    }
    numbered = any(map(_NUMBERED.match, names))
    staged = any(map(_HUGGING_FACE.match, names))
    # Several layers under classifier are another network (torchvision's VGG has three).
    theirs = heads.pop() if len(heads) == 1 else None

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if theirs is not None and module == theirs:
            return f"{head}.{leaf}"
        if nested:
            name = name.removeprefix("features.")
        if numbered:
            return _without_numbers(name)
        if staged:
            return _without_stages(name)
        return name.replace(".downsample.", ".shortcut.")

    return {name: rename(name) for name in names}


def _without_numbers(name: str) -> str:
    """`conv2_x.0.residual_function.3.weight` -> `layer1.0.conv2.weight`; its stem alike."""
    if name.startswith(("conv1.0.", "conv1.1.")):
        return ("bn1." if name[6] == "1" else "conv1.") + name[8:]
    found = _NUMBERED.match(name)
    if found is None:
        return name
    stage, block, kind, index = int(found[1]) - 1, found[2], found[3], int(found[4])
    layer = f"{('conv', 'bn', 'act')[index % 3]}{index // 3 + 1}"
    layer = f"shortcut.{index}" if kind == "shortcut" else layer
    return f"layer{stage}.{block}.{layer}.{name[found.end() :]}"


def _without_stages(name: str) -> str:
    """`resnet.encoder.stages.0.layers.0.layer.1.convolution.weight` ->
    `layer1.0.conv2.weight`; stem and shortcut alike."""
    found = _HUGGING_FACE.match(name)
    if found is None:
        return name
    stage, block, index, kind = found.groups()
    norm = kind == "normalization"
    if stage is None or index is not None:
        layer = f"{'bn' if norm else 'conv'}{int(index or 0) + 1}"
    else:
        layer = f"shortcut.{int(norm)}"
    place = "" if stage is None else f"layer{int(stage) + 1}.{block}."
    return f"{place}{layer}.{name[found.end() :]}"


def with_vgg_head(names: Collection[str]) -> Mapping[str, str]:
    """`of_the_field` for networks whose last layer is called `classifier`."""
    return of_the_field(names, "classifier")


def blocks(names: Collection[str], kind: str) -> tuple[int, ...]:
    """Blocks per stage, at least four stages, from `layer1.0.` and the like.

    Args:
      names: common names.
      kind: `layer` or `dense`.

    Returns:
      Empty where no name is of such a block.
    """
    stages: dict[int, int] = {}
    for name in names:
        if (match := _BLOCK.match(name)) and match[1] == kind:
            stage, index = int(match[2]), int(match[3])
            stages[stage] = max(stages.get(stage, 0), index + 1)
    if not stages:
        return ()
    return tuple(stages.get(stage, 0) for stage in range(1, max(4, *stages, 4) + 1))
