"""`ban-jax bench`: measures the package on the device at hand."""

import dataclasses
import json
import os
import shlex
import sys
import time

from ban_jax import (
    config,
    lowerings,
    population,
    records,
    results,
    throughput,
    tune,
)


def run(flags: config.BenchFlags) -> None:
    """Measures what the flags ask for, prints it and writes it down."""
    if flags.tune:
        run_tune(flags)
    else:
        run_throughput(flags)


def run_throughput(flags: config.BenchFlags) -> None:
    """Times candidates and the stages they go through; writes `--out`."""
    results.prepare_folder(os.path.dirname(flags.out) or ".")
    load = os.getloadavg()[0]
    rows = list(throughput.measure(flags))
    for row in rows:
        print(throughput.total_line(row))
    told = {
        "command": shlex.join(["ban-jax", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "flags": dataclasses.asdict(flags),
        "versions": records.versions(),
        "cores": population.cores(),
        "load_average": load,
        "rows": rows,
    }
    results.write_atomically(flags.out, json.dumps(told, indent=1).encode() + b"\n")
    print(f"Figures: {flags.out}")


def run_tune(flags: config.BenchFlags) -> None:
    """Times the lowerings of every layer and writes them into a table.

    What the table holds of these layers on this device is replaced, all else kept.
    """
    path = flags.table or lowerings.user_table()
    lowerings.read(path)  # before the work: a file that is no table is not overwritten
    setting = tune.setting(flags.precision, flags.repeats)
    layers = tune.layers_of(
        flags.arch, flags.width, flags.image_size, flags.in_channels
    )
    print(f"{len(layers)} layer shapes; milliseconds per model, the best with a *")
    rows = []
    for layer in layers:
        for row in tune.rows_of(layer, setting):
            print(tune.line(row), flush=True)
            rows.append(row)
    lowerings.update(path, tune.machine(rows, setting))
    print(f"Table: {path}")
