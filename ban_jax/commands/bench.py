"""`ban-jax bench`: measures the package on the device at hand."""

import dataclasses
import json
import os
import shlex
import sys
import time

from ban_jax import config, population
from ban_jax.commands import throughput, tuning
from ban_jax.convolution import tables
from ban_jax.storage import atomic, versions


def run(flags: config.BenchFlags) -> None:
    """Measures what the flags ask for, prints it and writes it down."""
    if flags.tune:
        run_tune(flags)
    else:
        run_throughput(flags)


def run_throughput(flags: config.BenchFlags) -> None:
    """Times candidates and the stages they go through; writes `--out`."""
    atomic.prepare_folder(os.path.dirname(flags.out) or ".")
    load = os.getloadavg()[0]
    rows = list(throughput.measure(flags))
    for row in rows:
        print(throughput.total_line(row))
    told = {
        "command": shlex.join(["ban-jax", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "flags": dataclasses.asdict(flags),
        "versions": versions.versions(),
        "cores": population.cores(),
        "load_average": load,
        "rows": rows,
    }
    atomic.write(flags.out, json.dumps(told, indent=1).encode() + b"\n")
    print(f"Figures: {flags.out}")


def run_tune(flags: config.BenchFlags) -> None:
    """Times the lowerings of every layer and writes them into a table.

    What the table holds of these layers on this device is replaced, all else kept.
    """
    path = flags.table or tables.user_table()
    tables.read(path)  # before the work: a file that is no table is not overwritten
    setting = tuning.setting(flags.precision, flags.repeats)
    layers = tuning.layers_of(
        flags.arch, flags.width, flags.image_size, flags.in_channels
    )
    print(f"{len(layers)} layer shapes; milliseconds per model, the best with a *")
    rows = []
    for layer in layers:
        for row in tuning.rows_of(layer, setting):
            print(tuning.line(row), flush=True)
            rows.append(row)
    tables.update(path, tuning.machine(rows, setting))
    print(f"Table: {path}")
