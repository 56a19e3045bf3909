"""Scans killed at random moments and started again end as if nobody had disturbed them.

    python -m benchmarks.kills --kills 200

For each mode one scan runs undisturbed. Then others are killed (SIGKILL) at moments drawn
uniformly over its duration, each time started again with the same command, until `--every`
kills are over; then one may end. Its lines must be those of the undisturbed scan, times
aside, and nothing may be left beside them. The first difference ends the run with exit
code 1.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import tyro

from benchmarks import _command, _timing

MODES = {
    "weights": "--mode weights",
    "targeted": "--mode targeted --targeted.steps 2 --data digits --num-clean 128",
    "ban": "--mode ban --data digits --num-clean 128 --chunk 2",
}
"""What is scanned with: weights alone, images, images and a closer look."""
WRITTEN = {"results.jsonl", "results.csv", "report.html", "passed.jsonl"}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is killed, and how often.

    Attributes:
      kills: over all modes together.
      every: kills before a scan may end, at most; each series draws its own number.
      models: what is scanned.
      modes: names in `MODES`.
      seed: of the moments.
      name: of the result file.
      results: its folder.
    """

    kills: int = 200
    every: int = 5
    models: str = "ban_jax/zoo/bundled"
    modes: tuple[str, ...] = tuple(MODES)
    seed: int = 0
    name: str = "kills"
    results: str | None = None


def words(flags: Flags, mode: str, out: str) -> list[str]:
    """The command that is killed and started again."""
    return ["scan", flags.models, *MODES[mode].split(), "--out", out]


def killed(command: list[str], after: float) -> bool:
    """Starts a command and kills it; whether it was still running then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ban_jax.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def lines(out: str) -> list[dict[str, Any]]:
    """The results without times."""
    with open(os.path.join(out, "results.jsonl"), encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def left(out: str) -> list[str]:
    """What lies in an output folder and is none of its files."""
    return [
        name
        for name in os.listdir(out)
        if name not in WRITTEN and name != ".results.jsonl.lock"
    ]


def difference(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """The first field that differs, or an empty string."""
    if [line["path"] for line in expected] != [line["path"] for line in found]:
        return f"{len(found)} lines instead of {len(expected)}, or of other files"
    for one, other in zip(expected, found, strict=True):
        for name in one:
            if one[name] != other.get(name):
                return (
                    f"{one['path']}: {name} is {other.get(name)!r}, not {one[name]!r}"
                )
    return ""


def main(flags: Flags) -> int:
    """Kills scans of each mode in turn and compares; the exit code."""
    machine = _timing.hardware()
    choice, rows = random.Random(flags.seed), []
    share = -(-flags.kills // len(flags.modes))
    for mode in flags.modes:
        with tempfile.TemporaryDirectory() as out:
            _command.ban_jax(words(flags, mode, out), fine=_command.JUDGED)
            began = time.perf_counter()  # once more: the first one compiled
            with tempfile.TemporaryDirectory() as again:
                _command.ban_jax(words(flags, mode, again), fine=_command.JUDGED)
            duration = time.perf_counter() - began
            expected = lines(out)
        done, series, ended = 0, 0, 0
        while done < share:
            with tempfile.TemporaryDirectory() as out:
                command = words(flags, mode, out)
                for _ in range(min(choice.randint(1, flags.every), share - done)):
                    if killed(command, choice.uniform(0, duration)):
                        done += 1
                    else:
                        ended += 1
                _command.ban_jax(command, fine=_command.JUDGED)
                series += 1
                told = difference(expected, lines(out)) or ", ".join(left(out))
                if told:
                    print(f"{mode}, after {done} kills: {told}", file=sys.stderr)
                    return 1
        row = {"mode": mode, "kills": done, "series": series, "ended_before": ended}
        rows.append({**row, "seconds": duration, "lines": len(expected)})
        print(rows[-1], flush=True)
    measured = {"seed": flags.seed, "models": flags.models, "rows": rows}
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags)))
