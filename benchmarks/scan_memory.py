"""Peak memory and cost per candidate of one `ban-jax scan` as candidates grow in number.

    python -m benchmarks.scan_memory --counts 100 1000

Every candidate is a model of its own (`scan_scale.copies`). Each count is scanned by the
command in a process of its own, report included, after a small scan that compiles; a trace
(`--profile`) says how much of reading and stacking is hidden behind the device.
"""

import dataclasses
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import tyro

from benchmarks import _command, _timing, scan_scale


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is scanned.

    Attributes:
      counts: numbers of candidates; the first one's figures are the yardstick.
      models: the files copied; one architecture, so that one program serves all.
      scan: further flags of the scan, as --scan="--mode ban".
      name: of the result file.
      results: its folder.
    """

    counts: tuple[int, ...] = (100, 1000)
    models: str = scan_scale.Flags.models
    scan: str = "--mode targeted --targeted.steps 1 --num-clean 128"
    name: str = "scan_memory"
    results: str | None = None


def scan(folder: str, more: str, data: str | None = "digits") -> dict[str, Any]:
    """Scans a folder in a process of its own: its peak memory, seconds and stages."""
    with tempfile.TemporaryDirectory() as out:
        trace = os.path.join(out, "trace.json")
        command = [sys.executable, "-m", "ban_jax.cli", "scan", folder]
        command += ["--out", out, "--trace", trace, *more.split()]
        command += ["--data", data] if data else []
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode not in _command.JUDGED:
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
    models = sorted(glob.glob(flags.models))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scan_scale.copies(models, folder, scan_scale.WARMUP)
        scan(folder, flags.scan)
        for count in flags.counts:
            scan_scale.copies(models, folder, count)
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
    measured = {"scan": flags.scan, "rows": rows}
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
