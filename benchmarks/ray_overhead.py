"""What `--engine ray` costs per candidate against the same scan in one process.

    python -m benchmarks.ray_overhead

Timed are whole commands on distinct models (`benchmarks.scan_scale` makes them), in turn,
each in a process of its own that finds its programs compiled: of few candidates, which is
mostly start, and of many. The difference of the two, per candidate, is what the engine
costs once all workers are there; the many alone tell what a user waits for. The evidence
of both is compared line for line.
"""

import dataclasses
import glob
import os
import sys
import tempfile
from typing import Any

import tyro

from ban_jax import records
from ban_jax.commands import scan as scan_command
from benchmarks import _command, _timing, scan_scale


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    few: candidates of the scan that is mostly start.
    many: candidates of the other.
    repeats: of each scan.
    mode: detector.
    worker_cpus: CPUs of each worker; there are as many workers as that leaves room for.
    models: the files copied; one architecture, so that one program serves all.
    results: folder of the result file.
    """

    few: int = 20
    many: int = 500
    repeats: int = 2
    mode: str = "ban"
    worker_cpus: int = 1
    models: str = os.path.join(scan_command.BUNDLED, "resnet18_w4_*.safetensors")
    results: str | None = None


def scanned(folder: str, out: str, flags: Flags, engine: str) -> float:
    """Wall seconds of one command."""
    words = ["scan", folder, "--data", "digits", "--mode", flags.mode, "--out", out]
    words += ["--engine", engine, "--no-resume"]
    if engine == "ray":
        words += ["--worker-cpus", str(flags.worker_cpus)]
    return _command.ban_jax(words, fine=_command.JUDGED).seconds


def lines(out: str) -> list[dict[str, Any]]:
    """What was measured, without the time it took."""
    found = records.load(os.path.join(out, "results.jsonl")).records
    return [{**line, "seconds": None} for line in found]


def main(flags: Flags) -> None:
    """Times, compares, prints and writes."""
    machine = _timing.hardware()
    seconds: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as base:
        counts = (flags.few, flags.many)
        for count in counts:
            os.mkdir(os.path.join(base, str(count)))
            scan_scale.copies(
                sorted(glob.glob(flags.models)), os.path.join(base, str(count)), count
            )
        for turn in range(flags.repeats + 1):
            for engine in ("process", "ray"):
                # The first turn compiles.
                for count in counts if turn else counts[:1]:
                    folder = os.path.join(base, str(count))
                    out = os.path.join(base, f"{engine}-{count}")
                    taken = scanned(folder, out, flags, engine)
                    print(engine, count, f"{taken:.1f} s", flush=True)
                    if turn:
                        seconds.setdefault(engine, {}).setdefault(count, []).append(
                            taken
                        )
        equal = all(
            lines(os.path.join(base, f"process-{count}"))
            == lines(os.path.join(base, f"ray-{count}"))
            for count in counts
        )
    each = {
        engine: {
            "whole": min(found[flags.many]) / flags.many,
            "without_start": (min(found[flags.many]) - min(found[flags.few]))
            / (flags.many - flags.few),
        }
        for engine, found in seconds.items()
    }
    overhead = {
        what: each["ray"][what] / each["process"][what] - 1 for what in each["ray"]
    }
    print(each, overhead, "equal" if equal else "NOT EQUAL", sep="\n")
    _timing.write_result(
        "ray_overhead",
        {
            "mode": flags.mode,
            "few": flags.few,
            "many": flags.many,
            "worker_cpus": flags.worker_cpus,
            "seconds": {
                engine: {
                    str(count): _timing.summary(all_) for count, all_ in found.items()
                }
                for engine, found in seconds.items()
            },
            "seconds_per_candidate": each,
            "overhead": overhead,
            "lines_equal": equal,
        },
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
