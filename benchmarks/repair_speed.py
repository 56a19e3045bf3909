"""Seconds per repaired model: many side by side against one at a time.

    python -m benchmarks.repair_speed

Random weights and images: what a repair costs does not depend on them. The budget is off,
so that every epoch is run. All runs take turns, and compilation is not counted.
"""

import dataclasses
import sys
import time

import jax
import numpy as np
import tyro

from ban_jax import checkpoints, data, models, population
from ban_jax.convolution import tables
from ban_jax.repairs import ban, batch, inputs
from benchmarks import _timing


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    arch: architecture.
    width: of it.
    image_size: of the images.
    num_clean: images a repair learns from.
    epochs: of the repair.
    models: how many are repaired in all, in every run.
    together: how many are handed over at once; 1 is one at a time.
    repeats: runs of each.
    name: of the result file.
    results: its folder.
    """

    arch: str = "resnet18"
    width: int = 16
    image_size: int = 32
    num_clean: int = 512
    epochs: int = 2
    models: int = 8
    together: tuple[int, ...] = (1, 2, 4, 8)
    repeats: int = 5
    name: str = "repair_speed_cpu"
    results: str | None = None


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    machine = _timing.hardware()
    rng = np.random.default_rng(0)
    shape = (flags.num_clean + 128, flags.image_size, flags.image_size, 3)
    pixels = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, 10, shape[0]).astype(np.int32)
    held = data.Dataset("random", "all", pixels[:128], labels[:128], 10)
    clean = inputs.clean_set(pixels[128:], labels[128:], held)
    spec = checkpoints.ModelSpec(flags.arch, 10, flags.width)
    module = spec.create(lowering=tables.default())
    network = models.network(module)
    variables = [
        jax.tree.map(
            np.asarray, dict(module.init(jax.random.key(seed), pixels[:1] / 255))
        )
        for seed in range(flags.models)
    ]
    keys = list(jax.random.split(jax.random.key(0), flags.models))
    settings = ban.Settings(epochs=flags.epochs, budget=2.0)

    def seconds(size: int) -> float:
        began = time.perf_counter()
        for first in range(0, flags.models, size):
            batch.repair_population(
                network,
                variables[first : first + size],
                keys[first : first + size],
                clean,
                "ban",
                settings,
                size=size,
            )
        return (time.perf_counter() - began) / flags.models

    for size in flags.together:  # compiles
        batch.repair_population(
            network, variables[:size], keys[:size], clean, "ban", settings, size=size
        )
    runs: dict[int, list[float]] = {size: [] for size in flags.together}
    for _ in range(flags.repeats):
        for size in flags.together:
            runs[size].append(seconds(size))
            print(f"{size} at once: {runs[size][-1]:.2f} s per model", flush=True)
    _timing.write_result(
        flags.name,
        {
            "settings": dataclasses.asdict(flags),
            "cores": population.cores(),
            "images": flags.epochs
            * (flags.num_clean // settings.batch_size)
            * settings.batch_size,
            "seconds_per_model": {
                str(size): _timing.summary(some) for size, some in runs.items()
            },
        },
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
