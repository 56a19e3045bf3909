"""Seconds per candidate: `ban-jax scan` against PyTorch, same machine and checkpoints.

    python -m benchmarks.detection_speed --checkpoints ../shared/zoo \
        --data cifar10 --data-dir ../shared/tfds

Parts, each on its own with `--parts`:

released   the released detection with its README settings, all threads
           (`torch_detection.released`). By default a fraction of its steps is timed,
           kind by kind, and multiplied up; `--full` runs the whole procedure instead.
           Reading the file and the accuracy check before the procedure are left out, as
           in its own "total time".
lean       the same without the gradients of all weights, which nobody uses.
reduced    PyTorch float32, all threads, the same work as `--mode targeted`.
           Contiguous or channels-last memory, whichever is faster: both are measured.
ban_jax    `ban-jax scan` on the same files, `repetitions` times, the first time with
           nothing compiled: wall time of the whole command, the `seconds` of each
           candidate from its results file, and where the time went (`--trace`); with
           `--mode targeted`.
default    the same with the default mode.

Run it on an idle machine: PyTorch's threads wait for each other, and one busy core made
them up to ten times slower here. The load at the start is in the result.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import tyro

from ban_jax import records
from benchmarks import _command, _detection_torch, _plot, _timing

Part = Literal["released", "lean", "reduced", "ban_jax", "default"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(_detection_torch.Work):
    """Seconds per candidate of ban_jax and of PyTorch.

    Attributes:
      checkpoints: PyTorch files, or folders of them, of one architecture.
      parts: what to measure.
      released_candidates: files the released procedure is timed on.
      threads: of PyTorch; all cores this process may use when 0.
      scan_flags: further flags for `ban-jax scan`.
      name: of the result file.
      results: folder of the result file, `benchmarks/results` when empty.
    """

    checkpoints: tuple[str, ...]
    parts: tuple[Part, ...] = ("released", "lean", "reduced", "ban_jax", "default")
    released_candidates: int = 1
    threads: int = 0
    scan_flags: tuple[str, ...] = ()
    name: str = "detection_speed"
    results: str = ""


def measure_ban_jax(config: Config, flags: Sequence[str]) -> dict[str, Any]:
    """Runs a real `ban-jax scan` several times and reads its clock.

    Returns:
      Of the first scan, which compiles, and of the later ones, which do not: wall seconds
      of the whole command, start of Python included. Seconds per candidate of the later
      ones, reading programs from the disk included, and on the device alone; and their
      stages: seconds of each, of all threads together, and how many of
      them were spent while the device computed, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, *later = (
            _scan(config, flags, folder, str(turn))
            for turn in range(config.repetitions + 1)
        )
    seconds = [r["seconds"] for scan in later for r in scan["records"]]
    wall = sum(scan["profile"]["wall_seconds"] for scan in later)
    stages: dict[str, dict[str, float]] = {}
    for scan in later:
        for name, entry in scan["profile"]["stages"].items():
            total = stages.setdefault(name, {"seconds": 0.0, "share_of_wall": 0.0})
            total["seconds"] += entry["seconds"] / len(later)
            total["share_of_wall"] += entry["seconds"] / wall
    lines = first["records"]
    return {
        "flags": list(flags),
        "candidates": len(lines),
        "first_wall_seconds": first["wall"],
        "later_wall_seconds": _timing.summary([scan["wall"] for scan in later]),
        "seconds_per_candidate": _timing.summary(seconds),
        "device_seconds_per_candidate": _timing.summary(
            [
                scan["profile"]["stages"]["device"]["seconds"] / len(lines)
                for scan in later
            ]
        ),
        "stages": stages,
        "forward_equivalents": statistics.fmean(
            line["forward_equivalents"] for line in lines
        ),
        "lowering": lines[0]["lowering"],
    }


def _scan(
    config: Config, flags: Sequence[str], folder: str, turn: str
) -> dict[str, Any]:
    """One command; its compiled programs stay in the folder."""
    out, profile = (os.path.join(folder, name + turn) for name in ("out", "profile"))
    command = ["scan", *config.checkpoints]
    command += ["--data", config.data, "--out", out, "--trace", profile, *flags]
    if config.data_dir is not None:
        command += ["--data-dir", config.data_dir]
    cache = os.path.join(folder, "cache")
    ran = _command.ban_jax(command, fine=_command.JUDGED, BAN_JAX_CACHE=cache)
    found = records.load(os.path.join(out, "results.jsonl")).records
    broken = [record["path"] for record in found if record["error"]]
    if broken:
        raise SystemExit(f"no evidence of {', '.join(broken)}")
    with open(profile, encoding="utf-8") as file:
        return {
            "wall": ran.seconds,
            "records": found,
            "profile": json.load(file)["otherData"],
        }


def plot(measured: Mapping[str, Any], config: Config) -> None:
    """Seconds per candidate of the parts that were measured, as bars."""
    bars = {}
    for part, name in (
        ("released", "released, PyTorch"),
        ("lean", "without unused gradients"),
    ):
        if part in measured:
            told = measured[part]
            whole = told.get("seconds_per_candidate", {}).get("mean")
            bars[name] = whole or told["estimated_seconds_per_candidate"]
    if "reduced" in measured:
        each = measured["reduced"]["seconds_per_candidate"]
        bars["same work, PyTorch"] = each["mean"]
    for part, name in (
        ("ban_jax", "ban-jax scan --mode targeted"),
        ("default", "ban-jax scan"),
    ):
        if part in measured:
            scan = measured[part]
            bars[name] = scan["later_wall_seconds"]["mean"] / scan["candidates"]
    _plot.bars(
        config.name,
        bars,
        x="seconds per candidate",
        log=True,
        folder=config.results or None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    config = tyro.cli(Config, args=argv, description=__doc__)
    machine = _timing.hardware()
    if machine["load_average"] > 0.5:
        print(
            f"the machine is busy: load {machine['load_average']:.1f}", file=sys.stderr
        )
    threads = config.threads or _timing.usable_cores()
    torch.set_num_threads(threads)
    files = _detection_torch.find(config.checkpoints)
    measured: dict[str, Any] = {"threads": threads}
    if {"released", "lean", "reduced"} & set(config.parts):
        images, labels = _detection_torch.load_images(config)
    chosen = files[: config.released_candidates]
    for part in ("released", "lean"):
        if part in config.parts:
            measured[part] = _detection_torch.measure_released(
                config, chosen, images, labels, lean=part == "lean"
            )
    if "reduced" in config.parts:
        measured["reduced"] = _detection_torch.measure_reduced(
            config, files, images, labels
        )
    if "ban_jax" in config.parts:
        # The same work as `reduced`; the rest of the command's defaults stand.
        work = {
            "--num-clean": config.minibatches * _detection_torch.MINIBATCH,
            "--mode": "targeted",
            "--targeted.epsilon": config.epsilon,
            "--targeted.steps": config.steps,
            "--targeted.restarts": config.restarts,
        }
        flags = [str(word) for pair in work.items() for word in pair]
        measured["ban_jax"] = measure_ban_jax(
            config, [*flags, "--split", config.split, *config.scan_flags]
        )
    if "default" in config.parts:
        measured["default"] = measure_ban_jax(
            config, ["--split", config.split, *config.scan_flags]
        )
    print(json.dumps(measured, indent=1))
    folder = config.results or None
    print(_timing.write_result(config.name, measured, machine=machine, folder=folder))
    plot(measured, config)


if __name__ == "__main__":
    main()
