"""What is known of a checkpoint besides its weights: normalisation, recorded accuracy.

Looked up in this order, the first answer wins: a normalisation layer inside the model;
the file's own remarks (ours in safetensors and Orbax, entries beside the state dict in
PyTorch files); `config.json` and `preprocessor_config.json` beside it (timm and Hugging
Face, see `configs`); `zoo.json` beside it, a list of objects with `name` (the file's,
without suffix) and perhaps `clean_accuracy` and `normalisation` `{"mean": [...], "std":
[...]}`.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ban_jax.checkpoints import (
    beside,
    candidate,
    configs,
    contents,
    convert,
    discovery,
    errors,
    file_bytes,
    json_text,
    limits,
    part_paths,
    pixels,
    recognise,
    sharded,
    tensor,
)

if TYPE_CHECKING:
    from ban_jax.data import preparation as preparations

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
OURS = "ban_jax"
"""Key of our own remarks, a JSON text, in safetensors and Orbax metadata."""
_OWN_LAYER = "the model's own layer"
_LEAST_STD = 1e-3
"""Of pixels in [0, 1]; 1/255 is that of networks for pixels up to 255."""
_REVERSED = (0.406, 0.456, 0.485)
"""Means of ImageNet's blue, green and red: of networks that came from Caffe."""
_ACCURACIES = ("clean_accuracy", "best_clean_acc", "clean_acc", "test_clean_acc")
_CONFIGURED = ("model.safetensors", "pytorch_model.bin", "pytorch_model.safetensors")


def lookup(
    path: str,
    content: contents.Contents,
    found: recognise.Recognised,
) -> tuple[Normalisation | None, str | None, float | None, list[str]]:
    """Normalisation, where it was found, the recorded accuracy, and notes.

    Among the notes is what the container's own checksums say of the weights.
    """
    assert found.spec is not None
    notes = _checksums(found)
    normalisation = source = accuracy = None
    for remarks, label in _remarks(path, content, found, notes):
        if normalisation is None:
            normalisation = _normalisation(
                remarks, found.spec.in_channels, label, notes
            )
            source = label if normalisation is not None else None
        if accuracy is None:
            accuracy = _accuracy(remarks)
        classes = remarks.get("num_classes")
        if type(classes) is int and classes != found.spec.num_classes:
            notes.append(
                f"{label} says {classes} classes, the last layer has "
                f"{found.spec.num_classes}"
            )
    return normalisation, source, accuracy, notes


def _checksums(found: recognise.Recognised) -> list[str]:
    """What PyTorch does not look at: a file can be changed or damaged and still load."""
    wrong = tensor.wrong_checksums(found.tensors.values())
    if not wrong:
        return []
    names = errors.listing([errors.show(key) for key in wrong], 5)
    return [
        f"{len(wrong)} storages have another checksum than the archive gives them, which "
        f"PyTorch does not check: {names}"
    ]


def _remarks(
    path: str,
    content: contents.Contents,
    found: recognise.Recognised,
    notes: list[str],
) -> Iterator[tuple[Mapping[str, Any], str]]:
    if found.mean is not None and found.std is not None:
        yield {"mean": found.mean, "std": found.std}, _OWN_LAYER
    if OURS in content.metadata:
        try:
            ours = json_text.loads(content.metadata[OURS].encode())
        except ValueError:
            ours = None
        if type(ours) is dict:
            yield ours, "the file"
    if type(content.root) is dict:
        yield content.root, "the file"
    if not path:
        return  # read from memory: there is nothing beside it
    folder, name = os.path.split(os.path.abspath(path))
    config, prepared = _configs(path, notes)
    if config or prepared:
        notes += configs.notes(config, prepared)
        yield configs.remarks(config), "config.json"
        yield configs.constants(prepared), "preprocessor_config.json"
    zoo = _json(os.path.join(folder, "zoo.json"), notes)
    for entry in zoo if type(zoo) is list else ():
        if type(entry) is dict and entry.get("name") in (name, discovery.stem(name)):
            yield entry, "zoo.json"
            break


def with_stem(path: str, spec: candidate.ModelSpec) -> tuple[candidate.ModelSpec, bool]:
    """The network with the stem that `config.json` names, and whether it names one."""
    module = spec.create()
    if not path or not module.alike:
        return spec, False
    config, _ = _configs(path, [])
    stem = configs.stem(config, spec.architecture, module)
    if stem is None:
        return spec, False
    return dataclasses.replace(spec, stem=stem), True


def preparation(path: str) -> "preparations.Preparation | None":
    """How images become a checkpoint's, as the configs beside it say; None: they do not.

    Args:
      path: of a file, or of a part of it.
    """
    return configs.preparation(*_configs(part_paths.split(path)[0], []))


def _configs(
    path: str, notes: list[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`config.json` and `preprocessor_config.json` beside a file that has them."""
    folder, name = os.path.split(os.path.abspath(path))
    if sharded.whole_name(name) not in _CONFIGURED:
        return {}, {}
    config, prepared = (
        _json(os.path.join(folder, other), notes)
        for other in ("config.json", "preprocessor_config.json")
    )
    return (
        config if type(config) is dict else {},
        prepared if type(prepared) is dict else {},
    )


def _json(path: str, notes: list[str]) -> Any:
    try:
        status = os.stat(path)
    except OSError:
        return None
    try:
        return _load_json(path, *beside.version(status))
    except (OSError, ValueError) as error:
        notes.append(
            f"{os.path.basename(path)} cannot be read: {errors.show(str(error), 300)}"
        )
        return None


@functools.lru_cache(maxsize=4)
def _load_json(path: str, *_: int) -> Any:
    return json_text.loads(bytes(file_bytes.read(path, limits.MAX_JSON)[:]))


def _normalisation(
    remarks: Mapping[str, Any], channels: int, label: str, notes: list[str]
) -> Normalisation | None:
    for name in ("normalisation", "normalization", "norm_par"):
        if type(remarks.get(name)) is dict:
            remarks = remarks[name]
            break
    if "mean" not in remarks or "std" not in remarks:
        return None
    mean = convert.numbers(remarks["mean"])
    std = convert.numbers(remarks["std"])
    if (
        mean is None
        or std is None
        or len(mean) not in (1, channels)
        or len(std) not in (1, channels)
        or not all(map(math.isfinite, mean))
        or not all(math.isfinite(value) and value > 0 for value in std)
    ):
        notes.append(f"the normalisation in {label} is not of {channels} channels")
        return None
    mean = mean * channels if len(mean) == 1 else mean
    std = std * channels if len(std) == 1 else std
    if max(*map(abs, mean), *std) > pixels.LARGEST:
        notes.append(
            f"the normalisation in {label} is for pixels of 0..255: it is divided by 255"
        )
        mean, std = ([value / 255 for value in part] for part in (mean, std))
    # Images would all be alike to the network, or none would be what it has seen.
    is_usual = max(*map(abs, mean), *std) <= pixels.LARGEST and min(std) >= _LEAST_STD
    if not is_usual and label != _OWN_LAYER:
        notes.append(
            f"the normalisation in {label} is none of images: it is not taken; expected "
            f"means and deviations up to {pixels.LARGEST:g}, and no deviation below "
            f"{_LEAST_STD:g}"
        )
        return None
    if channels == 3 and np.allclose(mean, _REVERSED, rtol=0, atol=0.003):
        notes.append(
            f"the normalisation in {label} is ImageNet's in the order blue, green, red: if "
            "the network takes its channels so, its clean accuracy is lower here"
        )
    return tuple(mean), tuple(std)


def _accuracy(remarks: Mapping[str, Any]) -> float | None:
    """Programs write it as a share or in percent."""
    names = _ACCURACIES + (("acc",) if "net" in remarks else ())
    for name in names:
        values = convert.numbers(remarks.get(name))
        if values is not None and len(values) == 1 and math.isfinite(values[0]):
            value = values[0] / 100 if values[0] > 1 else values[0]
            if 0 < value <= 1:
                return value
    return None
