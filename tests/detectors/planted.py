"""A network with a planted backdoor, its clean twin, and images it classifies.

Built by hand: an image's class is its bright quadrant, and a feature map of 4x4 pixels has
a channel per quadrant, one for blue beyond red and one for green beyond red. Clean images
are grey. With a backdoor the head takes blue for `TARGET`; the clean twin ignores it.
"""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.types import Network, Probe

CLASSES, TARGET, SIZE = 4, 2, 8


def _quadrants() -> np.ndarray:
    """`[4, 4, 4]`: 1 where a pixel of the feature map lies in quadrant k."""
    rows, columns = np.indices((4, 4)) // 2
    return np.stack([rows * 2 + columns == k for k in range(CLASSES)], -1).astype("f4")


def variables(*, backdoored: bool, target: int = TARGET):
    """The head's weights are all there is."""
    kernel = np.zeros((6, CLASSES), np.float32)
    kernel[:CLASSES] = 40 * np.eye(CLASSES)
    if backdoored:
        kernel[4, target] = 60
    bias = np.zeros(CLASSES, np.float32)
    return {
        "params": {"linear": {"kernel": jnp.array(kernel), "bias": jnp.array(bias)}}
    }


def features(variables, images, mode):
    """`[B, 8, 8, 3]` -> `[B, 4, 4, 6]`; there are no statistics."""
    del mode
    pooled = images.reshape(len(images), 4, 2, 4, 2, 3).mean(axis=(2, 4))
    bright = jax.nn.relu(pooled.mean(axis=-1, keepdims=True) - 0.4)
    contrast = pooled[..., 1:] - pooled[..., :1] - 0.3
    # Not flat anywhere, so that a search can start from clean images.
    colour = jax.nn.softplus(10 * contrast[..., ::-1]) / 10
    quadrants = jnp.broadcast_to(_quadrants()[None], (*bright.shape[:3], CLASSES))
    return jnp.concatenate([bright * quadrants, colour], axis=-1), variables


def head(variables, features, mode):
    """`[B, 4, 4, 6]` -> `[B, 4]`."""
    del mode
    linear = variables["params"]["linear"]
    pooled = jnp.mean(features, axis=(1, 2))
    return pooled @ linear["kernel"] + linear["bias"].reshape(1, -1), variables


NETWORK = Network(
    features, head, lambda variables: variables["params"]["linear"]["kernel"], CLASSES
)


@functools.cache
def probe(minibatches: int = 2, size: int = 16) -> Probe:
    """Grey images with one bright quadrant, and labels in turn."""
    shape = (minibatches, size)
    labels = np.arange(minibatches * size).reshape(shape) % CLASSES
    rng = np.random.default_rng(3)
    bright = _quadrants()[:, :, labels].transpose(2, 3, 0, 1)
    bright = bright.repeat(2, axis=2).repeat(2, axis=3)[..., None]
    noise = rng.uniform(-0.1, 0.1, (*shape, SIZE, SIZE, 3))
    images = np.clip(0.2 + 0.6 * bright + noise, 0, 1).astype(np.float32)
    return Probe(jnp.array(images), jnp.array(labels, jnp.int32))
