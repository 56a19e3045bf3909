"""Peak memory and cost per candidate of one `ban-jax scan` as candidates grow in number.

    python -m benchmarks.scan_memory --counts 100 1000

Every candidate is a model of its own: one of the bundled zoo with noise on its weights.
Each count is scanned by the command in a process of its own, report included, and a trace
(`--profile`) says how much of reading and stacking is hidden behind the device.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import tyro

from ban_jax import checkpoints, commands
from ban_jax.checkpoints import hashing
from benchmarks import _timing


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is scanned.

    Attributes:
      counts: numbers of candidates; the first one's figures are the yardstick.
      model: bundled checkpoint that the candidates are made of.
      scan: further flags of the scan.
      warm: scans a few candidates first, so that programs are compiled.
      name: of the result file.
      results: its folder.
    """

    counts: tuple[int, ...] = (100, 1000)
    model: str = "resnet18_w4_clean_s0.safetensors"
    scan: str = "--steps 1 --num-clean 128"
    warm: bool = True
    name: str = "scan_memory"
    results: str | None = None


def make(folder: str, model: str, count: int) -> None:
    """Writes `count` distinct models: each weight times 1 + a thousandth of noise."""
    original = checkpoints.read(os.path.join(commands.BUNDLED, model))
    flat = hashing.flatten(original.variables)
    for number in range(count):
        rng = np.random.default_rng(number)
        noisy = {
            name: leaf * (1 + 1e-3 * rng.random(leaf.shape, np.float32))
            for name, leaf in flat.items()
        }
        checkpoints.write_safetensors(
            os.path.join(folder, f"{number:05}.safetensors"),
            hashing.unflatten(noisy),
            original.spec,
        )


def scan(folder: str, more: str) -> dict[str, Any]:
    """Scans a folder in a process of its own: its peak memory, seconds and stages."""
    with tempfile.TemporaryDirectory() as out:
        trace = os.path.join(out, "trace.json")
        command = [
            sys.executable,
            "-m",
            "ban_jax.cli",
            "scan",
            folder,
            "--data",
            "digits",
        ]
        command += ["--out", out, "--profile", trace, *more.split()]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode not in (0, 1, 2):
            sys.exit(f"the scan ended with exit code {process.returncode}")
        with open(trace, encoding="utf-8") as file:
            profile = json.load(file)["otherData"]
    return {
        # The kernel counts KiB on Linux, bytes on macOS.
        "peak_mib": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "command_seconds": seconds,
        **profile,
    }


def main(flags: Flags) -> None:
    """Scans, prints and writes the figures."""
    machine = _timing.hardware()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if flags.warm:
            make(folder, flags.model, 8)
            scan(folder, flags.scan)
        for count in flags.counts:
            make(folder, flags.model, count)
            row = {"candidates": count, **scan(folder, flags.scan)}
            row["peak_relative"] = row["peak_mib"] / (rows or [row])[0]["peak_mib"]
            row["seconds_per_candidate"] = row["wall_seconds"] / count
            rows.append(row)
            print(
                f"{count:6} candidates: peak {row['peak_mib']:.0f} MiB "
                f"({row['peak_relative']:.3f} of the first), "
                f"{row['seconds_per_candidate']:.3f} s each"
            )
            for stage, entry in row["stages"].items():
                print(
                    f"       {stage:8} {entry['seconds']:8.1f} s, of which "
                    f"{entry['beside_device_seconds']:.1f} s beside the device"
                )
    measured = {"model": flags.model, "scan": flags.scan, "rows": rows}
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
