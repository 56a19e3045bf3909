"""Detection where every method may spend the same time on a candidate.

    python -m benchmarks.paper.same_time --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it (`ban-jax prepare cifar10`), and an idle machine: seconds
become step counts by what a short run of each method measures (`ban_jax.comparing.budget`).
Judges the models of `benchmarks/zoo/` (width 8, 32x32), failed backdoors and the four
DenseNets left out (XLA takes minutes for each of their programs), by all detectors of the
paper's table at `SECONDS` per candidate, and BTI-DBF*.
BAN keeps its own counts, which take less. Each method is a command and a folder of its own:
`--only same_time_tabor` runs one, `--collect` joins what is there. No inversion comes near
its documented counts in that time on a CPU (`paper_time_per_detector.json`), so this tells
what each gives for BAN's price, not what it gives at its own. There is no other scale.

What it gave: `benchmarks/results/paper_same_time.json`, told in `docs/methods.md`.
"""

import tyro

from benchmarks.paper import _steps, detection

SECONDS = 5
"""Per candidate, all cores of the machine at work."""


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if flags.full:
        raise SystemExit("--full: this table has one scale; leave it out")
    names = ("ban", *detection.INVERSIONS)
    folders = [f"same_time_{name}" for name in names]
    steps = [
        _steps.compare(
            flags,
            [_steps.ZOO],
            name,
            place,
            given=(
                *("--exclude", "densenet*"),
                *(() if name == "ban" else ("--budget", str(SECONDS))),
            ),
        )
        for name, place in zip(names, folders, strict=True)
    ]
    if _steps.run(flags, steps):
        title = f"CIFAR-10, width 8, {SECONDS} s per candidate"
        _steps.write_comparisons(flags, "same_time", {title: folders})


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
