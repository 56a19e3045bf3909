"""Zoos of several trainings as one small zoo, its weights in half precision.

    python -m benchmarks.zoo_pack FOLDER [FOLDER=RECIPE ...] --out benchmarks/zoo

Takes folders written by `ban-jax train`. A model keeps its name and gets that of its recipe
behind it; its entry in `zoo.json` gains `recipe`, `source` (the folder it was trained in)
and `training` (the settings of that training). The same command goes on where it was
stopped, and with more folders the zoo grows. Figures are those of the folders:
`benchmarks.measure_excess` completes older ones before.
"""

import collections
import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import safetensors
import tyro
from safetensors import numpy as safetensors_numpy

from ban_jax.attacks import files
from ban_jax.storage import atomic, run_folder
from ban_jax.zoo import listing
from benchmarks import _zoo, _zoo_files

MAKING = {"made_by": "python -m benchmarks.zoo_pack", "weights": "float16"}
"""Of every packed zoo: `ban-jax train` refuses to write into one."""
TRAINING = ("num_train", "num_test", "image_size", "precision", "bar")
"""Settings beside the recipe's that entries keep."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is packed.

    Attributes:
      sources: folders written by `ban-jax train`, each as FOLDER=RECIPE, or as FOLDER
        whose name is the recipe's behind digits and an underscore (`07_smooth`).
      out: the packed zoo's folder.
      largest_trigger: bytes up to which a trigger file is kept. Those of generators are
        larger by default: their models have no trigger in the packed zoo, and the figures
        measured before.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: str = "benchmarks/zoo"
    largest_trigger: int = 40_000


class Weights(NamedTuple):
    """What a safetensors file holds: arrays by PyTorch's names, and its remarks."""

    arrays: Mapping[str, np.ndarray]
    remarks: Mapping[str, str]


class Packed(NamedTuple):
    """A model on its way into the zoo.

    Attributes:
      folder: it was trained in.
      old: its entry there.
      entry: its entry in the packed zoo.
      weights: to be written.
    """

    folder: str
    old: Mapping[str, Any]
    entry: dict[str, Any]
    weights: Weights


def recipe_of(source: str) -> tuple[str, str]:
    """A folder and the name of its recipe, as `Flags.sources` has them."""
    folder, given, recipe = source.rpartition("=")
    if not given or os.path.isdir(source):
        folder = source
        recipe = re.sub(r"^\d+_", "", os.path.basename(os.path.normpath(source)))
    if not re.fullmatch(r"[\w-]+", recipe):
        raise ValueError(
            f"{source}: expected a recipe's name of letters, digits, _ and - "
            f"(FOLDER=RECIPE), found {recipe!r}"
        )
    return folder, recipe


def read(path: str) -> Weights:
    """All of a safetensors file of our own."""
    with safetensors.safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        return Weights(arrays, file.metadata() or {})


def halved(name: str, array: np.ndarray) -> np.ndarray:
    """An array in float16; as it is where that would lose more than digits.

    Finite values must stay finite, and no BatchNorm variance may become 0. A weight may:
    one below 3e-8 adds nothing to a sum.
    """
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float16)
    lost = np.isfinite(array) & ~np.isfinite(narrow)
    if name.endswith("running_var"):
        lost |= (array != 0) & (narrow == 0)
    return array if lost.any() else narrow


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether two files hold the same arrays, bit by bit."""
    return one.keys() == other.keys() and all(
        array.dtype == other[name].dtype and array.tobytes() == other[name].tobytes()
        for name, array in one.items()
    )


def models_of(source: str, largest_trigger: int) -> Iterable[Packed]:
    """The models of one folder, as the packed zoo lists them."""
    folder, recipe = recipe_of(source)
    path = os.path.join(folder, run_folder.CONFIG)
    if not os.path.isfile(path):
        raise listing.ZooError(
            f"{path}: expected what `ban-jax train` writes, found none"
        )
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    start = config.get("start_from")
    training = {
        **config["recipe"],
        **{name: config.get(name) for name in TRAINING},
        "start_from": os.path.basename(start) if start else None,
    }
    # A training that has just begun lists nothing yet.
    begun = os.path.isfile(os.path.join(folder, listing.INDEX))
    for old in _zoo.entries(folder) if begun else ():
        name, trigger = f"{old['name']}_{recipe}", old["trigger_file"]
        if trigger:
            size = os.path.getsize(os.path.join(folder, trigger))
            trigger = (
                f"triggers/{name}{files.SUFFIX}" if size <= largest_trigger else None
            )
        arrays, remarks = read(os.path.join(folder, old["file"]))
        entry = {
            **old,
            "name": name,
            "file": f"{name}.safetensors",
            "orbax": None,
            "trigger_file": trigger,
            "recipe": recipe,
            "source": os.path.basename(os.path.normpath(folder)),
            "training": training,
        }
        narrow = {key: halved(key, array) for key, array in arrays.items()}
        yield Packed(folder, old, entry, Weights(narrow, remarks))


def check(packed: Sequence[Packed], zoo: listing.ZooFolder) -> None:
    """Refuses two different models of one name; one that was trained anew is no other.

    Raises:
      ZooError: before anything is written.
    """
    places = {entry["name"]: (entry["source"], None) for entry in zoo.entries}
    for model in packed:
        name, source = model.entry["name"], model.entry["source"]
        other, arrays = places.setdefault(name, (source, model.weights.arrays))
        if other == source and arrays is None:
            continue
        if arrays is None:
            arrays = read(zoo.file(model.entry["file"])).arrays
        if not same(arrays, model.weights.arrays):
            raise listing.ZooError(
                f"{model.folder}: its {model.old['name']} is another model than the one "
                f"of the same name and recipe from {other}; name its recipe otherwise "
                f"({model.folder}=RECIPE)"
            )


def pack(model: Packed, zoo: listing.ZooFolder) -> str:
    """Brings a model into the zoo unless it is there; what became of it.

    A weights file is left as it is where it holds these weights.
    """
    name, entry, fate = model.entry["name"], model.entry, "added"
    if zoo.holds(name):
        fate = "replaced"
        if same(read(zoo.file(entry["file"])).arrays, model.weights.arrays):
            fate = "there already" if entry in zoo.entries else "listed anew"
    if fate == "there already":
        return fate
    if fate != "listed anew":
        zoo.write(entry["file"], functools.partial(save, model.weights))
    if entry["trigger_file"]:
        source = os.path.join(model.folder, model.old["trigger_file"])
        zoo.write(entry["trigger_file"], _zoo_files.copy_of(source))
    zoo.add(entry)
    whole = [
        key for key, array in model.weights.arrays.items() if array.dtype == np.float32
    ]
    kept = f"; in float32: {', '.join(whole)}" if whole else ""
    left_out = model.old["trigger_file"] and not entry["trigger_file"]
    print(f"{name}: {fate}{kept}{'; without its trigger' if left_out else ''}")
    return fate


def save(weights: Weights, path: str) -> None:
    """Writes a safetensors file; it appears whole or not at all."""
    with atomic.replacing(path) as temporary:
        safetensors_numpy.save_file(
            dict(weights.arrays), temporary, dict(weights.remarks)
        )


def size_of(zoo: listing.ZooFolder) -> str:
    """How large the zoo is, in words."""
    sizes = collections.Counter()
    for entry in zoo.entries:
        sizes["weights"] += os.path.getsize(zoo.file(entry["file"]))
        if entry["trigger_file"]:
            sizes["triggers"] += os.path.getsize(zoo.file(entry["trigger_file"]))
    parts = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
    return f"{len(zoo.entries)} models, {sum(sizes.values()) / 1e6:.2f} MB in all ({parts})"


def main(flags: Flags) -> None:
    """Packs what is not packed yet, and says how large the zoo is."""
    packed = [
        model
        for source in flags.sources
        for model in models_of(source, flags.largest_trigger)
    ]
    zoo = listing.ZooFolder(flags.out, MAKING)
    check(packed, zoo)
    fates = collections.Counter(pack(model, zoo) for model in packed)
    print(zoo.summarise(), end="")
    print(", ".join(f"{count} {fate}" for fate, count in fates.items()))
    print(size_of(zoo))


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
