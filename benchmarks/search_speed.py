"""Image gradients per second of the noise search, for models side by side.

    python -m benchmarks.search_speed

The same searches for every contender: sign steps on one minibatch towards each of a few
classes, as a scan does for all classes; batch statistics, gradients for the noise alone.
In turns, so that a machine that slows down slows all:

torch_*         PyTorch float32, all threads, one model after the other
loop            a Python loop over one model's compiled program, native convolutions
scan            what `ban-jax scan` does on a CPU: one model's program with the lowerings of
                its table, on host threads
stacked_NAME    `jax.vmap` over the models, every convolution lowered as NAME
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import torch
import tyro
from jax import numpy as jnp

from ban_jax import (
    checkpoints,
    convolution,
    models,
    perturb,
    population,
)
from ban_jax.commands import bench, throughput
from ban_jax.convolution import tables
from ban_jax.detectors import evidence, targeted
from ban_jax.scanning import examination
from ban_jax.types import MINIBATCH, Array, Network
from benchmarks import _plot, _timing, torch_detection, torch_models


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    arch: architecture.
    width: its width.
    image_size: side of the images.
    count: models side by side.
    targets: classes that noise is searched towards, in one call.
    n: timed searches of each contender.
    stacked: lowerings tried under `jax.vmap`.
    name: of the result file.
    results: its folder.
    """

    arch: str = "resnet18"
    width: int = 16
    image_size: int = 32
    count: int = 2
    targets: int = 4
    n: int = 5
    stacked: tuple[convolution.Name, ...] = ("sequential", "columns", "im2col", "shift")
    name: str = "search_speed_cpu"
    results: str | None = None


def searches(
    member: examination.Member,
    shared: examination.Common,
    *,
    network: Network,
    targets: int,
) -> Array:
    """The losses of every search; what they found cannot be left out of the work."""
    constants = {"mean": member.means[0], "std": member.stds[0]}
    images, labels = (leaf[0] for leaf in shared.probe)

    def search(target: Array) -> Array:
        _, info = perturb.perturb_params(
            evidence.logits_of(network, "batch"),
            {**member.variables, "normalisation": constants},
            images,
            jnp.full(labels.shape, target),
            key=shared.key,
            epsilon=shared.config.epsilon,
            steps=shared.config.steps,
            start=shared.config.start,
            towards=True,
            weights=(labels != target).astype(images.dtype),
        )
        return jnp.append(info.loss, info.max_abs)

    return jax.lax.map(search, jnp.arange(targets))


def ours(flags: Flags) -> dict[str, Callable[[], Any]]:
    """Contenders by name, compiled: each searches for all models and waits."""
    spec = checkpoints.ModelSpec(flags.arch, throughput.NUM_CLASSES, flags.width)
    members = [throughput.random_member(spec, seed) for seed in range(flags.count)]
    asked = bench.Flags(image_size=flags.image_size, num_clean=MINIBATCH)
    shared = examination.Common(
        throughput.random_probe(asked),
        jax.random.key(0),
        targeted.Settings(),
    )
    devices = tuple(jax.local_devices())

    def compiled(lowering: convolution.Lowering, *, stacked: bool) -> Callable:
        placement = population.Placement(devices, stacked)
        network = models.network(spec.create(lowering=lowering))
        step = population.program(
            examination.bound(searches, network=network, targets=flags.targets),
            placement,
            members[0],
            shared,
            flags.count,
        )
        placed = population.place(members, placement, flags.count)
        if lowering == "native" and not stacked:
            return lambda: [jax.device_get(step(one, shared)) for one in members]
        return lambda: population.for_each(step, placement, placed, shared, flags.count)

    return {
        "loop": compiled("native", stacked=False),
        "scan": compiled(tables.default(), stacked=False),
        **{f"stacked_{name}": compiled(name, stacked=True) for name in flags.stacked},
    }


def torchs(flags: Flags) -> dict[str, Callable[[], Any]]:
    """PyTorch, in both memory formats."""
    torch.set_num_threads(_timing.usable_cores())
    settings = torch_detection.ReducedConfig()
    labels = torch.arange(MINIBATCH) % throughput.NUM_CLASSES

    def contender(memory_format: torch.memory_format) -> Callable[[], Any]:
        networks = []
        for _ in range(flags.count):
            model = torch_models.create(
                flags.arch, num_classes=throughput.NUM_CLASSES, width=flags.width
            )
            model.requires_grad_(False).train()
            torch_models.set_update_statistics(model, False)
            torch_models.set_noise_enabled(model, True)
            networks.append(model.to(memory_format=memory_format))  # type: ignore
        side = flags.image_size
        images = torch.rand(MINIBATCH, 3, side, side)
        images = images.contiguous(memory_format=memory_format)

        def all_of_them() -> None:
            for model, target in itertools.product(networks, range(flags.targets)):
                torch_detection.targeted_noise(
                    model, (images, labels), target, settings
                )

        return all_of_them

    return {
        "torch_contiguous": contender(torch.contiguous_format),
        "torch_channels_last": contender(torch.channels_last),
    }


def in_turns(
    contenders: dict[str, Callable[[], Any]], n: int
) -> dict[str, Sequence[float]]:
    """Seconds of `n` calls of each, one of each in turn, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(n + 1):
        for name, call in contenders.items():
            seconds[name] += _timing.repeat(call, 1, warmup=not turn)
    return {name: each[1:] for name, each in seconds.items()}


def main(flags: Flags) -> None:
    """Times, prints and writes."""
    machine = _timing.hardware()
    assert torch_detection.ReducedConfig.steps == targeted.Settings.steps
    searched = flags.count * flags.targets
    images = searched * torch_detection.ReducedConfig.steps * MINIBATCH
    timed = in_turns({**torchs(flags), **ours(flags)}, flags.n)
    rates = {
        name: _timing.summary([images / one for one in each])
        for name, each in timed.items()
    }
    means = {name: rate["mean"] or 0.0 for name, rate in rates.items()}
    fastest = max(mean for name, mean in means.items() if name.startswith("torch"))
    stacked = max(mean for name, mean in means.items() if name.startswith("stacked"))
    told = {
        "image_gradients_per_second": rates,
        "scan_over_torch": means["scan"] / fastest,
        "scan_over_loop": means["scan"] / means["loop"],
        "best_stacked_over_loop": stacked / means["loop"],
    }
    print(told)
    _timing.write_result(
        flags.name,
        {**dataclasses.asdict(flags), **told},
        machine=machine,
        folder=flags.results,
    )
    _plot.bars(flags.name, means, x="image gradients per second", folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
