"""Cost per candidate as their number grows: hundreds of distinct models, one scan.

    python -m benchmarks.scan_scale

The files are copies of the models that ship with the package, every weight moved by up to
a thousandth of itself, so each has weights, a hash and a verdict of its own. Timed is the
whole command, from reading the clean images to writing the report, in a process that has
compiled its programs on a smaller scan before.
"""

import contextlib
import dataclasses
import glob
import os
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tyro

from ban_jax import checkpoints
from ban_jax.commands import scan as scan_command
from benchmarks import _plot, _timing

WARMUP = 4
"""Candidates of the scan before, which compiles."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    counts: candidates of each scan.
    repeats: scans of each count.
    models: the files copied; one architecture, so that one program serves all.
    mode: detector.
    name: of the result file.
    results: its folder.
    """

    counts: tuple[int, ...] = (16, 64, 250, 500)
    repeats: int = 2
    models: str = os.path.join(scan_command.BUNDLED, "resnet18_w4_*.safetensors")
    mode: str = "targeted"
    name: str = "scan_scale"
    results: str | None = None


def copies(models: Sequence[str], folder: str, count: int) -> list[str]:
    """Writes `count` distinct files and returns their paths."""
    rng = np.random.default_rng(0)
    read = [checkpoints.read(path) for path in models]
    paths = []
    for index in range(count):
        model = read[index % len(read)]
        variables = model.full_variables()
        moved = {
            kind: _moved(leaves, rng) if kind == "params" else leaves
            for kind, leaves in variables.items()
        }
        paths.append(os.path.join(folder, f"model_{index:04}.safetensors"))
        checkpoints.write_safetensors(paths[-1], moved, model.spec)
    return paths


def _moved(tree, rng: np.random.Generator):
    if isinstance(tree, dict):
        return {name: _moved(leaf, rng) for name, leaf in tree.items()}
    factors = 1 + 1e-3 * rng.uniform(-1, 1, np.shape(tree))
    return (tree * factors).astype(np.float32)


def seconds_of(paths: Sequence[str], mode: str) -> float:
    """Wall seconds of one whole scan that finds its programs compiled."""
    with (
        tempfile.TemporaryDirectory() as out,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        flags = scan_command.Flags(
            paths=tuple(paths), data="digits", mode=mode, out=out
        )
        start = time.perf_counter()
        scan_command.run(flags)
        return time.perf_counter() - start


def main(flags: Flags) -> None:
    """Times, prints and writes."""
    machine = _timing.hardware()
    with tempfile.TemporaryDirectory() as folder:
        models = sorted(glob.glob(flags.models))
        paths = copies(models, folder, max(flags.counts))
        seconds_of(paths[:WARMUP], flags.mode)
        rows = []
        for count in flags.counts:
            each = [
                seconds_of(paths[:count], flags.mode) / count
                for _ in range(flags.repeats)
            ]
            rows.append({"candidates": count, "seconds": _timing.summary(each)})
            print(rows[-1], flush=True)
    means = [row["seconds"]["mean"] for row in rows]
    _timing.write_result(
        flags.name,
        {
            "mode": flags.mode,
            "models": [os.path.basename(path) for path in models],
            "per_candidate": rows,
            "largest_over_smallest": max(means) / min(means),
        },
        machine=machine,
        folder=flags.results,
    )
    _plot.lines(
        flags.name,
        {flags.mode: list(zip(flags.counts, means, strict=True))},
        x="candidates",
        y="seconds per candidate",
        log_x=True,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
