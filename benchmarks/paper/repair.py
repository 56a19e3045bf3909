"""Repair: accuracy and attack success before and after BAN's fine-tuning and others.

    python -m benchmarks.paper.repair --out FOLDER --data-dir TFDS            # CPU scale
    python -m benchmarks.paper.repair --out FOLDER --data-dir TFDS --full     # the paper's

Needs CIFAR-10 as TFDS has it, and trained models with their triggers: at CPU scale a zoo of
width 8 at 16x16 that is trained first (clean, BadNets, Blend and Bpp, two of each, half an
hour on two cores); with `--full` the ResNet18 models of `benchmarks.paper.detection --full`
in the same `--out`. Each method is one `ban-jax repair`.

What it gave: `benchmarks/results/paper_repair.json`, two models of each kind. With the
default budget of three points most models, whose accuracy is 0.5 to 0.6, are left as they
were: `docs/repair.md` tells of it. What repairs do without a budget is in
`benchmarks/results/repair_quality.json`, of other models (`benchmarks.repair_quality`).
"""

import json
import os
import shlex
from typing import Any

import tyro

from benchmarks import _timing
from benchmarks.paper import _steps, detection

METHODS = ("finetune", "ban", "anp")
LINES = "repairs.jsonl"
FIGURES = ("clean_accuracy", "asr", "excess", "recovered_accuracy")
SMALL = (
    "--data cifar10 --image-size 16 --num-train 25000 --num-test 2000 --batch-size 64 "
    "--epochs 3 --crop 0 --learning-rate 0.1 --width 8 --stamp-last --no-orbax "
    "--cycle-targets --targets 0,3,6 --seeds 2 --badnets.rate 0.1 --blend.rate 0.1 "
    "--bpp.levels 4 --attacks clean,badnets,blend,bpp"
)


def zoos(flags: _steps.Flags) -> list[str]:
    """Folders whose models are repaired."""
    if not flags.full:
        return [f"{flags.out}/repair_zoo"]
    return [
        f"{flags.out}/{detection.folder('resnet18', rate)}" for rate in detection.KINDS
    ]


def steps(flags: _steps.Flags):
    """The commands, in order."""
    size = [] if flags.full else ["--image-size", "16"]
    if not flags.full:
        yield _steps.train(flags, "repair_zoo", SMALL)
    for method in METHODS:
        out = ["--method", method, "--out", f"{flags.out}/repaired_{method}"]
        words = ["repair", *zoos(flags), *_steps.data(flags), *size, *out, "--no-orbax"]
        yield [*words, *shlex.split(flags.more)]


def figures(folder: str) -> dict[str, Any]:
    """Per attack: models that were changed, means of accuracy and success."""
    with open(os.path.join(folder, LINES), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        kind = (line.get("attack") or {}).get("kind", "unknown")
        groups.setdefault(kind, []).append(line)
    return {
        kind: {
            "models": len(members),
            "changed": sum(
                _told(one, "before") != _told(one, "after") for one in members
            ),
            **{
                f"{name}_{when}": _timing.spread(
                    [_told(one, when)[name] for one in members]
                )
                for name in FIGURES
                for when in ("before", "after")
            },
        }
        for kind, members in sorted(groups.items())
    }


def _told(line: dict[str, Any], when: str) -> dict[str, float | None]:
    """The figures of a model; None where the repair or the trigger failed."""
    return {name: (line.get(when) or {}).get(name) for name in FIGURES}


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if _steps.run(flags, steps(flags)):
        found = {}
        for one in METHODS:
            folder = f"{flags.out}/repaired_{one}"
            if os.path.exists(os.path.join(folder, LINES)):
                found[one] = figures(folder)
            else:
                print(f"{one}: not run")
        _steps.write(flags, "repair", {"methods": found})


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
