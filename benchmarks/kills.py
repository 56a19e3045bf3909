"""Scans killed at random moments and started again end as if nobody had disturbed them.

    python -m benchmarks.kills --kills 200 --progress kills-progress

For each mode one scan runs undisturbed. Then others are killed (SIGKILL) at moments drawn
uniformly over its duration, each time started again with the same command, until `--every`
kills are over; then one may end. Its lines must be those of the undisturbed scan, times
aside, and nothing may be left beside them. The first difference ends the run with exit
code 1.

With `--progress` the run itself may be stopped: the same command goes on behind the last
whole series. It says at the start of each mode how long that will take: half a scan for
each kill, and one for the end of each series.
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
    "ban": "--mode ban --ban.steps 1 --ban.mask-steps 1 --ban.patch-steps 1 "
    "--directed.steps 1 --directed.pixel-steps 1 --data digits --num-clean 128 --chunk 2",
}
"""What is scanned with: weights alone, images, images and a closer look. Few steps, since
what is lost and found again hangs on none of them."""
WRITTEN = {"results.jsonl", "results.csv", "report.html", "passed.jsonl"}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is killed, and how often.

    Attributes:
      kills: over all modes together.
      every: kills before a scan may end, at most; each series draws its own number.
      models: what is scanned.
      include: those of them alone whose names match.
      modes: names in `MODES`.
      seed: of the moments.
      progress: folder for what is done so far; empty: nothing is kept.
      name: of the result file.
      results: its folder.
    """

    kills: int = 200
    every: int = 5
    models: str = "ban_jax/zoo/bundled"
    include: str = "resnet18*_s0*"
    modes: tuple[str, ...] = tuple(MODES)
    seed: int = 0
    progress: str = ""
    name: str = "kills"
    results: str | None = None


def words(flags: Flags, mode: str, out: str) -> list[str]:
    """The command that is killed and started again."""
    include = ["--include", flags.include] if flags.include else []
    return ["scan", flags.models, *include, *MODES[mode].split(), "--out", out]


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


@dataclasses.dataclass
class Undisturbed:
    """A scan that nobody killed.

    Attributes:
      seconds: it took, compiled before.
      lines: its results without times.
    """

    seconds: float
    lines: list[dict[str, Any]]


@dataclasses.dataclass
class Series:
    """A scan that was killed until it was left alone.

    Attributes:
      kills: that hit it.
      ended: times it was over before its kill.
      told: how it differs from an undisturbed one; empty where it does not.
    """

    kills: int
    ended: int
    told: str


def undisturbed(flags: Flags, mode: str) -> Undisturbed:
    """Scans twice: the first time compiles."""
    with tempfile.TemporaryDirectory() as out:
        _command.ban_jax(words(flags, mode, out), fine=_command.JUDGED)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as again:
            _command.ban_jax(words(flags, mode, again), fine=_command.JUDGED)
        return Undisturbed(time.perf_counter() - began, lines(out))


def disturbed(
    flags: Flags, mode: str, number: int, most: int, calm: Undisturbed
) -> Series:
    """Kills a scan up to `most` times, lets it end and compares.

    Args:
      flags: of this program.
      mode: name in `MODES`.
      number: of the series, from which its moments are drawn.
      most: kills.
      calm: the scan that nobody killed.
    """
    choice = random.Random(f"{flags.seed} {mode} {number}")
    series = Series(0, 0, "")
    with tempfile.TemporaryDirectory() as out:
        command = words(flags, mode, out)
        for _ in range(min(choice.randint(1, flags.every), most)):
            if killed(command, choice.uniform(0, calm.seconds)):
                series.kills += 1
            else:
                series.ended += 1
        _command.ban_jax(command, fine=_command.JUDGED)
        series.told = difference(calm.lines, lines(out)) or ", ".join(left(out))
    return series


class Progress:
    """What earlier runs of the same command did, and a place for what this one does."""

    def __init__(self, flags: Flags, mode: str):
        self.path = ""
        if flags.progress:
            os.makedirs(flags.progress, exist_ok=True)
            self.path = os.path.join(flags.progress, f"{mode}.jsonl")
        told = dataclasses.asdict(flags)
        # More kills may be asked for than before.
        self.settings = {n: told[n] for n in ("every", "models", "include", "seed")}

    def load(self) -> tuple[Undisturbed | None, list[Series]]:
        """The undisturbed scan and the series so far; a torn last line is left out."""
        if not self.path or not os.path.exists(self.path):
            return None, []
        told = []
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    told.append(json.loads(line))
        if not told or told[0].pop("settings") != self.settings:
            raise ValueError(f"{self.path}: of other flags; expected {self.settings}")
        return Undisturbed(**told[0]), [Series(**line) for line in told[1:]]

    def add(self, made: Undisturbed | Series) -> None:
        """Appends a line."""
        if not self.path:
            return
        line = dataclasses.asdict(made)
        if isinstance(made, Undisturbed):
            line["settings"] = self.settings
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def of_mode(flags: Flags, mode: str, share: int) -> dict[str, Any]:
    """Kills scans of one mode; its row, with the first difference in `told`."""
    progress = Progress(flags, mode)
    calm, series = progress.load()
    if calm is None:
        calm = undisturbed(flags, mode)
        progress.add(calm)
    # Half a scan for a kill, which comes at any moment, and a scan for the end of a series.
    left_over = max(0, share - sum(one.kills for one in series))
    minutes = left_over * calm.seconds * (1 / 2 + 2 / (flags.every + 1)) / 60
    print(
        f"{mode}: {len(calm.lines)} lines in {calm.seconds:.0f} s undisturbed; "
        f"{left_over} kills will take about {minutes:.0f} minutes",
        flush=True,
    )
    told = ""
    while not told and (done := sum(one.kills for one in series)) < share:
        one = disturbed(flags, mode, len(series), share - done, calm)
        told = one.told
        if not told:
            series.append(one)
            progress.add(one)
    return {
        "mode": mode,
        "kills": sum(one.kills for one in series),
        "series": len(series),
        "ended_before": sum(one.ended for one in series),
        "seconds": calm.seconds,
        "lines": len(calm.lines),
        "told": told,
    }


def main(flags: Flags) -> int:
    """Kills scans of each mode in turn and compares; the exit code."""
    machine = _timing.hardware()
    share = -(-flags.kills // len(flags.modes))
    rows = []
    for mode in flags.modes:
        row = of_mode(flags, mode, share)
        if told := row.pop("told"):
            print(f"{mode}, after {row['kills']} kills: {told}", file=sys.stderr)
            return 1
        rows.append(row)
        print(row, flush=True)
    settings = {"seed": flags.seed, "models": flags.models, "include": flags.include}
    measured = {**settings, "every": flags.every, "rows": rows}
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags)))
