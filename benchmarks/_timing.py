"""What benchmarks share: repeated timing, and results that tell the whole story."""

import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
CHECKOUT = os.path.dirname(os.path.dirname(RESULTS))
PACKAGES = ("ban_jax", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory, and how busy the machine already is.

    Accelerators are the business of the benchmark that uses one.
    """
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
        ),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": os.getloadavg()[0],
    }


def usable_cores() -> int:
    """Cores this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Python's version and those of packages, None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit(checkout: str = CHECKOUT) -> str | None:
    """A checkout's commit, `+` behind it when files differ; None outside of one.

    Result files do not count: a row of benchmarks writes one after the other.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", checkout, *arguments),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    try:
        differ = git(
            *("status", "--porcelain", "ban_jax", "models", "benchmarks"),
            ":!benchmarks/results",
        )
        return git("rev-parse", "HEAD") + ("+" if differ else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def repeat(function: Callable[[], Any], n: int, *, warmup: int = 1) -> list[float]:
    """Seconds of each of `n` calls, after `warmup` untimed ones.

    Args:
      function: does the work and returns once it is done: JAX callers block inside.
    """
    for _ in range(warmup):
        function()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Count, mean, standard deviation (None for one value), smallest and median."""
    return {
        "n": len(seconds),
        "mean": statistics.fmean(seconds),
        "std": statistics.stdev(seconds) if len(seconds) > 1 else None,
        "min": min(seconds),
        "median": statistics.median(seconds),
    }


def spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, deviation and range; None where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "n": len(known),
        "mean": statistics.fmean(known),
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "min": min(known),
        "max": max(known),
    }


def write_result(
    name: str,
    measured: Mapping[str, Any],
    *,
    command: str | None = None,
    machine: Mapping[str, Any] | None = None,
    folder: str | None = None,
) -> str:
    """Writes `<folder>/<name>.json`: command, hardware, versions, commit, measurements.

    Args:
      command: what makes the file again; this process's own command line when None.
      machine: `hardware()` taken before the work, so that the load is not our own.
      folder: `benchmarks/results` when None.

    Returns:
      The file's path.
    """
    record = {
        "command": command or command_line(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": dict(machine or hardware()),
        "versions": versions(),
        **measured,
    }
    folder = folder or RESULTS
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, allow_nan=False)
        file.write("\n")
    return path


def command_line() -> str:
    """How this process was started, as `python -m benchmarks.x ...`."""
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    return shlex.join(["python", "-m", f"benchmarks.{script}", *sys.argv[1:]])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
