"""Time, compile time and peak memory of networks of the size people download.

    python -m benchmarks.full_size_networks --arch vit convnext_tiny

One file of random weights per architecture, for 224 pixels and 1,000 classes, is examined
by the command with chunk 1, in a process of its own and with nothing compiled before: in
mode `weights`, and in a `ban` search of few steps on a few images. What is found in random
weights says nothing and is not kept.
"""

import dataclasses
import math
import os
import sys
import tempfile
from typing import Any

import jax
import numpy as np
import tyro

from ban_jax import checkpoints, models
from ban_jax.commands import throughput
from ban_jax.storage import compile_cache
from benchmarks import _timing, scan_memory


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is examined.

    Attributes:
      arch: architectures, each at its own width.
      image_size: side of the images.
      classes: of the last layer.
      images: clean ones, random pixels.
      search: flags of the search.
      seed: of weights and images.
      name: of the result file.
      results: its folder.
    """

    arch: tuple[str, ...] = ("vit", "convnext_tiny")
    image_size: int = 224
    classes: int = 1000
    images: int = 8
    search: str = "--mode ban --ban.steps 1 --ban.mask-steps 1 --ban.patch-steps 0"
    seed: int = 0
    name: str = "full_size_networks"
    results: str | None = None


def spec_of(arch: str, flags: Flags) -> checkpoints.ModelSpec:
    """The published network: its own width, and the stem of large images."""
    fields: dict[str, Any] = dict(models.fields_for(arch, flags.image_size))
    if "imagenet" in models.create(arch, num_classes=flags.classes).stems:
        fields["stem"] = "imagenet"
    return checkpoints.ModelSpec.of(arch, num_classes=flags.classes, **fields)


def write_images(path: str, flags: Flags) -> None:
    """Random images of classes that are all different."""
    rng = np.random.default_rng(flags.seed)
    side = flags.image_size
    images = rng.integers(0, 256, (flags.images, side, side, 3), np.uint8)
    labels = rng.permutation(flags.classes)[: flags.images]
    names = np.array([str(number) for number in range(flags.classes)])
    np.savez(path, images=images, labels=labels, class_names=names)


def examine(arch: str, flags: Flags) -> dict[str, Any]:
    """Both modes on one file: what each cost."""
    spec = spec_of(arch, flags)
    with tempfile.TemporaryDirectory() as folder:
        member = throughput.random_member(spec, flags.seed)
        weights = os.path.join(folder, f"{arch}.safetensors")
        checkpoints.write_safetensors(weights, member.variables, spec)
        data = os.path.join(folder, "images.npz")
        write_images(data, flags)
        rows = {}
        for mode, more in (
            ("weights", "--mode weights"),
            ("search", f"{flags.search} --num-clean {flags.images}"),
        ):
            images = data if mode == "search" else None
            os.environ[compile_cache.VARIABLE] = os.path.join(folder, f"cache_{mode}")
            rows[mode] = scan_memory.scan(weights, f"--chunk 1 {more}", images)
            print(f"{arch}, {mode}: {_line(rows[mode])}", flush=True)
    leaves = jax.tree.leaves(member.variables["params"])
    parameters = sum(math.prod(leaf.shape) for leaf in leaves)
    return {"width": spec.width, "parameters": parameters, **rows}


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['command_seconds']:.0f} s, of which "
        f"{row['stages'].get('compile', {}).get('seconds', 0.0):.0f} s compile; peak "
        f"{row['peak_mib']:.0f} MiB"
    )


def main(flags: Flags) -> None:
    """Examines, prints and writes the figures."""
    machine = _timing.hardware()
    measured = {
        **dataclasses.asdict(flags),
        "networks": {arch: examine(arch, flags) for arch in flags.arch},
    }
    for unused in ("name", "results"):
        measured.pop(unused)
    _timing.write_result(flags.name, measured, machine=machine, folder=flags.results)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
