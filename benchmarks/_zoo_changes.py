"""What happens to a model after training, cheaply: four changes that keep its backdoor.

Each takes models of one architecture and gives them back changed; `CHANGES` has all of them
by name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import data, population, repairs, types
from ban_jax.models import common
from ban_jax.repairs import batch, inputs
from ban_jax.types import Array, Network, Variables

PRUNED = 0.2
"""Share of each layer's weights that is set to 0."""
WATCHED = 250
"""Test images on which fine-tuning watches its accuracy; nothing depends on them."""


class Setting(NamedTuple):
    """What changes need beside the models.

    Attributes:
      network: their architecture.
      clean: images they have not learned from.
      test: others.
      flip: whether fine-tuning mirrors images.
      size: models side by side.
    """

    network: Network
    clean: data.Dataset
    test: data.Dataset
    flip: bool
    size: int


class Model(NamedTuple):
    """A model that is to be changed: its variables, and the hash of its weights."""

    variables: Variables
    sha256: str


Change = Callable[[Sequence[Model], Setting], list[Variables | None]]
"""None in place of a model that the change spoils."""


def reestimated(models: Sequence[Model], setting: Setting) -> list[Variables | None]:
    """BatchNorm statistics of the clean images: their mean over even minibatches."""
    minibatches = even(setting.clean.images, types.MINIBATCH)

    def one(model: Model) -> Variables:
        found = [
            minibatch_statistics(model.variables, images, network=setting.network)
            for images in minibatches
        ]
        mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *found)
        return {**model.variables, "batch_stats": mean}

    return list(population.side_by_side(one, models, population.cores()))


def even(images: np.ndarray, most: int) -> np.ndarray:
    """`[N, H, W, C]` -> `[T, B, H, W, C]`: few minibatches of at most `most` images.

    Up to T - 1 images are left out where they do not divide evenly.
    """
    count = -(-len(images) // most)
    size = len(images) // count
    return images[: count * size].reshape(count, size, *images.shape[1:])


@population.compiled
def minibatch_statistics(
    variables: Variables, images: Array, *, network: Network
) -> Variables:
    """The `batch_stats` of one minibatch `[B, H, W, C]`, compiled."""
    # From 0, a step towards the minibatch's statistics is a known share of them.
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    _, after = network.logits({**variables, "batch_stats": zero}, images, "update")
    return jax.tree.map(lambda leaf: leaf / common.MOMENTUM, after["batch_stats"])


def finetuned(models: Sequence[Model], setting: Setting) -> list[Variables | None]:
    """One epoch of SGD on the clean images; no accuracy budget takes it back."""
    method = "finetune"
    settings = repairs.METHODS[method].settings(
        learning_rate=0.01,
        schedule="constant",
        momentum=0.9,
        weight_decay=5e-4,
        budget=1.0,
        epochs=1,
        batch_size=64,
        crop=0,
        flip=setting.flip,
    )
    test = setting.test
    watched = dataclasses.replace(
        test, pixels=test.pixels[:WATCHED], labels=test.labels[:WATCHED]
    )
    done = batch.repair_population(
        setting.network,
        [model.variables for model in models],
        [population.identity_key(0, model.sha256) for model in models],
        inputs.clean_set(setting.clean.pixels, setting.clean.labels, watched),
        method,
        settings,
        size=setting.size,
    )
    return [variables if info.is_finite else None for variables, info in done]


def pruned(models: Sequence[Model], setting: Setting) -> list[Variables | None]:
    """The smallest weights of every convolution and dense layer are 0."""
    del setting

    def leaf(path: Any, values: np.ndarray) -> np.ndarray:
        return without_smallest(values) if path[-1].key == "kernel" else values

    return [jax.tree_util.tree_map_with_path(leaf, one.variables) for one in models]


def without_smallest(kernel: np.ndarray, share: float = PRUNED) -> np.ndarray:
    """The kernel with so many of its smallest magnitudes at 0, rounded down."""
    kernel = np.array(kernel)
    flat = kernel.reshape(-1)
    flat[np.argsort(np.abs(flat), kind="stable")[: int(share * flat.size)]] = 0
    return kernel


def rounded(models: Sequence[Model], setting: Setting) -> list[Variables | None]:
    """Weights and statistics as a file in bfloat16 has them."""
    del setting

    def narrow(values: np.ndarray) -> np.ndarray:
        return values.astype(jnp.bfloat16).astype(values.dtype)

    return [
        {
            **model.variables,
            **{
                name: jax.tree.map(narrow, model.variables[name])
                for name in ("params", "batch_stats")
            },
        }
        for model in models
    ]


CHANGES: Mapping[str, Change] = {
    "statistics": reestimated,
    "finetuned": finetuned,
    "pruned": pruned,
    "bfloat16": rounded,
}
