"""Times the lowerings of a convolution on the device at hand, for `tables.Row`s.

Like the trainer's and the scan's own programs, what is timed here is compiled whole.
"""

import collections
import concurrent.futures
import functools
import os
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax import lax
from jax import numpy as jnp

from ban_jax import convolution, models, population
from ban_jax.convolution import LOWERINGS, WORK, Layer, Name, What
from ban_jax.convolution.tables import STACKED, Machine, Row
from ban_jax.models import common
from ban_jax.storage import versions
from ban_jax.types import MINIBATCH, Array, Precision

LOOP = 4
"""Times a layer is computed in one call, in a loop of the device as a search does it."""
ENOUGH = 0.5
"""Seconds after which a program is not timed once more."""
MAX_LOAD_PER_CORE = 0.5
"""Above this load per core timings are unreliable."""


Convolve = Callable[[Array, Array], Array]
"""`(images, kernel) -> images`."""


class Setting(NamedTuple):
    """What is the same for all rows of a table.

    Attributes:
      precision: of the products.
      repeats: most timed calls; the fastest counts.
      batch: images per model.
      load_average: of the machine, before anything was timed.
    """

    precision: Precision
    repeats: int
    batch: int = MINIBATCH
    load_average: float = 0.0


def setting(precision: Precision, repeats: int) -> Setting:
    """A `Setting` with the load of this moment, of which it warns."""
    load, cores = os.getloadavg()[0], population.cores()
    if load > MAX_LOAD_PER_CORE * cores:
        print(f"note: the machine is busy (load {load:.1f} on {cores} cores)")
    return Setting(precision, repeats, load_average=load)


def layers_of(
    architectures: Sequence[str], width: int, image_size: int, in_channels: int
) -> list[Layer]:
    """The distinct layer shapes of architectures that leave something to choose.

    Raises:
      ValueError: for an unknown architecture, or images too small for one.
    """
    found: dict[Layer, None] = {}

    def note(call: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        conv = context.module
        if isinstance(conv, common.Conv):
            _, *image, channels = arguments[0].shape
            kernel = (conv.size, conv.size, channels, conv.filters)
            layer = convolution.layer_of(image, kernel, conv.stride, conv.padding)
            if layer is not None:
                found[layer] = None
        return call(*arguments, **keywords)

    for name in architectures:
        module = models.create(
            name, num_classes=10, width=width, in_channels=in_channels
        )
        with nn.intercept_methods(note):
            models.abstract_variables(module, image_size)
    return list(found)


def rows_of(layer: Layer, setting: Setting) -> Iterator[Row]:
    """A layer's rows: both halves of its work, for one model and for stacked ones."""
    for count in (1, STACKED):
        for what in WORK:
            times = {}
            for name in LOWERINGS:
                if _is_native(name, what, count):
                    continue
                try:
                    times[name] = seconds(layer, name, what, count, setting)
                except jax.errors.JaxRuntimeError as error:
                    print(f"  {name}: {str(error).splitlines()[0]}")
            if times:
                yield Row(layer, what, count, times, setting.precision)


def _is_native(name: Name, what: What, count: int) -> bool:
    """Whether a lowering is the very program of `native` here."""
    return (name, count) == ("sequential", 1) or (name, what) == ("columns", "kernel")


def seconds(
    layer: Layer,
    name: Name,
    what: What,
    count: int,
    setting: Setting,
    *,
    loop: int = LOOP,
) -> float:
    """The machine's seconds per model and call of one layer under one lowering.

    A model alone is timed as a scan computes it: on a CPU with as many beside it as there
    are cores. On an idle machine the lowerings that use several cores for one model would
    look better than they are.

    Args:
      layer: its shape.
      name: the lowering.
      what: which half of the work.
      count: models; more than one are stacked.
      setting: batch, precision and repeats.
      loop: calls in one loop of the device.
    """
    function, shapes = program(layer, name, what, count, setting, loop)
    arguments = [
        jax.random.normal(jax.random.key(index), shape.shape, shape.dtype)
        for index, shape in enumerate(shapes)
    ]
    compiled = population.compiled(function)
    jax.block_until_ready(compiled(*arguments))  # one thread compiles, for all
    beside = population.cores() if count == 1 and jax.default_backend() == "cpu" else 1

    def one(_: int) -> None:
        jax.block_until_ready(compiled(*arguments))

    with concurrent.futures.ThreadPoolExecutor(beside) as pool:

        def call() -> None:
            collections.deque(pool.map(one, range(beside)), maxlen=0)

        call()
        return fastest(call, setting.repeats) / (count * beside * loop)


def program(
    layer: Layer, name: Name, what: What, count: int, setting: Setting, loop: int
) -> tuple[Callable[..., Array], list[jax.ShapeDtypeStruct]]:
    """What `seconds` times, and the shapes of its arguments: images, kernel, cotangent."""
    side, size, stride, channels, outputs = layer
    conv = functools.partial(
        convolution.conv2d,
        stride=stride,
        padding=(size - 1) // 2,
        lowering=name,
        precision=setting.precision,
    )
    body = functools.partial(_search if what == "search" else _kernel, conv)

    def looped(x: Array, kernel: Array, cotangent: Array) -> Array:
        return lax.fori_loop(0, loop, lambda _, x: body(x, kernel, cotangent), x)

    small = -(-side // stride)
    models = () if count == 1 else (count,)
    dtype = jnp.bfloat16 if setting.precision == "bfloat16" else jnp.float32
    shapes = [
        jax.ShapeDtypeStruct((*models, *shape), dtype)
        for shape in (
            (setting.batch, side, side, channels),
            (size, size, channels, outputs),
            (setting.batch, small, small, outputs),
        )
    ]
    return (population.over_models(looped) if models else looped), shapes


def fastest(call: Callable[[], None], repeats: int) -> float:
    """The fewest seconds of `repeats` calls, or of as many as `ENOUGH` has room for."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < ENOUGH:
        times.append(timeit.timeit(call, number=1))
    return min(times)


def _search(conv: Convolve, x: Array, kernel: Array, cotangent: Array) -> Array:
    """Forward, and back to the images, which move."""
    y, backward = jax.vjp(lambda x: conv(x, kernel), x)
    return x + 1e-3 * backward(cotangent + 1e-3 * y)[0]


def _kernel(conv: Convolve, x: Array, kernel: Array, cotangent: Array) -> Array:
    """Back to the kernel alone; the images move for the loop's sake."""
    _, backward = jax.vjp(lambda kernel: conv(x, kernel), kernel)
    return x + 1e-3 * jnp.mean(backward(cotangent)[0])


def machine(rows: Sequence[Row], setting: Setting) -> Machine:
    """The table's entry for the device at hand."""
    device = jax.devices()[0]
    commonest = collections.Counter(row.best for row in rows).most_common(1)[0][0]
    return Machine(
        backend=device.platform,
        device=device.device_kind,
        fallback=commonest,
        runs=(
            {
                "date": time.strftime("%Y-%m-%d"),
                "versions": versions.versions(),
                "cores": population.cores(),
                **setting._asdict(),
                "loop": LOOP,
                "statistic": "min",
            },
        ),
        rows=tuple(rows),
    )


def line(row: Row) -> str:
    """A row as text."""
    side, size, stride, channels, outputs = row.layer
    shape = f"{side}x{side} {channels}->{outputs} {size}x{size}/{stride}"
    times = "  ".join(
        f"{_title(name, row.models)} {1e3 * row.seconds[name]:8.3f}"
        f"{'*' if name == row.best else ' '}"
        for name in LOWERINGS
        if name in row.seconds
    )
    return f"{shape:26} {row.what:7} {row.models} model(s)  {times}"


def _title(name: Name, models: int) -> str:
    return "grouped" if name == "native" and models > 1 else name
