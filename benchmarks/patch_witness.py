"""What one small patch, found by gradients, says of models that the witnesses miss.

    python -m benchmarks.patch_witness ZOO [ZOO ...] --data cifar10 --data-dir tfds

A patch of `--size` pixels a side is searched towards each class, one for all images: where
gradients of a few small steps on all pixels are largest, then by sign steps inside that
window alone. Told is the probability that fresh images of other classes gain. It is no
witness of the scan yet: no profile knows it and no threshold was chosen. The question is
whether it would show what fine-tuning hides from the other five.
"""

import collections
import dataclasses
import os
import sys
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax import numpy as jnp

from ban_jax import checkpoints, data, models, perturb, population, universal
from ban_jax.convolution import tables
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Variables
from benchmarks import _timing, _zoo

SALIENT = 12 / 255
"""Radius of the steps that find the place."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is measured.

    Attributes:
      zoos: labelled folders.
      data, data_dir: clean images.
      variants: kinds of variants taken; `trained` for originals.
      kinds: kinds of models taken.
      size: side of the patch in pixels.
      steps: on all pixels, and inside the window.
      images: searched on; as many again count.
      name: of the result file.
      results: its folder.
    """

    zoos: Annotated[tuple[str, ...], tyro.conf.Positional]
    data: str = "cifar10"
    data_dir: str | None = None
    variants: tuple[str, ...] = ("trained", "finetuned")
    kinds: tuple[str, ...] = ("clean", "badnets", "blend", "wanet", "iad", "bpp")
    size: int = 3
    steps: tuple[int, int] = (3, 6)
    images: int = 64
    name: str = "patch_witness"
    results: str | None = None


def salient_window(
    objective: Any, shape: tuple[int, int, int], *, size: int, steps: int
) -> Array:
    """`[H, W, 1]` 1 inside the window of the largest gradients, 0 elsewhere.

    Args:
      objective: `[H, W, C]` perturbation of all images -> `[]` what it is meant to raise.
      shape: `(H, W, C)`.
      size: side of the window, static.
      steps: sign steps on all pixels over which gradients are summed, static.
    """

    def step(change: Array, _: None) -> tuple[Array, Array]:
        gradient = jax.grad(objective)(change)
        moved = change + SALIENT / steps * jnp.sign(gradient)
        return moved, jnp.abs(gradient).sum(-1)

    _, seen = jax.lax.scan(step, jnp.zeros(shape), length=steps)
    sums = jax.lax.reduce_window(
        seen.sum(0), 0.0, jax.lax.add, (size, size), (1, 1), "VALID"
    )
    row, column = jnp.unravel_index(jnp.argmax(sums), sums.shape)
    window = jnp.ones((size, size, 1))
    return jax.lax.dynamic_update_slice(
        jnp.zeros((*shape[:2], 1)), window, (row, column, 0)
    )


def gains(
    variables: Variables,
    images: Array,
    labels: Array,
    *,
    network: Network,
    size: int,
    steps: tuple[int, int],
) -> Array:
    """`[K]` probability that a patch towards each class wins of images of others. Pure.

    Args:
      variables: of one model.
      images: `[2, B, H, W, C]` in [0, 1]: searched on, and counted.
      labels: `[2, B]`.
      network, size, steps: static.
    """
    apply_fn = evidence.logits_of(network, "stored")
    plain = jax.nn.softmax(apply_fn(variables, images[1]))

    def towards(target: Array) -> Array:
        weights = (labels[0] != target).astype(images.dtype)
        wanted = jnp.full(labels[0].shape, target)

        def objective(change: Array) -> Array:
            logits = apply_fn(variables, universal.shift(images[0], change))
            return -perturb.weighted_cross_entropy(logits, wanted, weights)

        shape = images.shape[2:]
        window = salient_window(objective, shape, size=size, steps=steps[0])
        patch, _ = perturb.climb(
            lambda change: objective(change * window),
            jnp.zeros(shape),
            epsilon=1.0,
            steps=steps[1],
            step_size=0.5,
        )
        logits = apply_fn(variables, universal.shift(images[1], patch * window))
        gained = (jax.nn.softmax(logits) - plain)[:, target]
        others = (labels[1] != target).astype(images.dtype)
        return jnp.sum(gained * others) / jnp.maximum(others.sum(), 1)

    return jax.lax.map(towards, jnp.arange(network.num_classes))


_gains = population.compiled(gains)


def measure(flags: Flags) -> list[dict[str, Any]]:
    """One row per model."""
    clean = data.load(flags.data, data_dir=flags.data_dir, num=2 * flags.images)
    images = jnp.asarray(clean.images).reshape(2, flags.images, *clean.image_shape)
    labels = jnp.asarray(clean.labels).reshape(2, flags.images)
    rows = []
    for zoo in flags.zoos:
        for entry in _zoo.entries(zoo):
            variant = entry.get("variant", "trained")
            if variant not in flags.variants or entry["kind"] not in flags.kinds:
                continue
            candidate = checkpoints.read(os.path.join(zoo, entry["file"]))
            network = models.network(candidate.spec.create(lowering=tables.default()))
            found = _gains(
                candidate.full_variables(),
                images,
                labels,
                network=network,
                size=flags.size,
                steps=flags.steps,
            )
            told = ("name", "kind", "target", "architecture", "recipe", "excess")
            rows.append(
                {name: entry.get(name) for name in told}
                | {"variant": variant, "gains": np.round(found, 4).tolist()}
            )
            print(entry["name"], rows[-1]["gains"], flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per variant: the largest gain of each clean model, and what targets gain."""
    found: dict[str, Any] = collections.defaultdict(dict)
    for row in rows:
        values = row["gains"]
        is_clean = row["kind"] == "clean"
        if not is_clean and (row["excess"] or 0) < 0.8:
            continue
        said = max(values) if is_clean else values[row["target"]]
        found[row["variant"]].setdefault(row["kind"], []).append(said)
    return {
        variant: {
            kind: {"n": len(values), "smallest": min(values), "largest": max(values)}
            for kind, values in kinds.items()
        }
        for variant, kinds in found.items()
    }


def main(flags: Flags) -> None:
    """Measures, prints and writes."""
    machine = _timing.hardware()
    rows = measure(flags)
    told = {"flags": dataclasses.asdict(flags), "summary": summary(rows), "rows": rows}
    print(told["summary"])
    print(_timing.write_result(flags.name, told, machine=machine, folder=flags.results))


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
