"""What inversion methods cost: Neural Cleanse to its early stop, and eight models at once.

    python -m benchmarks.inversion_speed --data-dir TFDS --out FOLDER

Neural Cleanse judges a clean and a poisoned ResNet18 of width 8, trained on CIFAR-10 at
16x16, at its documented counts: it ends by its own early stop. Then each inversion method
judges ResNet18s of width 4 on digits, with counts that make `PASSES` forward-equivalents
or, where that is more, the least it allows (those that train a U-Net on fewer images,
`FEWER`): one model at a time on one thread (`--chunk 1`), two side by side as by default on
two cores, and eight with `--chunk 8`. Classes that can be searched apart are dealt out to
the threads of a chunk.

Told are seconds per candidate, compilation left out. Goes on where it was stopped.

What it gave: `benchmarks/results/inversion_speed.json`.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from benchmarks import _command, _timing
from benchmarks.paper import detection

PASSES = 4000
FEWER = {
    "bti_dbf": ("--bti_dbf.batches", "2"),
    "bti_dbf_star": ("--bti_dbf_star.batches", "2"),
    "feature_re": ("--feature_re.images-per-class", "2"),
    "unicorn": ("--unicorn.images-per-class", "1"),
}
"""Images of methods that train a U-Net, far larger than these candidates."""
LARGE = (
    "--data cifar10 --image-size 16 --width 8 --arch resnet18 --attacks clean,badnets"
    " --epochs 4 --num-test 2000 --bar 0 --no-orbax"
)
SMALL = (
    "--data digits --width 4 --arch resnet18 --attacks clean,badnets --seeds 4"
    " --epochs 2 --bar 0 --no-orbax"
)
FEW = "_s0"
"""Ends the names of the two of them that are judged alone and side by side."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    out: folder for models and evidence.
    data_dir: TFDS's folder.
    methods: that are run.
    name: of the result file.
    results: its folder.
    """

    out: str
    data_dir: str
    methods: tuple[str, ...] = detection.INVERSIONS
    name: str = "inversion_speed"
    results: str | None = None


def few_of(zoo: str, folder: str) -> str:
    """A zoo of those models alone whose names end in `FEW`."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(zoo, "zoo.json"), encoding="utf-8") as file:
        chosen = [entry for entry in json.load(file) if entry["name"].endswith(FEW)]
    for entry in chosen:
        shutil.copy(os.path.join(zoo, entry["file"]), folder)
    with open(os.path.join(folder, "zoo.json"), "w", encoding="utf-8") as file:
        json.dump(chosen, file)
    return folder


def trained(flags: Flags, name: str, told: str) -> str:
    """Folder of models that are trained once."""
    folder = os.path.join(flags.out, name)
    words = ["train", "--out", folder, "--data-dir", flags.data_dir, *told.split()]
    _command.ban_jax(words, log=None)
    return folder


def compared(
    flags: Flags, zoo: str, name: str, method: str, more: Sequence[str]
) -> dict[str, Any]:
    """What one method took, per candidate."""
    folder = os.path.join(flags.out, name)
    words = ["compare", zoo, "--detectors", method, "--data-dir", flags.data_dir]
    words += ["--out", folder, *more]
    print("ban-jax", *words, flush=True)
    _command.ban_jax(words, fine=_command.JUDGED, log=None)
    with open(os.path.join(folder, "comparison.json"), encoding="utf-8") as file:
        found = json.load(file)["methods"][0]
    return {name: found[name] for name in ("seconds", "forward_equivalents")}


def row(flags: Flags, zoo: str, method: str) -> dict[str, Any]:
    """One method: models alone, two and eight at once."""
    few = few_of(zoo, os.path.join(flags.out, "few"))
    given = ["--data", "digits", "--passes", str(PASSES), *FEWER.get(method, ())]
    ways = {
        "one": (few, ["--chunk", "1"]),
        "two": (few, []),
        "eight": (zoo, ["--chunk", "8"]),
    }
    found = {
        way: compared(flags, models, f"{method}_{way}", method, [*given, *more])
        for way, (models, more) in ways.items()
    }
    eight = found["eight"]["seconds"]
    return {
        "method": method,
        **found,
        "ratio_to_one": eight / found["one"]["seconds"],
        "ratio_to_two": eight / found["two"]["seconds"],
    }


def main(flags: Flags) -> None:
    """Trains, compares, and writes the figures."""
    machine = _timing.hardware()
    large = trained(flags, "cifar10", LARGE)
    more = ["--data", "cifar10", "--image-size", "16"]
    stopped = compared(flags, large, "to_its_stop", "neural_cleanse", more)
    print("Neural Cleanse to its early stop:", stopped, flush=True)
    small = trained(flags, "digits", SMALL)
    rows = []
    for method in flags.methods:
        rows.append(row(flags, small, method))
        print(rows[-1], flush=True)
    told = {"neural_cleanse_to_its_stop": stopped, "passes": PASSES, "rows": rows}
    _timing.write_result(flags.name, told, machine=machine, folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:], description=__doc__))
