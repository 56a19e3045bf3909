"""What timm's and Hugging Face's `config.json` say of a network: hints, never proof.

Whoever made the weights wrote them too. So they choose among networks whose weights have
the same shapes where nothing better is known - clean images overrule them - and become
notes. What is not of the expected kind is named in a note and left out.

  timm          {"architecture": ..., "num_classes": ..., "pretrained_cfg": {"input_size",
                "interpolation", "crop_pct", "mean", "std"}}
  Hugging Face  {"architectures": [...], "image_size", "id2label", "num_attention_heads"},
                and `preprocessor_config.json` {"image_mean", "image_std", "size",
                "crop_size", "crop_pct", "resample"}

They also say how images are prepared for the network, which a scan does where nobody says
otherwise (`preparation`). Whoever wrote the file might ask for images that hide a trigger,
or for huge ones: what keeps less than half of a side, or is out of `_SIDES`, is not taken.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ban_jax import models
from ban_jax.checkpoints import convert, errors

if TYPE_CHECKING:
    from ban_jax.data import preparation as preparations

Config = Mapping[str, Any]
_LARGEST_SIDE = 2**14
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, by which Hugging Face's files name a filter."""
_FILTERS = (*_RESAMPLING.values(), "random")
_MOST_CLASSES = 10
_SIDES = range(8, 801)
"""Of images that are prepared: timm's largest network takes 800 pixels."""
_LEAST_KEPT = 0.5
_SQUEEZED_FROM = 384
"""From this size on Hugging Face's processor with a `crop_pct` does not crop (ConvNeXt)."""


def remarks(config: Config) -> Config:
    """What `manifest` looks for - constants, the number of classes - at one place."""
    pretrained = config.get("pretrained_cfg")
    found = dict(pretrained if type(pretrained) is dict else config)
    classes = config.get("num_classes", config.get("num_labels"))
    if type(config.get("id2label")) is dict:
        classes = len(config["id2label"])
    if type(classes) is int:  # of the weights here, not of those they began as
        found["num_classes"] = classes
    return found


def constants(prepared: Config) -> Config:
    """The pixel constants of a `preprocessor_config.json`, as `manifest` looks for them.

    They are of pixels in [0, 1], whatever the processor makes of them before. That of
    EfficientNet divides by the deviation twice, unless `include_top` is off.
    """
    if prepared.get("do_normalize") is False:
        return {}
    names = {"image_mean": "mean", "image_std": "std"}
    found = {ours: prepared[name] for name, ours in names.items() if name in prepared}
    mean, std = (convert.numbers(found.get(name)) for name in ("mean", "std"))
    rescaled = prepared.get("do_rescale") is not False
    factor = convert.numbers(prepared.get("rescale_factor", 1 / 255) if rescaled else 1)
    if not mean or not std:
        return found  # `manifest` says what is wrong with them
    if not factor or factor[0] <= 0:
        return {}
    scale = 255 * factor[0]
    offset = -1.0 if prepared.get("rescale_offset") is True else 0.0
    kind = str(prepared.get("image_processor_type", ""))[:100]
    twice = prepared.get("include_top", kind.startswith("EfficientNet")) is True
    return {
        "mean": [(value - offset) / scale for value in mean],
        "std": [value * (value if twice else 1.0) / scale for value in std],
    }


def stem(config: Config, architecture: str, module: models.Classifier) -> str | None:
    """Of stems with the same shapes the one a `config.json` names; None: it names none.

    Args:
      config: what the file holds.
      architecture: our name of the network, which timm's must begin with.
      module: the network.
    """
    heads, count = config.get("num_attention_heads"), getattr(module, "heads", None)
    if type(heads) is int and count is not None:
        return next((one for one in module.alike if count(one) == heads), None)
    ours = _letters(architecture.removesuffix("_plain"))
    name, kinds = config.get("architecture"), config.get("architectures")
    if type(name) is str:  # timm's, whatever class of Hugging Face's holds the network
        plain = _letters(name)
        if plain.startswith(f"tf{ours}"):
            return "tf" if "tf" in module.alike else None
        if plain.startswith(ours) and "imagenet" in module.alike:
            return "imagenet"
    elif type(kinds) is list and kinds and type(kinds[0]) is str:
        # Hugging Face's mobile networks are TensorFlow's, of all depths one class.
        family = _letters(kinds[0].partition("For")[0])
        padded = config.get("tf_padding") is not False
        if family and ours.startswith(family) and padded and "tf" in module.alike:
            return "tf"
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name[:100].lower())


def notes(config: Config, prepared: Config) -> list[str]:
    """What a reader should know: the network's name, its images, its classes."""
    pretrained = config.get("pretrained_cfg")
    timm = pretrained if type(pretrained) is dict else {}
    wrong: list[str] = []
    told = []
    names = config.get("architectures")
    first = names[0] if type(names) is list and names else None
    name = config.get("architecture", first)
    if type(name) is str:
        told.append(f"config.json calls the network {errors.show(name, 100)}")
    elif name is not None:
        wrong.append("architecture")
    if images := _images(config, timm, prepared, wrong):
        told.append(images)
    if classes := _classes(config, wrong):
        told.append(classes)
    if wrong:
        listed = ", ".join(dict.fromkeys(wrong))
        told.append(f"config.json is not of the expected kind in {listed}")
    return told


def preparation(config: Config, prepared: Config) -> "preparations.Preparation | None":
    """How images become the network's; None where that is not said, or not taken.

    timm's files say the side that is cut out, and its share of the resized one; Hugging
    Face's say both sides, or that both become one size, whatever the proportions.
    """
    from ban_jax.data import preparation as preparations  # brings Pillow

    timm = config.get("pretrained_cfg")
    if "size" in prepared:
        found = _of_processor(prepared)
    elif type(timm) is dict and "input_size" in timm:
        found = (
            _side(timm["input_size"]),
            timm.get("crop_pct", 0.875),
            timm.get("interpolation", "bicubic"),
            timm.get("crop_mode") == "squash",
        )
    else:  # of the network alone: its programs resize to that
        found = _side(config.get("image_size")), 1.0, "bilinear", True
    side, kept, kind, squeezed = found
    if kind == "random":  # of training, which had this among others
        kind = "bilinear"
    usable = (
        type(side) is int
        and side in _SIDES
        and type(kept) in (int, float)
        and _LEAST_KEPT <= kept <= 1
        and kind in preparations.FILTERS
    )
    if not usable:
        return None
    return preparations.Preparation(side, float(kept), kind, squeezed)


_Found = tuple[Any, Any, Any, bool]
"""Side, share, filter and whether squeezed, unchecked but for the last."""
_NOTHING: _Found = (0, 1.0, "", False)


def _of_processor(prepared: Config) -> _Found:
    """What a `preprocessor_config.json` says."""
    size, crop = prepared["size"], prepared.get("crop_size")
    edge = size.get("shortest_edge") if type(size) is dict else None
    short = _side(size) if edge is None else edge
    resample = prepared.get("resample", 2)
    kind = _RESAMPLING.get(resample, "") if type(resample) is int else ""
    is_side = type(short) is int and 0 < short <= _LARGEST_SIDE
    if not is_side or prepared.get("do_resize") is False:
        return _NOTHING
    if "crop_pct" in prepared:
        squeezed = short >= _SQUEEZED_FROM
        return short, 1.0 if squeezed else prepared["crop_pct"], kind, squeezed
    if crop is not None and prepared.get("do_center_crop") is not False:
        side = _side(crop)
        if type(side) is not int or not 0 < side <= short:
            return _NOTHING
        # The half keeps the division that follows from falling below the whole number.
        kept = 1.0 if side == short else side / (short + 0.5)
        return side, kept, kind, edge is None
    return (short, 1.0, kind, True) if edge is None else _NOTHING


def _side(size: Any) -> Any:
    """Of a square, however it is written; None for what is none."""
    if type(size) is dict:
        size = [size.get("height"), size.get("width")]
    if type(size) is not list:
        return size
    return size[-1] if len(size) > 1 and size[-1] == size[-2] else None


def _images(config: Config, timm: Config, prepared: Config, wrong: list[str]) -> str:
    """The size of the network's images, and how they are made of others."""
    size: Any = timm.get("input_size", config.get("image_size"))
    size = prepared.get("size", size)
    if prepared.get("do_center_crop") is not False:
        size = prepared.get("crop_size", size)
    if type(size) is dict:
        size = size.get("height", size.get("shortest_edge"))
    if type(size) is list and size:
        size = size[-1]
    if size is None:
        return ""
    if type(size) is not int or not 0 < size <= _LARGEST_SIDE:
        wrong.append("the image size")
        return ""
    words = [f"the network's images have {size}x{size} pixels"]
    resample = prepared.get("resample")
    filtered = _RESAMPLING.get(resample) if type(resample) is int else None
    filtered = filtered or timm.get("interpolation")
    if filtered in _FILTERS:
        words.append(f"{filtered} resizing")
    elif filtered is not None:
        wrong.append("interpolation")
    share = prepared.get("crop_pct", timm.get("crop_pct"))
    if type(share) in (int, float) and 0 < share <= 1:
        words.append(f"the middle {share:.1%} of each side kept")
    elif share is not None:
        wrong.append("crop_pct")
    if preparation(config, prepared) is None:
        words.append(
            "but a scan does not prepare images so: it makes squares of "
            f"{_SIDES[0]} to {_SIDES[-1]} pixels that keep half of each side or more, "
            "and only where all is said"
        )
    return "config.json: " + ", ".join(words)


def _classes(config: Config, wrong: list[str]) -> str:
    """The names of the classes, the first of many."""
    named = config.get("id2label", config.get("label_names"))
    if named is None:
        return ""
    values = list(named.values()) if type(named) is dict else named
    if type(values) is not list or not all(type(value) is str for value in values):
        wrong.append("the names of classes")
        return ""
    shown = [errors.show(value, 40) for value in values[:_MOST_CLASSES]]
    more = len(values) - len(shown)
    listed = ", ".join(shown) + (f" and {more} more" if more else "")
    return f"config.json names {len(values)} classes: {listed}"
