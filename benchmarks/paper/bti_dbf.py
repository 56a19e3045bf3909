"""BTI-DBF against BTI-DBF*: what a norm on the benign mask is worth.

    python -m benchmarks.paper.bti_dbf --out FOLDER --data-dir TFDS    # CPU scale
    python -m benchmarks.paper.bti_dbf --full --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it. CPU scale judges the models of `benchmarks/zoo/`; `--full`
the ResNet18 models that `benchmarks.paper.detection --full` trains in the same `--out`.

What it gave: nothing yet. On the twelve digits models both were run at a tenth of their
counts (`benchmarks/results/paper_detection_digits.json`). Neither was run to the end on
either zoo: that takes hours on two cores, and on an accelerator both were stopped before
they ended (`not_finished` in `benchmarks/results/paper_detection_h100.json`).
"""

import tyro

from benchmarks.paper import _steps, detection

DETECTORS = "bti_dbf,bti_dbf_star"


def zoos(flags: _steps.Flags) -> list[str]:
    """Folders whose models are judged."""
    if not flags.full:
        return [_steps.ZOO]
    return [
        f"{flags.out}/{detection.folder('resnet18', rate)}" for rate in detection.KINDS
    ]


def main(flags: _steps.Flags) -> None:
    """Runs the step and writes the result file."""
    step = _steps.compare(flags, zoos(flags), DETECTORS, "bti_dbf")
    if _steps.run(flags, [step]):
        _steps.write_comparisons(
            flags, "bti_dbf", {"BTI-DBF and BTI-DBF*": ["bti_dbf"]}
        )


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
