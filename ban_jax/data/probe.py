"""The defender's clean images as minibatches, over which statistics are taken."""

import hashlib
import warnings

import numpy as np
from jax import numpy as jnp

from ban_jax.types import MINIBATCH, Probe


def minibatches(images: np.ndarray, labels: np.ndarray) -> Probe:
    """Cuts clean images into whole minibatches; batch statistics are taken over each.

    The images keep their order, which should be a random one: a minibatch of few classes
    has statistics that the model never met, and evidence from it misleads. Warns where a
    minibatch lacks half of the classes that so many random images would show, and where
    there is but one.

    Args:
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.

    Returns:
      Images `[T, B, H, W, C]` and labels `[T, B]`, B being `types.MINIBATCH` or N where
      there are fewer; images beyond a whole minibatch are left out. In the given order.

    Raises:
      ValueError: with fewer than two images: a batch of one has no variance.
    """
    labels = np.asarray(labels)
    count = len(labels)
    if count < 2:
        raise ValueError(f"at least 2 clean images are needed, got {count}")
    size = min(MINIBATCH, count)
    whole = count // size * size
    if whole == size:
        warnings.warn(
            f"{count} clean images are fewer than two minibatches of {MINIBATCH}: what is "
            "searched for is counted on the same images, and scores are coarse",
            stacklevel=2,
        )
    fewest = min(len(set(batch)) for batch in labels[:whole].reshape(-1, size).tolist())
    expected = expected_classes(len(np.unique(labels)), size)
    if fewest <= expected / 2:
        warnings.warn(
            f"a minibatch of {size} clean images shows {fewest} of "
            f"{len(np.unique(labels))} classes, where a random one shows about "
            f"{expected:.0f}: its statistics are not the model's. Shuffle the images, "
            "which seem to be sorted by class",
            stacklevel=2,
        )
    return Probe(
        jnp.asarray(images[:whole], jnp.float32).reshape(-1, size, *images.shape[1:]),
        jnp.asarray(labels[:whole], jnp.int32).reshape(-1, size),
    )


def expected_classes(classes: int, size: int) -> float:
    """Classes that so many images show on average, drawn from classes of one size."""
    return classes * (1.0 - (1.0 - 1.0 / classes) ** size)


def digest(probe: Probe) -> str:
    """SHA-256 of the probe: results of another probe are other results."""
    hasher = hashlib.sha256(str(probe.images.shape).encode())
    hasher.update(np.asarray(probe.images).tobytes())
    hasher.update(np.asarray(probe.labels).tobytes())
    return hasher.hexdigest()
