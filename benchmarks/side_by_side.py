"""How fast this checkout is against another one of this project, in turns.

    python -m benchmarks.side_by_side OLD_CHECKOUT [--repeats 3]

Both have a virtual environment of their own in `.venv`. Each piece of work is run once by
either checkout to fill its own compilation cache, then `repeats` times by one after the
other: old, new, old, new, so that a busy moment hits both. What is told are the ratios
new/old of each pair.

scan_MODE    `ban-jax scan` of the bundled zoo: the whole command, and the scan itself,
             without the start of Python and the report, as `--profile` tells
train        a few small models on digits, whole command
repair       of one bundled model, whole command
"""

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from benchmarks import _command, _timing

BUNDLED = ("ban_jax/zoo/bundled", "ban_jax/zoo")
"""Where checkouts have kept their zoo, the latest place first."""
REPAIRED = "resnet18_w4_badnets_t1_s0.safetensors"
TRAIN = (
    "--data digits --arch resnet18 --width 4 --attacks clean,badnets --epochs 2"
    " --num-train 512 --batch-size 64 --no-orbax"
).split()
REPAIR = "--data digits --method ban --ban.epochs 2 --no-orbax".split()


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    old: the other checkout.
    new: this one.
    repeats: pairs of runs, after one pair that compiles.
    work: what to time: `scan_MODE`, `train`, `repair`.
    name: of the result file.
    results: its folder.
    """

    old: Annotated[str, tyro.conf.Positional]
    new: str = _timing.CHECKOUT
    repeats: int = 3
    work: tuple[str, ...] = ("scan_targeted", "scan_ban", "train", "repair")
    name: str = "side_by_side"
    results: str | None = None


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A working copy that can be run.

    Attributes:
      folder: its root.
      cache: folder of its compiled programs.
    """

    folder: str
    cache: str

    def run(self, words: Sequence[Any], fine: Sequence[int] = (0,)) -> float:
        """Wall seconds of one of its commands."""
        return _command.ban_jax(
            words,
            fine=fine,
            python=os.path.join(self.folder, ".venv", "bin", "python"),
            folder=self.folder,  # of two copies, the one at hand is imported
            BAN_JAX_CACHE=self.cache,
        ).seconds

    def zoo(self) -> str:
        """Folder of the models it ships."""
        for name in BUNDLED:
            path = os.path.join(self.folder, name)
            if os.path.exists(os.path.join(path, "zoo.json")):
                return path
        raise SystemExit(f"{self.folder}: no zoo.json in {' or '.join(BUNDLED)}")


def scan(checkout: Checkout, mode: str) -> dict[str, float]:
    """Seconds of the command and, by its own clock, of the scan."""
    with tempfile.TemporaryDirectory() as out:
        profile = os.path.join(out, "profile.json")
        words = ["scan", checkout.zoo(), "--data", "digits", "--mode", mode]
        words += ["--out", out, "--profile", profile]
        seconds = checkout.run(words, _command.JUDGED)
        with open(profile, encoding="utf-8") as file:
            inside = json.load(file)["otherData"]["wall_seconds"]
    return {"command": seconds, "scan": inside}


def train(checkout: Checkout) -> dict[str, float]:
    """Seconds of a small training."""
    with tempfile.TemporaryDirectory() as out:
        return {"command": checkout.run(["train", "--out", out, *TRAIN])}


def repair(checkout: Checkout) -> dict[str, float]:
    """Seconds of a small repair."""
    model = os.path.join(checkout.zoo(), REPAIRED)
    with tempfile.TemporaryDirectory() as out:
        words = ["repair", model, "--out", out, *REPAIR]
        return {"command": checkout.run(words, _command.JUDGED)}


def work_of(name: str) -> Callable[[Checkout], dict[str, float]]:
    """The work of a name.

    Raises:
      SystemExit: for an unknown one.
    """
    kind, _, mode = name.partition("_")
    if kind == "scan" and mode:
        return lambda checkout: scan(checkout, mode)
    if name not in ("train", "repair"):
        raise SystemExit(f"--work must be scan_MODE, train or repair, got {name}")
    return {"train": train, "repair": repair}[name]


def compared(
    old: Sequence[dict[str, float]], new: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Per clock: seconds of both, and the ratios new/old of pairs with their median."""
    told = {}
    for clock in old[0]:
        before, after = ([run[clock] for run in runs] for runs in (old, new))
        ratios = [b / a for a, b in zip(before, after, strict=True)]
        told[clock] = {
            "old_seconds": _timing.summary(before),
            "new_seconds": _timing.summary(after),
            "ratio": {**_timing.summary(ratios), "max": max(ratios)},
        }
    return told


def main(flags: Flags) -> None:
    """Times in turns, prints and writes."""
    machine = _timing.hardware()
    functions = {name: work_of(name) for name in flags.work}
    with tempfile.TemporaryDirectory() as folder:
        pair = [
            Checkout(os.path.abspath(path), os.path.join(folder, name))
            for name, path in (("old", flags.old), ("new", flags.new))
        ]
        told = {}
        for name, function in functions.items():
            for checkout in pair:  # compiles
                function(checkout)
            runs = [[function(one) for one in pair] for _ in range(flags.repeats)]
            told[name] = compared(*map(list, zip(*runs, strict=True)))
            for clock, found in told[name].items():
                ratio = found["ratio"]
                print(
                    f"{name} {clock}: new/old {ratio['median']:.3f} "
                    f"({ratio['min']:.3f} to {ratio['max']:.3f})",
                    flush=True,
                )
    path = _timing.write_result(
        flags.name,
        {
            "old": _timing.commit(pair[0].folder),
            "new": _timing.commit(pair[1].folder),
            "repeats": flags.repeats,
            "work": told,
        },
        # Where checkouts lie is no part of the result.
        command=f"python -m benchmarks.side_by_side OLD --repeats {flags.repeats}",
        machine=machine,
        folder=flags.results,
    )
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
