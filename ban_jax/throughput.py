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
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import (
    checkpoints,
    config,
    convolution,
    detectors,
    examine,
    lowerings,
    models,
    population,
    records,
)
from ban_jax.config import MINIBATCH
from ban_jax.detectors import evidence
from ban_jax.models import common
from ban_jax.types import Array, Network, Precision, Probe

NUM_CLASSES = 10
PEAK_SIDE = {"cpu": 2048}
"""Rows of the square matrices whose product is a device's peak; elsewhere `LARGE_SIDE`."""
LARGE_SIDE = 8192


def measure(flags: config.BenchFlags) -> Iterator[dict[str, Any]]:
    """One architecture after the other: a row of figures each."""
    peak = matmul_peak(flags.precision)
    for architecture in flags.arch:
        spec = checkpoints.ModelSpec(
            architecture, NUM_CLASSES, flags.width, flags.in_channels
        )
        yield _row(spec, flags, peak)


def counts(flags: config.BenchFlags) -> tuple[int, ...]:
    """How many candidates at once are timed: powers of two up to a scan's own chunk."""
    most = population.default_chunk(jax.default_backend())
    return flags.candidates or tuple(2**i for i in range(most.bit_length()))


def _row(
    spec: checkpoints.ModelSpec, flags: config.BenchFlags, peak: float
) -> dict[str, Any]:
    settings = records.Settings(
        mode=flags.mode,
        config=config.MODE_DEFAULTS[flags.mode],
        lowering=lowerings.default(),
        precision=flags.precision,
    )
    network = settings.network(spec)
    placement = population.default_placement()
    given = examine.Common(
        random_probe(flags), jax.random.key(flags.seed), settings.config
    )
    detect = detectors.DETECTORS[flags.mode].detect
    examined = examine.bound(examine.examine, network=network, detect=detect)
    sizes = [placement.rounded(count) for count in counts(flags)]
    members = [random_member(spec, seed) for seed in range(max(sizes))]

    def seconds(
        function: Callable, shared: Any, size: int
    ) -> tuple[float, list[float]]:
        """To compile, and per candidate of each timed chunk."""
        began = time.perf_counter()
        step = population.program(function, placement, members[0], shared, size)
        compiled = time.perf_counter() - began
        placed = population.place(members[:size], placement, size)

        def chunk() -> None:
            population.for_each(step, placement, placed, shared, size)

        chunk()
        timed = timeit.repeat(chunk, number=1, repeat=flags.repeats)
        return compiled, [one / size for one in timed]

    against = []
    for size in sizes:
        compiled, each = seconds(examined, given, size)
        against.append(
            {"candidates": size, "compile_seconds": compiled, "seconds": summary(each)}
        )
        print(f"{spec.architecture}/{spec.width}: {line(against[-1])}", flush=True)
    best = min(against, key=lambda row: row["seconds"]["mean"])
    whole, size = best["seconds"]["mean"], best["candidates"]

    if flags.trace:
        with jax.profiler.trace(flags.trace):
            seconds(examined, given, size)

    def without(**changes: int) -> float:
        shared = given._replace(config=dataclasses.replace(settings.config, **changes))
        return statistics.fmean(seconds(examined, shared, size)[1])

    plain = examine.bound(forward, network=network)
    stages = {
        "read_and_convert": read_seconds(spec, members[0]),
        "features": statistics.fmean(seconds(plain, given, size)[1]),
        "noise": whole - without(steps=0),
    }
    if flags.mode == "ban":
        stages["mask"] = whole - without(mask_steps=0)
    stages["evaluation"] = whole - sum(list(stages.values())[1:])
    images = search_images(settings, given.probe.labels.size)
    products = 2 * images * forward_products(spec, flags.image_size)
    devices = len(placement.devices)
    return {
        "architecture": spec.architecture,
        "width": spec.width,
        "lowering": settings.told_lowering(),
        "per_candidate": against,
        "candidates_per_second": 1 / whole,
        "stages_at": size,
        "stages": stages,
        "image_gradients_per_second": images / stages["noise"],
        "search_flop_per_second": products / stages["noise"],
        "matmul_peak_flop_per_second": peak * devices,
        "share_of_peak": products / stages["noise"] / (peak * devices),
    }


def forward(
    member: examine.Member, shared: examine.Common, *, network: Network
) -> evidence.Forward:
    """The passes without noise that every mode begins with, alone."""
    return examine.examine(member, shared, network=network, detect=_forward)


def _forward(network, variables, probe, *, key, config) -> evidence.Forward:
    del key, config
    return evidence.forward(network, variables, probe)


def random_probe(flags: config.BenchFlags) -> Probe:
    """Whole minibatches of noise, as many as `--num-clean` has room for."""
    rng = np.random.default_rng(flags.seed)
    shape = (max(flags.num_clean // MINIBATCH, 1), MINIBATCH)
    side = flags.image_size
    images = rng.random((*shape, side, side, flags.in_channels), np.float32)
    labels = rng.integers(0, NUM_CLASSES, shape).astype(np.int32)
    return Probe(jnp.asarray(images), jnp.asarray(labels))


def random_member(spec: checkpoints.ModelSpec, seed: int) -> examine.Member:
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
    return examine.Member(variables, constants["mean"], constants["std"] + 1, words)


def read_seconds(spec: checkpoints.ModelSpec, member: examine.Member) -> float:
    """To read and convert one candidate's file that the system still has in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "candidate.safetensors")
        checkpoints.write_safetensors(path, member.variables, spec)
        return min(timeit.repeat(lambda: checkpoints.read(path), number=1, repeat=3))


def search_images(settings: records.Settings, num_images: int) -> int:
    """Images whose gradient one candidate's noise searches take, one per step."""
    work = functools.partial(
        detectors.DETECTORS[settings.mode].work,
        num_classes=NUM_CLASSES,
        num_images=num_images,
    )
    idle = dataclasses.replace(settings.config, steps=0)
    return (work(settings.config) - work(idle)) // 2


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
    # Like `tune`, this times a product and no candidate.
    product = jax.jit(
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


def line(row: dict[str, Any]) -> str:
    """A row of `per_candidate` as text."""
    each = row["seconds"]
    spread = f" ± {each['std']:.3f}" if each["std"] is not None else ""
    return (
        f"{row['candidates']:3} at once: {each['mean']:.3f}{spread} s per candidate, "
        f"{row['compile_seconds']:.0f} s to compile"
    )


def total_line(row: dict[str, Any]) -> str:
    """What an architecture's row comes down to."""
    stages = ", ".join(f"{name} {s:.3f}" for name, s in row["stages"].items())
    return (
        f"{row['architecture']}/{row['width']}: {row['candidates_per_second']:.3g} "
        f"candidates per second; seconds of each: {stages}; "
        f"{row['image_gradients_per_second']:.0f} image gradients per second, "
        f"{row['share_of_peak']:.0%} of the matrix product's peak"
    )
