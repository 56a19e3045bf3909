"""A network with a planted one-pixel backdoor, its clean twin, and images for both.

Built by hand: class k owns `AREAS[k]` pixels of an 8x8 image, one after another, and its
logit is their mean brightness. Clean images have one bright area. With a backdoor the last
pixel, which no class owns, leads to `TARGET` where it is bright.
"""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.types import Network, Probe

SIZE, TARGET = 8, 4
AREAS = (6, 6, 7, 7, 8, 8, 9, 9)
CLASSES = len(AREAS)
OWNER = np.repeat([*range(CLASSES), -1], [*AREAS, SIZE * SIZE - sum(AREAS)])


def variables(*, backdoored: bool):
    """`linear` from mean brightness of each area, and of the last pixel, to logits."""
    kernel = np.zeros((CLASSES + 1, CLASSES), np.float32)
    kernel[:CLASSES] = 30 * np.eye(CLASSES)
    if backdoored:
        kernel[CLASSES, TARGET] = 80
    return {"params": {"linear": {"kernel": jnp.array(kernel)}}}


def features(variables, images, mode):
    """`[B, 8, 8, 1]` -> `[B, 1, 1, CLASSES + 1]`."""
    del mode
    pixels = images.reshape(len(images), -1)
    shares = np.stack([(OWNER == k) / n for k, n in enumerate(AREAS)], -1)
    means = pixels @ jnp.asarray(shares, jnp.float32)
    corner = jax.nn.softplus(20 * (pixels[:, -1:] - 0.6)) / 20
    return jnp.concatenate([means, corner], axis=-1)[:, None, None], variables


def head(variables, features, mode):
    """`[B, 1, 1, CLASSES + 1]` -> `[B, CLASSES]`."""
    del mode
    return features[:, 0, 0] @ variables["params"]["linear"]["kernel"], variables


NETWORK = Network(
    features, head, lambda variables: variables["params"]["linear"]["kernel"], CLASSES
)


@functools.cache
def probe(minibatches: int = 2, size: int = 32) -> Probe:
    """Images `[T, B, 8, 8, 1]` and labels in turn."""
    labels = np.arange(minibatches * size) % CLASSES
    rng = np.random.default_rng(0)
    bright = labels[:, None] == OWNER[None]
    pixels = 0.2 + 0.6 * bright + rng.uniform(-0.1, 0.1, (len(labels), SIZE * SIZE))
    images = pixels.reshape(minibatches, size, SIZE, SIZE, 1)
    shape = (minibatches, size)
    return Probe(
        jnp.array(images, jnp.float32), jnp.array(labels.reshape(shape), jnp.int32)
    )
