"""Time per detector, each at its documented settings: seconds, passes, memory per model.

    python -m benchmarks.paper.time_per_detector --out FOLDER --data-dir TFDS    # CPU scale
    python -m benchmarks.paper.time_per_detector --full --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it. Trains one clean and one poisoned model of each architecture
for one epoch of 2,000 images, width 8 or with `--full` 64, and judges them: time does not
hang on what a model has learned, but for methods that stop early, whose time is that of
`benchmarks.paper.detection`.

What it gave: not run; the seconds of `benchmarks/results/paper_detection.json` are those of
trained models.
"""

import tyro

from benchmarks.paper import _steps

ARCHITECTURES = "resnet18,vgg16,densenet121"
DETECTORS = f"{_steps.SEVEN},mm_bd,trojan_signatures"


def steps(flags: _steps.Flags):
    """The commands, in order."""
    width = 64 if flags.full else 8
    told = (
        f"--data cifar10 --epochs 1 --num-train 2000 --num-test 500 --width {width} "
        f"--arch {ARCHITECTURES} --attacks clean,badnets --bar 0 --no-orbax"
    )
    yield _steps.train(flags, f"timed_w{width}", told)
    yield _steps.compare(
        flags, [f"{flags.out}/timed_w{width}"], DETECTORS, f"times_w{width}"
    )


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if _steps.run(flags, steps(flags)):
        width = 64 if flags.full else 8
        _steps.write_comparisons(
            flags, "time_per_detector", {f"width {width}": [f"times_w{width}"]}
        )


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
