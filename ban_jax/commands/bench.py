"""`ban-jax bench`: measures the package on the device at hand."""

import dataclasses
import json
import os
import shlex
import sys
import time
from typing import Any

from ban_jax import detectors, population
from ban_jax.commands import kinds, outcome, throughput, tuning
from ban_jax.convolution import tables
from ban_jax.storage import atomic, versions
from ban_jax.types import Precision


@dataclasses.dataclass(frozen=True)
class Flags:
    """Measures this package on the device at hand, with random weights and images.

    Attributes:
      tune: instead, times every lowering of the convolutions of `arch` and writes a table,
        which from then on chooses among them.
      table: the file; by default `ban_jax/lowerings.json` in your configuration folder,
        which goes before the table that ships with the package.
      arch: architectures to measure, or whose layers are timed.
      width: their width.
      image_size: side of the images.
      in_channels: channels of the images.
      mode: detector, at its own settings.
      num_clean: clean images, in whole minibatches of 128.
      candidates: how many at once, one measurement each; by default powers of two up to
        what a scan takes.
      precision: as for `scan`.
      repeats: timed calls; of a tuning, the fastest counts.
      seed: of weights and images.
      out: file for the figures.
      trace: folder for a profile of the fastest chunks, as `jax.profiler` writes it.
    """

    tune: bool = False
    table: kinds.MaybePath = None
    arch: kinds.Names = ("resnet18", "vgg16", "densenet121")
    width: int = 64
    image_size: int = 32
    in_channels: int = 3
    mode: kinds.Name = "ban"
    num_clean: int = 512
    candidates: tuple[int, ...] = ()
    precision: Precision = "float32"
    repeats: int = 5
    seed: int = 0
    out: kinds.Path = "ban-bench.json"
    trace: kinds.MaybePath = None

    def __post_init__(self) -> None:
        outcome.require_least(
            self, width=1, image_size=1, in_channels=1, num_clean=1, repeats=1
        )
        chosen = detectors.DETECTORS[self.mode].settings()
        outcome.require(
            hasattr(chosen, "steps"),
            "--mode",
            "a detector whose settings have `steps` of a search",
            self.mode,
        )
        outcome.require_seed(self.seed)
        outcome.require_file("--out", self.out)
        outcome.require_file("--table", self.table)
        for count in self.candidates:
            outcome.require(count >= 1, "--candidates", "at least 1", count)


def run(flags: Flags) -> int:
    """Measures what the flags ask for, prints it and writes it down."""
    if flags.tune:
        run_tune(flags)
    else:
        run_throughput(flags)
    return 0


def run_throughput(flags: Flags) -> None:
    """Times candidates and the stages they go through; writes `--out`."""
    atomic.prepare_folder(os.path.dirname(flags.out) or ".")
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    told = {
        "command": shlex.join(["ban-jax", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "flags": dataclasses.asdict(flags),
        "versions": versions.versions(),
        "cores": population.cores(),
        "load_average": load,
    }
    try:
        for row in throughput.measure(flags):
            # Whatever becomes of the other architectures.
            told["rows"] = [*rows, row]
            atomic.write(flags.out, json.dumps(told, indent=1).encode() + b"\n")
            rows.append(row)
    finally:
        for row in rows:
            print(throughput.total_line(row))
        if rows:
            print(f"Figures: {flags.out}")


def run_tune(flags: Flags) -> None:
    """Times the lowerings of every layer and writes them into a table.

    What the table holds of these layers on this device is replaced, all else kept. An
    interrupted tuning writes what it has timed.
    """
    path = flags.table or tables.user_table()
    atomic.prepare_folder(os.path.dirname(path) or ".")
    tables.read(path)  # before the work: a file that is no table is not overwritten
    setting = tuning.setting(flags.precision, flags.repeats)
    layers = tuning.layers_of(
        flags.arch, flags.width, flags.image_size, flags.in_channels
    )
    print(f"{len(layers)} layer shapes; milliseconds per model, the best with a *")
    rows: list[tables.Row] = []
    timed = 0
    try:
        for layer in layers:
            for row in tuning.rows_of(layer, setting):
                print(tuning.line(row), flush=True)
                rows.append(row)
            timed += 1
    finally:
        if rows:
            tables.update(path, tuning.machine(rows, setting))
            left = len(layers) - timed
            more = f"; {left} of {len(layers)} layer shapes are not timed whole"
            print(f"Table: {path}{more * bool(left)}")
