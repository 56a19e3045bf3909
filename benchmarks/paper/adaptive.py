"""Attacks made to evade detectors: Adap-Blend, and SSDT, which hits one class alone.

    python -m benchmarks.paper.adaptive --out FOLDER --data-dir TFDS    # CPU scale
    python -m benchmarks.paper.adaptive --full --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it. CPU scale trains three models of each kind and three clean
ones at width 8 (25,000 images, 3 epochs, the poison rate raised until the attack works at
that size; about two hours on two cores), then judges them. `--full` trains 20 of each at
width 64 and 200 epochs.

What it gave: not run; the one SSDT model of `benchmarks/zoo/` is part of
`benchmarks/results/paper_detection.json`.
"""

import tyro

from benchmarks.paper import _steps

SMALL = (
    "--data cifar10 --num-train 25000 --num-test 2000 --batch-size 64 --epochs 3 --crop 0 "
    "--learning-rate 0.1 --width 8 --stamp-last --no-orbax --cycle-targets --targets 0,3,7 "
    "--adap-blend.rate 0.03 --ssdt.width 8 --seeds 3"
)
DETECTORS = f"{_steps.SEVEN},mm_bd,trojan_signatures"


def steps(flags: _steps.Flags):
    """The commands, in order."""
    kinds = ("--attacks", "clean,adap_blend,ssdt")
    full = f"{_steps.SHARED} {_steps.QUICK} --width 64 --seeds {_steps.SEEDS}"
    yield _steps.train(flags, "adaptive", full if flags.full else SMALL, *kinds)
    yield _steps.compare(
        flags, [f"{flags.out}/adaptive"], DETECTORS, "compared_adaptive"
    )


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if _steps.run(flags, steps(flags)):
        _steps.write_comparisons(flags, "adaptive", {"adaptive": ["compared_adaptive"]})


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
