"""File's names of networks of inverted residual blocks -> the common ones.

torchvision numbers the layers inside a block by what is there, timm names them by their
order, kuangliu's pytorch-cifar has `layers.3.conv2`, and Hugging Face a program for each
network, under its name.
"""

import re
from collections.abc import Collection, Mapping

_TIMM_TOP = {"conv_stem": "stem_conv", "bn1": "stem_bn"}
_TIMM = {
    "conv_pw": "expand",
    "bn1": "expand_bn",
    "conv_dw": "depthwise",
    "bn2": "depthwise_bn",
    "se.conv_reduce": "squeeze",
    "se.conv_expand": "excite",
    "conv_pwl": "project",
    "bn3": "project_bn",
}
_TIMM_SEPARABLE = {
    "conv_dw": "depthwise",
    "bn1": "depthwise_bn",
    "se.conv_reduce": "squeeze",
    "se.conv_expand": "excite",
    "conv_pw": "project",
    "bn2": "project_bn",
}
"""A block that widens nothing."""
_CIFAR_TOP = {
    "conv1": "stem_conv",
    "bn1": "stem_bn",
    "conv2": "last_conv",
    "bn2": "last_bn",
}
_CIFAR = {
    "conv1": "expand",
    "bn1": "expand_bn",
    "conv2": "depthwise",
    "bn2": "depthwise_bn",
    "conv3": "project",
    "bn3": "project_bn",
    "shortcut.0": "shortcut.0",
    "shortcut.1": "shortcut.1",
}
_EFFICIENTNET_TOP = {
    "efficientnet.embeddings.convolution": "stem_conv",
    "efficientnet.embeddings.batchnorm": "stem_bn",
    "efficientnet.encoder.top_conv": "last_conv",
    "efficientnet.encoder.top_bn": "last_bn",
}
_EFFICIENTNET = {
    "expansion.expand_conv": "expand",
    "expansion.expand_bn": "expand_bn",
    "depthwise_conv.depthwise_conv": "depthwise",
    "depthwise_conv.depthwise_norm": "depthwise_bn",
    "squeeze_excite.reduce": "squeeze",
    "squeeze_excite.expand": "excite",
    "projection.project_conv": "project",
    "projection.project_bn": "project_bn",
}
_MOBILENET_TOP = {
    "mobilenet_v2.conv_stem.first_conv": "stem",
    "mobilenet_v2.conv_1x1": "last",
}
_MOBILENET = {
    "expand_1x1": "expand",
    "conv_3x3": "depthwise",
    "reduce_1x1": "project",
}
"""Of each a convolution and its norm; the stem holds the first block's besides its own."""
_HEAD = re.compile(r"(classifier|fc|linear|head)(\.\d+)?$")


def rename(names: Collection[str]) -> Mapping[str, str]:
    """File's name -> common name; names of another program stay.

    Args:
      names: all of a file's, without the prefix they may share.
    """
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    if "conv_stem" in modules:
        table = _timm(modules)
    elif "layers.0.conv3" in modules:
        table = _cifar(modules)
    elif "features.0.0" in modules:
        table = _torchvision(modules)
    elif "efficientnet.embeddings.convolution" in modules:
        table = _efficientnet(modules)
    elif "mobilenet_v2.conv_stem.first_conv.convolution" in modules:
        table = _mobilenet(modules)
    else:
        return {name: name for name in names}
    heads = sorted(module for module in modules if _HEAD.match(module))
    if heads:
        table[heads[-1]] = "classifier"
    if len(heads) == 2:
        table[heads[0]] = "penultimate"

    def renamed(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        return f"{table[module]}.{leaf}" if module in table else name

    return {name: renamed(name) for name in names}


def _timm(modules: Collection[str]) -> dict[str, str]:
    table = {ours: new for ours, new in _TIMM_TOP.items() if ours in modules}
    if "bn2" in modules:
        table |= {"conv_head": "last_conv", "bn2": "last_bn"}
    elif "conv_head" in modules:
        table["conv_head"] = "penultimate"
    blocks: dict[tuple[int, int], dict[str, str]] = {}
    for module in modules:
        if match := re.match(r"blocks\.(\d+)\.(\d+)\.(.+)$", module):
            place = int(match[1]), int(match[2])
            blocks.setdefault(place, {})[match[3]] = module
    index = 0
    for _, layers in sorted(blocks.items()):
        if "conv" in layers:  # MobileNetV3's last stage is a lone convolution
            table |= {layers["conv"]: "last_conv"}
            table |= {layers[one]: "last_bn" for one in ("bn1",) if one in layers}
            continue
        words = _TIMM if "conv_pwl" in layers else _TIMM_SEPARABLE
        for inner, module in layers.items():
            if inner in words:
                table[module] = f"layers_list.{index}.{words[inner]}"
        index += 1
    return table


def _cifar(modules: Collection[str]) -> dict[str, str]:
    table = {ours: new for ours, new in _CIFAR_TOP.items() if ours in modules}
    for module in modules:
        match = re.match(r"layers\.(\d+)\.(.+)$", module)
        if match and match[2] in _CIFAR:
            table[module] = f"layers_list.{match[1]}.{_CIFAR[match[2]]}"
    return table


def _efficientnet(modules: Collection[str]) -> dict[str, str]:
    table = dict(_EFFICIENTNET_TOP)
    for module in modules:
        match = re.match(r"efficientnet\.encoder\.blocks\.(\d+)\.(.+)$", module)
        if match and match[2] in _EFFICIENTNET:
            table[module] = f"layers_list.{match[1]}.{_EFFICIENTNET[match[2]]}"
    return table


def _mobilenet(modules: Collection[str]) -> dict[str, str]:
    table = {}
    for module in modules:
        layer, _, kind = module.rpartition(".")
        match = re.match(r"mobilenet_v2\.(?:layer\.(\d+)|conv_stem)\.(\w+)$", layer)
        if layer in _MOBILENET_TOP:
            ours = f"{_MOBILENET_TOP[layer]}_conv"
        elif match and match[2] in _MOBILENET:
            index = 0 if match[1] is None else int(match[1]) + 1
            ours = f"layers_list.{index}.{_MOBILENET[match[2]]}"
        else:
            continue
        norm = f"{ours.removesuffix('_conv')}_bn"
        table[module] = norm if kind == "normalization" else ours
    return table


def _torchvision(modules: Collection[str]) -> dict[str, str]:
    table = {"features.0.0": "stem_conv", "features.0.1": "stem_bn"}
    blocks: dict[tuple[int, ...], dict[str, str]] = {}
    tops = []
    for module in modules:
        match = re.match(r"features((?:\.\d+)+)\.(?:conv|block)\.(.+)$", module)
        if match:
            place = tuple(int(number) for number in match[1][1:].split("."))
            blocks.setdefault(place, {})[match[2]] = module
        elif re.match(r"features\.\d+\.0$", module):
            tops.append(int(module.split(".")[1]))
    if len(tops) > 1:
        last = max(tops)
        table[f"features.{last}.0"] = "last_conv"
        table[f"features.{last}.1"] = "last_bn"
    for index, (_, layers) in enumerate(sorted(blocks.items())):
        for inner, new in _torchvision_block(layers).items():
            table[layers[inner]] = f"layers_list.{index}.{new}"
    return table


def _torchvision_block(layers: Collection[str]) -> dict[str, str]:
    """Name inside a block -> common name, by the order of what is there."""
    table: dict[str, str] = {}
    pairs = sorted({int(one.split(".")[0]) for one in layers if one.endswith(".0")})
    alone = sorted(int(one) for one in layers if one.isdigit())
    # MobileNetV2's last convolution and its norm are no pair.
    roles = ["depthwise"] if alone else ["depthwise", "project"]
    if len(pairs) > len(roles):
        roles = ["expand", *roles]
    for number, role in zip(pairs, roles, strict=False):
        table |= {f"{number}.0": role, f"{number}.1": f"{role}_bn"}
    for number, role in zip(alone, ("project", "project_bn"), strict=False):
        table[str(number)] = role
    for one in layers:
        word = one.rpartition(".")[2]
        if word in ("fc1", "fc2"):
            table[one] = "squeeze" if word == "fc1" else "excite"
    return {one: new for one, new in table.items() if one in layers}
