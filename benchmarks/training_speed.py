"""Population training: models x images per second, against M, and against PyTorch.

    python -m benchmarks.training_speed

Every row trains ResNet18 on random images, forward, backward and update, with triggers
and augmentation where the package applies them:

  single       one model, the jitted step with native convolutions called from Python
  population   M models as `ban-jax train` trains them on this backend
  stacked      M models in one `jax.vmap`ped program (`--stacked`)
  torch        the same network in PyTorch, SGD with momentum, all threads

Rounds alternate between the rows, so that a busy moment hits them alike.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro

from ban_jax import attacks, convolution, data, models, types
from ban_jax import population as populations
from ban_jax.convolution import tables
from ban_jax.training import model_plan, one_model, stepping, trainer
from benchmarks import _timing


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is trained.

    Attributes:
      width: channels of the first convolution.
      image_size: side of the images.
      batch_size: images per step and model.
      models: values of M.
      steps: steps of a measurement.
      rounds: measurements of every row.
      precision: of convolutions, see `types.Precision`.
      stacked: measures the vmapped program too, where it is not the default.
      torch: measures PyTorch too.
      name: of the result file; None: training_speed and the backend.
      out: folder of the result file.
    """

    width: int = 16
    image_size: int = 32
    batch_size: int = 128
    models: tuple[int, ...] = (1, 2, 4, 8, 16)
    steps: int = 8
    rounds: int = 3
    precision: types.Precision = "float32"
    stacked: bool = False
    torch: bool = True
    name: str | None = None
    out: str | None = None


KINDS = ("badnets", "blend", "wanet", "bpp")
"""Attacks of the models, in turn."""


def population(flags: Flags, count: int, *, stacked: bool) -> Callable[[], None]:
    """One measurement of `count` models: `flags.steps` steps of each."""
    images = flags.steps * flags.batch_size
    random = np.random.RandomState(0)
    train = data.Dataset(
        "random",
        "train",
        random.randint(
            0, 256, (images, flags.image_size, flags.image_size, 3), np.uint8
        ),
        random.randint(0, 10, images).astype(np.int32),
        10,
    )
    recipe = one_model.Recipe(epochs=100, batch_size=flags.batch_size)
    lowering: convolution.Lowering = tables.default(flags.precision)
    if stacked:
        lowering = "shift"
    module = models.create(
        "resnet18",
        num_classes=10,
        width=flags.width,
        lowering=lowering,
        precision=flags.precision,
    )
    run = trainer.Run(
        module=module,
        train=train,
        test=train,
        recipe=recipe,
        normalisation=data.pixel_constants(train),
    )
    plans = [
        model_plan.ModelPlan(
            f"model {index}",
            attacks.create(KINDS[index % len(KINDS)]),
            attacks.poison.PoisonSpec(0.1, target=index % 10),
            index,
        )
        for index in range(count)
    ]
    program = stepping.Program(
        models.network(module),
        one_model.make_optimizer(recipe, flags.steps * recipe.epochs),
        model_plan.kernel_of(plans[0], train, recipe, lowering),
        recipe,
    )
    placement = populations.Placement((jax.devices()[0],), stacked)
    chunk = stepping.chunk(
        program,
        populations.share(stepping.Images(train.pixels, train.labels), placement),
        [trainer.start(run, program, plan) for plan in plans],
        placement,
        count,
    )

    def measure() -> None:
        chunk.train(0, preparing=False)  # its losses come when the states are there

    return measure


def torch_model(flags: Flags) -> Callable[[], None]:
    """One measurement of one PyTorch model: `flags.steps` steps."""
    # Only this row needs PyTorch.
    import torch

    from benchmarks import torch_models

    torch.manual_seed(0)
    network = torch_models.create("resnet18", num_classes=10, width=flags.width)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    shape = (flags.batch_size, 3, flags.image_size, flags.image_size)
    images = torch.rand(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (flags.batch_size,))

    def measure() -> None:
        for _ in range(flags.steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

    return measure


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    machine = _timing.hardware()
    rows: list[tuple[dict[str, Any], Callable[[], None]]] = []
    backend = jax.default_backend()
    if backend == "cpu":
        rows.append(
            ({"row": "single", "models": 1}, population(flags, 1, stacked=False))
        )
    rows += [
        (
            {"row": "population", "models": count},
            population(flags, count, stacked=backend != "cpu"),
        )
        for count in flags.models
    ]
    if flags.stacked and backend == "cpu":
        rows += [
            (
                {"row": "stacked", "models": count},
                population(flags, count, stacked=True),
            )
            for count in flags.models
        ]
    if flags.torch:
        rows.append(({"row": "torch", "models": 1}, torch_model(flags)))
    for row, measure in rows:
        start = time.perf_counter()
        measure()
        row["first_seconds"] = round(time.perf_counter() - start, 2)
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(flags.rounds):
        for kept, (_, measure) in zip(seconds, rows, strict=True):
            kept += _timing.repeat(measure, 1, warmup=0)
    table = []
    for kept, (row, _) in zip(seconds, rows, strict=True):
        images = row["models"] * flags.steps * flags.batch_size
        table.append(
            {
                **row,
                "images_per_second": round(images / float(np.median(kept)), 1),
                "seconds": _timing.summary(kept),
            }
        )
        print(table[-1], flush=True)
    settings = {k: v for k, v in dataclasses.asdict(flags).items() if k != "out"}
    _timing.write_result(
        flags.name or f"training_speed_{backend}",
        {**settings, "device": jax.devices()[0].device_kind, "table": table},
        machine=machine,
        folder=flags.out,
    )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
