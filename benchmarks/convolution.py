"""Every lowering of a convolution at the layer shapes of ResNet18, outside and in loops.

    python -m benchmarks.convolution

Seconds per model and call, timed by the functions behind `ban-jax bench --tune`, which
times layers in loops alone: `search` (forward and the gradient for the images) and
`kernel` (the gradient for the kernel), for one model and for stacked ones, with a loop of
1 and of `tuning.LOOP` calls.
"""

import dataclasses
import sys

import jax
import tyro

from ban_jax import convolution, types
from ban_jax.commands import tuning
from ban_jax.convolution import tables
from benchmarks import _timing


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    arch: architectures whose layers are timed.
    width: theirs.
    image_size: side of the images.
    precision: of the products.
    n: most timed calls, of which the fastest counts.
    results: folder of the result file.
    """

    arch: tuple[str, ...] = ("resnet18",)
    width: int = 16
    image_size: int = 32
    precision: types.Precision = "float32"
    n: int = 5
    results: str | None = None


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    machine = _timing.hardware()
    setting = tuning.setting(flags.precision, flags.n)
    table = []
    for layer in tuning.layers_of(flags.arch, flags.width, flags.image_size, 3):
        for name in convolution.LOWERINGS:
            row = {"layer": layer._asdict(), "lowering": name}
            for what in convolution.WORK:
                for count in (1, tables.STACKED):
                    for loop in (1, tuning.LOOP):
                        seconds = tuning.seconds(
                            layer, name, what, count, setting, loop=loop
                        )
                        row[f"{what}, {count} models, loop of {loop}"] = seconds
            table.append(row)
            print(row, flush=True)
    _timing.write_result(
        f"convolution_{jax.default_backend()}",
        {**dataclasses.asdict(flags), "statistic": "min", "seconds": table},
        machine=machine,
        folder=flags.results,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
