"""Time per detector, each at its documented settings: seconds, passes, memory per model.

    python -m benchmarks.paper.time_per_detector --out FOLDER --data-dir TFDS    # CPU scale
    python -m benchmarks.paper.time_per_detector --full --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it. Trains one clean and one poisoned model for one epoch of
2,000 images and judges them: time does not hang on what a model has learned, but for
methods that stop early, whose time is that of `benchmarks.paper.detection`, and for `ban`,
which looks closer at trained models that nothing flags so far. `--full` is ResNet18, VGG16
and DenseNet121 of width 64, every count the documented one.

CPU scale is ResNet18 of width 8. What takes hours there runs with its counts divided so
that it spends `PASSES` forward-equivalents. Time at the documented counts is a product
where fewer were spent: measured seconds times documented passes by passes spent. Methods
that stop early, and `ban`, take that long at most.

What it gave: `benchmarks/results/paper_time_per_detector.json`, a table of
`docs/results.md`. `--full` was not run.
"""

from collections.abc import Mapping
from typing import Any

import tyro

from ban_jax import detectors
from benchmarks.paper import _joined, _steps

ARCHITECTURES = "resnet18,vgg16,densenet121"
QUICK = ("ban", "weights", "trojan_signatures")
SHORT = (
    *("mm_bd", "neural_cleanse", "tabor"),
    *("feature_re", "unicorn", "bti_dbf", "bti_dbf_star"),
)
PASSES = 4000
"""Forward-equivalents a candidate, where the documented counts take hours.

Fewer than the least counts of most methods, which then spend those.
"""
NUM_CLASSES = 10
"""Of CIFAR-10."""
DETECTORS = ",".join((*QUICK, *SHORT))


def steps(flags: _steps.Flags):
    """The commands, in order."""
    width, arch = (64, ARCHITECTURES) if flags.full else (8, "resnet18")
    told = (
        f"--data cifar10 --epochs 1 --num-train 2000 --num-test 500 --width {width} "
        f"--arch {arch} --attacks clean,badnets --bar 0 --no-orbax"
    )
    yield _steps.train(flags, f"timed_w{width}", told)
    zoos = [f"{flags.out}/timed_w{width}"]
    if flags.full:
        yield _steps.compare(flags, zoos, DETECTORS, "times_w64")
        return
    yield _steps.compare(flags, zoos, ",".join(QUICK), "times_w8")
    for name in SHORT:
        limit = ("--passes", str(PASSES))
        yield _steps.compare(flags, zoos, name, f"short_{name}", given=limit)


def rows_of(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What its methods took, and what their documented counts would take."""
    rows = []
    for method in comparison["methods"]:
        name, spent = method["name"], method["forward_equivalents"]
        work = most_work(name, comparison["flags"]["num_clean"])
        is_product = work > spent
        rows.append(
            {
                "detector": name,
                "seconds_measured": method["seconds"],
                "passes_measured": spent,
                "chunk_bytes": method["chunk_bytes"],
                "is_product": is_product,
                "passes": work,
                "seconds": method["seconds"] * (work / spent if is_product else 1),
            }
        )
    return rows


def most_work(name: str, images: int) -> int:
    """Passes of a candidate at documented counts, with a closer look at all classes."""
    first = detectors.DETECTORS[name]
    looks = [first]
    if first.further is not None:
        looks.append(detectors.DETECTORS[first.further])
    return sum(one.work(one.settings(), NUM_CLASSES, images) for one in looks)


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if not _steps.run(flags, steps(flags)):
        return
    if flags.full:
        _steps.write_comparisons(
            flags, "time_per_detector", {"width 64": ["times_w64"]}
        )
        return
    rows = []
    for folder in ("times_w8", *(f"short_{name}" for name in SHORT)):
        if (found := _joined.read(flags.out, [folder])) is not None:
            rows += rows_of(found)
    for one in rows:
        print(
            f"{one['detector']:18}{one['seconds']:>12,.1f} s {one['passes']:>15,.0f}"
            + (" (a product)" if one["is_product"] else "")
        )
    _steps.write(
        flags, "time_per_detector", {"width": 8, "passes": PASSES, "rows": rows}
    )


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
