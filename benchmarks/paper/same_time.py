"""Detection where every method may spend the same time on a candidate.

    python -m benchmarks.paper.same_time --out FOLDER --data-dir TFDS

Needs CIFAR-10 as TFDS has it (`ban-jax prepare cifar10`), and an idle machine: seconds
become step counts by what a short run of each method measures (`ban_jax.comparing.budget`).
Judges the models of `benchmarks/zoo/` (width 8, 32x32), failed backdoors left out, by all
detectors of the paper's table at `SECONDS` per candidate, BTI-DBF* besides, and by MM-BD.
BAN keeps its own counts, which take less. Each method is a command and a folder of its own:
`--only same_time_tabor` runs one, `--collect` joins what is there. No inversion comes near
its documented counts in that time on a CPU (`paper_time_per_detector.json`), so this tells
what each gives for BAN's price, not what it gives at its own. There is no other scale.

What it gave: `benchmarks/results/paper_same_time.json`, told in `docs/methods.md`.
"""

import tyro

from benchmarks.paper import _steps, detection

SECONDS = 10
"""Per candidate, all cores of the machine at work."""
METHODS = ("mm_bd", *detection.INVERSIONS)


def main(flags: _steps.Flags) -> None:
    """Runs the steps and writes the result file."""
    if flags.full:
        raise SystemExit("--full: this table has one scale; leave it out")
    steps = [_steps.compare(flags, [_steps.ZOO], "ban", "same_time_ban")]
    for name in METHODS:
        limit = ("--budget", str(SECONDS))
        place = f"same_time_{name}"
        steps.append(_steps.compare(flags, [_steps.ZOO], name, place, given=limit))
    if _steps.run(flags, steps):
        title = f"CIFAR-10, width 8, {SECONDS} s per candidate"
        folders = [f"same_time_{name}" for name in ("ban", *METHODS)]
        _steps.write_comparisons(flags, "same_time", {title: folders})


if __name__ == "__main__":
    main(tyro.cli(_steps.Flags, description=__doc__))
