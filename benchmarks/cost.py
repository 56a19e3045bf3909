"""What a candidate costs against classes and pixels: passes, memory, planned chunks.

    python -m benchmarks.cost
    python -m benchmarks.cost --arch resnet18 vit convnext_tiny --width 0 --pixels 224 \\
        --classes 10 1000

Nothing is examined. Passes are those of the work formula, of the mode and of the closer
look at every class; operations are those of the passes' matrix products. The program of
one candidate is compiled for each architecture, image side and number of classes that is
asked for, and XLA says what memory it takes; from that a scan plans its chunks
(`population.memory`), here for devices of several sizes. Compiling small networks takes
seconds, networks of full size minutes. Programs of more than one candidate are compiled
with `--chunks`: a chunk needs as many times the memory of one as the plan assumes, or not.
"""

import dataclasses
import os
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import tyro
from jax import numpy as jnp

from ban_jax import checkpoints, detectors, models, population, records
from ban_jax.commands import throughput
from ban_jax.convolution import tables
from ban_jax.population import memory
from ban_jax.scanning import examination
from ban_jax.storage import compile_cache
from ban_jax.types import MINIBATCH, Probe
from benchmarks import _timing

FORMULA_PIXELS = (32, 64, 224)
FORMULA_CLASSES = (10, 40, 200, 1000)
DEVICES = (4, 16, 24, 80)
"""GiB that are free on a device."""
CHUNK = 16
"""Candidates at once where memory allows, as on an accelerator."""
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is compiled.

    Attributes:
      arch: architectures.
      width: channels of their first convolution; 0: each its own.
      pixels: sides of images.
      classes: of the last layer.
      images: clean ones, whole minibatches.
      chunks: candidates in a program; the first is the yardstick.
      mode: the detector.
      seed: of weights.
      name: of the result file.
      results: its folder.
    """

    arch: tuple[str, ...] = ("resnet18", "resnet18_gn", "vgg16_plain", "plain_cnn")
    width: int = 4
    pixels: tuple[int, ...] = (32, 64)
    classes: tuple[int, ...] = (10, 40)
    images: int = 512
    chunks: tuple[int, ...] = (1,)
    mode: str = "ban"
    seed: int = 0
    name: str = "cost"
    results: str | None = None


def spec_of(arch: str, width: int, side: int, classes: int) -> checkpoints.ModelSpec:
    """The network for images of a side, with the stem that such images have."""
    fields: dict[str, Any] = dict(models.fields_for(arch, side))
    if width:
        fields["width"] = width
    stems = models.create(arch, num_classes=classes, **fields).stems
    if side >= 2 * FORMULA_PIXELS[1] and "imagenet" in stems:
        fields["stem"] = "imagenet"
    return checkpoints.ModelSpec.of(arch, num_classes=classes, **fields)


def passes(mode: str, classes: int, images: int) -> dict[str, int]:
    """Forward passes of one image per candidate: the mode's, and a closer look's at all
    classes."""
    settings = records.Settings(mode=mode, config=detectors.DETECTORS[mode].settings())
    found = {mode: settings.detector.work(settings.config, classes, images)}
    if closer := settings.closer:
        found[closer.mode] = closer.detector.work(closer.config, classes, images)
    return found


def formula(flags: Flags) -> list[dict[str, Any]]:
    """Passes against classes, relative to the fewest."""
    rows: list[dict[str, Any]] = []
    for classes in FORMULA_CLASSES:
        found = passes(flags.mode, classes, flags.images)
        first = rows[0]["passes"] if rows else found
        relative = {name: count / first[name] for name, count in found.items()}
        rows.append({"classes": classes, "passes": found, "relative": relative})
        told = ", ".join(f"{n} {c:,} ({relative[n]:.2f})" for n, c in found.items())
        print(f"{classes} classes: {told}")
    return rows


def operations(flags: Flags) -> list[dict[str, Any]]:
    """Operations of one image's forward pass against pixels, nothing compiled."""
    rows = []
    for arch in flags.arch:
        for side in FORMULA_PIXELS:
            spec = spec_of(arch, flags.width, side, FORMULA_CLASSES[0])
            count = throughput.forward_products(spec, side)
            rows.append({"architecture": arch, "pixels": side, "forward_flop": count})
            print(f"{arch}, {side} pixels: {count / 1e6:,.1f} MFLOP forward")
    return rows


def probe_of(flags: Flags, spec: checkpoints.ModelSpec, side: int) -> Probe:
    """Clean images of no content."""
    shape = (flags.images // MINIBATCH, MINIBATCH)
    images = np.zeros((*shape, side, side, spec.in_channels), np.float32)
    labels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Probe(jnp.asarray(images), jnp.asarray(labels % spec.num_classes))


def compiled(
    flags: Flags, arch: str, side: int, classes: int, chunk: int
) -> dict[str, Any]:
    """Seconds to compile a program, and the memory that it takes."""
    spec = spec_of(arch, flags.width, side, classes)
    settings = records.Settings(
        mode=flags.mode,
        config=detectors.DETECTORS[flags.mode].settings(),
        lowering=tables.default(),
    )
    examined = examination.bound(
        examination.examine,
        network=settings.network(spec),
        detect=settings.detector.detect,
    )
    member = throughput.random_member(spec, flags.seed)
    shared = examination.Common(
        probe_of(flags, spec, side), jax.random.key(flags.seed), settings.config
    )
    # Several in one program, as on an accelerator; a CPU has a thread for each.
    placement = population.Placement((jax.local_devices()[0],), stacked=chunk > 1)
    began = time.perf_counter()
    program = population.program(examined, placement, member, shared, chunk)
    seconds = time.perf_counter() - began
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(member.variables))
    images = sum(leaf.nbytes for leaf in shared.probe or ())
    needed = memory.needed(program)
    row = {
        "architecture": arch,
        "width": spec.width,
        "pixels": side,
        "classes": classes,
        "chunk": chunk,
        "compile_seconds": seconds,
        "load_average": os.getloadavg()[0],
        "weights_mib": weights / MIB,
        "images_mib": images / MIB,
        "needed_mib": needed / MIB if needed else None,
        "planned": {
            f"{gib} GiB": memory.fitting(
                CHUNK, needed and needed * CHUNK // chunk, gib * 2**30
            )
            for gib in DEVICES
        },
    }
    print(
        f"{arch}/{spec.width}, {side} pixels, {classes} classes, chunk {chunk}: "
        f"{row['needed_mib'] or 0:,.0f} MiB, compiled in {seconds:.1f} s; planned "
        f"{row['planned']}",
        flush=True,
    )
    return row


def main(flags: Flags) -> None:
    """Counts, compiles, prints and writes the figures."""
    machine = _timing.hardware()
    told = formula(flags)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[compile_cache.VARIABLE] = folder  # nothing is compiled before
        measured = {
            **dataclasses.asdict(flags),
            "work": told,
            "operations": operations(flags),
            "programs": [
                compiled(flags, arch, side, classes, chunk)
                for arch in flags.arch
                for side in flags.pixels
                for classes in flags.classes
                for chunk in flags.chunks
            ],
        }
    for unused in ("name", "results"):
        measured.pop(unused)
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
