"""Detection on CIFAR-10: architectures x attacks x detectors, and what they cost.

    python -m benchmarks.paper.detection --out FOLDER --data-dir TFDS    # CPU scale
    python -m benchmarks.paper.detection --full --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it (`ban-jax prepare cifar10`). CPU scale judges the models of
`benchmarks/zoo/` (width 8, 32x32), failed backdoors left out, and the twelve that ship
with the package (digits, 8x8, width 4). Inversions would take hours by their own counts:
each may spend `PASSES` per candidate, BTI-DBF's own number. Each is a command and a folder
of its own: `--only inverted_tabor` runs one, several may run side by side, and `--collect`
joins what is there into one table. `--full` trains 20 models of clean, BadNets, Blend,
WaNet, IAD and Bpp for each of ResNet18, VGG16 and DenseNet121 at width 64 (200 epochs, the
rate divided by 10 at 100 and 150), then judges them: 360 trainings, for a GPU. Both go on
where they were stopped.

What it gave: `benchmarks/results/paper_detection.json` and, of `--only digits_few`,
`paper_detection_digits.json`, told in `docs/methods.md`. Tables whose runs were not made
are missing in them (`--collect` writes what there is).
"""

import functools

import tyro

from ban_jax.zoo import BUNDLED
from benchmarks.paper import _steps

ARCHITECTURES = ("resnet18", "vgg16", "densenet121")
KINDS = {
    _steps.QUICK: ("clean", "badnets", "blend"),
    _steps.SLOW: ("wanet", "iad", "bpp"),
}
CHEAP = "ban,targeted,weights,trojan_signatures"
INVERSIONS = tuple(
    "neural_cleanse tabor feature_re unicorn bti_dbf bti_dbf_star".split()
)
DETECTORS = ",".join((CHEAP, "mm_bd", *INVERSIONS))
PASSES = 1_240_000
"""Forward-equivalents per candidate: what BTI-DBF's documented counts take."""


FEW_PASSES = 124_000
"""Of all inversions alike, on the digits models: what two cores do in minutes each."""
FEW = f"digits, width 4, inversions at {FEW_PASSES:,} passes"


def steps(flags: _steps.Flags):
    """The commands, in order."""
    if not flags.full:
        compare = functools.partial(_steps.compare, flags)
        limit = ("--passes", str(PASSES))
        yield compare([_steps.ZOO], CHEAP, "compared")
        alone = compare([_steps.ZOO], "ban", "without_profile")
        yield [*alone, "--profile", "none"]
        yield compare([BUNDLED], f"{CHEAP},mm_bd", "digits", "digits")
        for name in INVERSIONS:
            place = f"digits_inverted_{name}"
            yield compare([BUNDLED], name, place, "digits", limit)
        few = ("--passes", str(FEW_PASSES))
        yield compare([BUNDLED], ",".join(INVERSIONS), "digits_few", "digits", few)
        yield compare([_steps.ZOO], "mm_bd", "mm_bd")
        for name in INVERSIONS:
            yield compare([_steps.ZOO], name, f"inverted_{name}", given=limit)
        return
    for arch in ARCHITECTURES:
        for rate, kinds in KINDS.items():
            told = f"{_steps.SHARED} {rate} --width 64 --seeds {_steps.SEEDS}"
            given = ("--arch", arch, "--attacks", ",".join(kinds))
            yield _steps.train(flags, folder(arch, rate), told, *given)
    for arch in ARCHITECTURES:
        zoos = [f"{flags.out}/{folder(arch, rate)}" for rate in KINDS]
        yield _steps.compare(flags, zoos, DETECTORS, f"compared_{arch}")


def folder(arch: str, rate: str) -> str:
    """Of the models of an architecture that are trained at a rate."""
    return f"{arch}_{rate.split()[-1]}"


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if _steps.run(flags, steps(flags)):
        limit = f"inversions at {PASSES:,} passes"
        folders = {
            "CIFAR-10, width 8": ["compared"],
            "CIFAR-10, width 8, without the shipped profile": ["without_profile"],
            "CIFAR-10, width 8, MM-BD": ["mm_bd"],
            f"CIFAR-10, width 8, {limit}": [f"inverted_{n}" for n in INVERSIONS],
            "digits, width 4": ["digits"],
            f"digits, width 4, {limit}": [f"digits_inverted_{n}" for n in INVERSIONS],
            FEW: ["digits_few"],
        }
        if flags.full:
            folders = {arch: [f"compared_{arch}"] for arch in ARCHITECTURES}
        _steps.write_comparisons(flags, "detection", folders)


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
