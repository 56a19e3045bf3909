"""`ban-jax bench`: measures the package on the device at hand."""

from ban_jax import config, lowerings, tune


def run(flags: config.BenchFlags) -> None:
    """Measures what the flags ask for, prints it and writes it down."""
    if flags.tune:
        run_tune(flags)


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
