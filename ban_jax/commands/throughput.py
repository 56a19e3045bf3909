"""How fast candidates are judged on the device at hand, and where the time goes.

Weights and images are random: what is computed does not depend on them. Stages inside one
compiled program cannot be timed apart, so each is the difference between the program and
the same program without it.
"""

import dataclasses
import functools
import math
import os
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import (
    checkpoints,
    convolution,
    detectors,
    models,
    population,
    records,
)
from ban_jax.convolution import tables
from ban_jax.detectors import evidence
from ban_jax.models import common
from ban_jax.scanning import examination
from ban_jax.types import MINIBATCH, Array, Network, Precision, Probe

NUM_CLASSES = 10
PEAK_SIDE = {"cpu": 2048}
"""Rows of the square matrices whose product is a device's peak; elsewhere `LARGE_SIDE`."""
LARGE_SIDE = 8192


def measure(flags: Any) -> Iterator[dict[str, Any]]:
    """One architecture after the other: a row of figures each.

    Raises:
      ValueError: for an unknown architecture, or images too small for one; nothing is
        measured then.
    """
    shape = (flags.image_size, flags.image_size, flags.in_channels)
    specs = [
        checkpoints.ModelSpec.for_images(name, NUM_CLASSES, flags.width, shape)
        for name in flags.arch
    ]
    for spec in specs:
        models.abstract_variables(spec.create(), flags.image_size)
    peak = matmul_peak(flags.precision)
    for spec in specs:
        yield _row(spec, flags, peak)


def counts(flags: Any) -> tuple[int, ...]:
    """How many candidates at once are timed: powers of two up to a scan's own chunk."""
    most = population.default_chunk(jax.default_backend())
    return flags.candidates or tuple(2**i for i in range(most.bit_length()))


class Stopwatch(NamedTuple):
    """Times programs on chunks of the same candidates.

    Attributes:
      placement: where they are computed.
      members: as many as the largest chunk takes.
      repeats: timed calls of each program.
    """

    placement: population.Placement
    members: Sequence[examination.Member]
    repeats: int

    def __call__(
        self, function: Callable[..., Any], shared: examination.Common, size: int
    ) -> tuple[float, list[float]]:
        """Seconds to compile a program, and per candidate of each timed chunk."""
        began = time.perf_counter()
        step = population.program(
            function, self.placement, self.members[0], shared, size
        )
        compiled = time.perf_counter() - began
        placed = population.place(self.members[:size], self.placement, size)

        def chunk() -> None:
            population.for_each(step, self.placement, placed, shared, size)

        chunk()
        timed = timeit.repeat(chunk, number=1, repeat=self.repeats)
        return compiled, [one / size for one in timed]


def _row(spec: checkpoints.ModelSpec, flags: Any, peak: float) -> dict[str, Any]:
    chosen = detectors.DETECTORS[flags.mode].settings()
    settings = records.Settings(
        mode=flags.mode,
        config=chosen,
        lowering=tables.default(flags.precision),
        precision=flags.precision,
    )
    network = settings.network(spec)
    placement = population.default_placement()
    sizes = [placement.rounded(count) for count in counts(flags)]
    members = [random_member(spec, seed) for seed in range(max(sizes))]
    stopwatch = Stopwatch(placement, members, flags.repeats)
    probe = random_probe(flags)
    shared = examination.Common(probe, jax.random.key(flags.seed), chosen)
    detect = detectors.DETECTORS[flags.mode].detect
    examined = examination.examiner(network, detect)
    against = []
    for size in sizes:
        compiled, each = stopwatch(examined, shared, size)
        against.append(Count(size, compiled, summary(each)))
        print(f"{spec.architecture}/{spec.width}: {line(against[-1])}", flush=True)
    best = min(against, key=lambda count: count.seconds["mean"])
    if flags.trace:
        with jax.profiler.trace(flags.trace):
            stopwatch(examined, shared, best.candidates)
    stages = _stages(stopwatch, network, examined, shared, best)
    images = search_images(settings, probe.labels.size)
    rate = None
    if stages["noise"] > (best.seconds["std"] or 0.0):
        rate = images / stages["noise"]
    products = 2 * forward_products(spec, flags.image_size)
    peak *= len(placement.devices)
    return {
        "architecture": spec.architecture,
        "width": spec.width,
        "lowering": settings.lowering_identity(),
        "per_candidate": [count._asdict() for count in against],
        "candidates_per_second": 1 / best.seconds["mean"],
        "stages_at": best.candidates,
        "stages": {"read_and_convert": read_seconds(spec, members[0]), **stages},
        "image_gradients_per_second": rate,
        "search_flop_per_second": rate and rate * products,
        "matmul_peak_flop_per_second": peak,
        "share_of_peak": rate and rate * products / peak,
    }


class Count(NamedTuple):
    """So many candidates at once: seconds to compile, and per candidate (`summary`)."""

    candidates: int
    compile_seconds: float
    seconds: dict[str, Any]


def _stages(
    stopwatch: Stopwatch,
    network: Network,
    examined: Callable[..., Any],
    shared: examination.Common,
    best: Count,
) -> dict[str, float]:
    """Seconds per candidate of each stage on the device; they add up to the whole."""
    whole = best.seconds["mean"]

    def mean(function: Callable[..., Any], **changes: Any) -> float:
        changed = dataclasses.replace(shared.config, **changes)
        given = shared._replace(config=changed)
        return statistics.fmean(stopwatch(function, given, best.candidates)[1])

    stages = {"features": mean(examination.bound(forward, network=network))}
    fields = {field.name for field in dataclasses.fields(shared.config)}
    if "mask_steps" in fields:
        stages["mask"] = whole - mean(examined, mask_steps=0)
    stages["noise"] = whole - mean(examined, steps=0)
    return {**stages, "evaluation": whole - sum(stages.values())}


def forward(
    member: examination.Member, shared: examination.Common, *, network: Network
) -> evidence.Forward:
    """The passes without noise that every mode begins with, alone."""
    assert shared.probe is not None
    constants = {"mean": member.means[0], "std": member.stds[0]}
    variables = {**member.variables, "normalisation": constants}
    return evidence.forward(network, variables, shared.probe)


def random_probe(flags: Any) -> Probe:
    """Whole minibatches of noise, as many as `--num-clean` has room for."""
    rng = np.random.default_rng(flags.seed)
    shape = (max(flags.num_clean // MINIBATCH, 1), MINIBATCH)
    side = flags.image_size
    images = rng.random((*shape, side, side, flags.in_channels), np.float32)
    labels = rng.integers(0, NUM_CLASSES, shape).astype(np.int32)
    return Probe(jnp.asarray(images), jnp.asarray(labels))


def random_member(spec: checkpoints.ModelSpec, seed: int) -> examination.Member:
    """Weights as PyTorch draws them before training, without compiling anything."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        if name != "kernel":
            return np.zeros(leaf.shape, np.float32)
        bound = math.prod(leaf.shape[:-1]) ** -0.5
        return rng.uniform(-bound, bound, leaf.shape).astype(np.float32)

    shapes = models.abstract_variables(spec.create())
    variables = jax.tree_util.tree_map_with_path(draw, dict(shapes))
    constants = variables.pop("normalisation")
    words = rng.integers(0, 2**32, 8, np.uint32)
    means, stds = constants["mean"][None], constants["std"][None] + 1
    return examination.Member(variables, means, stds, words)


def read_seconds(spec: checkpoints.ModelSpec, member: examination.Member) -> float:
    """To read and convert one candidate's file that the system still has in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "candidate.safetensors")
        checkpoints.write_safetensors(path, member.variables, spec)
        return min(timeit.repeat(lambda: checkpoints.read(path), number=1, repeat=3))


def search_images(settings: records.Settings, num_images: int) -> int:
    """Images whose gradient one candidate's noise searches take, one per step."""
    work = detectors.DETECTORS[settings.mode].work
    whole, idle = (
        work(chosen, NUM_CLASSES, num_images)
        for chosen in (settings.config, dataclasses.replace(settings.config, steps=0))
    )
    return (whole - idle) // 2


def forward_products(spec: checkpoints.ModelSpec, image_size: int) -> int:
    """Floating point operations of the matrix products of one image's forward pass.

    By their definition, whatever the lowering makes of them. The way back to the
    activations takes as many.
    """
    total = 0

    def note(call: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        nonlocal total
        y = call(*arguments, **keywords)
        module = context.module
        if isinstance(module, common.Conv | common.Linear):
            inputs = arguments[0].shape[-1]
            size = module.size if isinstance(module, common.Conv) else 1
            total += 2 * math.prod(y.shape) * size * size * inputs
        return y

    with nn.intercept_methods(note):
        models.abstract_variables(spec.create(), image_size)
    return total


def matmul_peak(precision: Precision, repeats: int = 10) -> float:
    """Operations per second of a large square matrix product on one device, the fastest."""
    side = PEAK_SIDE.get(jax.default_backend(), LARGE_SIDE)
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    matrix = jnp.ones((side, side), dtype)
    product = population.compiled(
        functools.partial(
            jnp.matmul, precision=convolution.products_of(precision, dtype)
        )
    )

    def once() -> Array:
        return jax.block_until_ready(product(matrix, matrix))

    once()
    return 2 * side**3 / min(timeit.repeat(once, number=1, repeat=repeats))


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Count, mean and standard deviation (None for one value)."""
    spread = statistics.stdev(seconds) if len(seconds) > 1 else None
    return {"n": len(seconds), "mean": statistics.fmean(seconds), "std": spread}


def line(count: Count) -> str:
    """One measurement as text."""
    each = count.seconds
    spread = f" ± {each['std']:.3f}" if each["std"] is not None else ""
    return (
        f"{count.candidates:3} at once: {each['mean']:.3f}{spread} s per candidate, "
        f"{count.compile_seconds:.0f} s to compile"
    )


def total_line(row: dict[str, Any]) -> str:
    """What an architecture's row comes down to.

    A stage that is a difference of two times may come out below nothing, and that of the
    noise no larger than the times themselves differ: no rate follows from such ones.
    """
    stages = ", ".join(
        f"{name} {s:.3f}" if s > 0 else f"{name} too short for the clock"
        for name, s in row["stages"].items()
    )
    rates = "image gradients per second: too many for the clock to tell"
    if row["image_gradients_per_second"] is not None:
        rates = (
            f"{row['image_gradients_per_second']:.0f} image gradients per second, "
            f"{row['share_of_peak']:.0%} of the matrix product's peak"
        )
    return (
        f"{row['architecture']}/{row['width']}: {row['candidates_per_second']:.3g} "
        f"candidates per second; seconds of each: {stages}; {rates}"
    )
