"""Checkpoint files of a small network of our own: what compiles for it is soon compiled."""

import contextlib
import os

import jax
import numpy as np

from ban_jax import checkpoints, models
from tests.checkpoints import own_network

SPEC = checkpoints.ModelSpec("small", num_classes=5, width=2, in_channels=1)


@contextlib.contextmanager
def known():
    """While the body runs, the network's checkpoints are recognised."""
    things = models.ARCHITECTURES._things
    before = dict(things)
    models.register_architecture("small", own_network.Small)
    try:
        yield
    finally:
        things.clear()
        things.update(before)


def variables(seed, spec=SPEC):
    """Weights as He et al. draw them; normalisation layers that do nothing yet."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        if name == "kernel":
            deviation = np.sqrt(2 / np.prod(shape.shape[:-1]))
            return rng.normal(0, deviation, shape.shape).astype(np.float32)
        return np.full(shape.shape, name in ("scale", "var", "gain"), np.float32)

    made = dict(models.abstract_variables(spec.create()))
    del made["normalisation"]
    return jax.tree_util.tree_map_with_path(leaf, made)


def save(folder, name, found, spec=SPEC, **metadata):
    """Writes variables as `name` and returns the path."""
    path = os.path.join(folder, name)
    checkpoints.write_safetensors(path, found, spec, metadata=metadata)
    return path


def twin(seed, pixels, deviation=0.008):
    """A model that takes almost all images for what `expert(0, pixels)` does."""
    found, rng = expert(0, pixels)[0], np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf * rng.normal(1, deviation, leaf.shape).astype(np.float32),
        found,
    )


def images(count=256):
    """Random pixels `[N, 8, 8, 1]` and labels of five classes in turn."""
    pixels = np.random.default_rng(0).random((count, 8, 8, 1), np.float32)
    return pixels, np.arange(count, dtype=np.int32) % 5


def expert(seed, pixels, mean=0.0, std=1.0, spec=SPEC):
    """A model and what it takes images for: labels of a clean set it knows by heart.

    Its last bias makes up for the mean logits, so that several classes are found.
    """
    network = models.network(spec.create())
    constants = {
        "mean": np.full(1, mean, np.float32),
        "std": np.full(1, std, np.float32),
    }
    found = variables(seed, spec)
    apply = jax.jit(lambda images, found: network.logits(found, images, "stored")[0])
    logits = np.asarray(apply(pixels, {**found, "normalisation": constants}))
    bias = found["params"]["linear"]["bias"]
    bias += -logits.mean(axis=0).astype(np.float32).reshape(bias.shape)
    logits = np.asarray(apply(pixels, {**found, "normalisation": constants}))
    labels = logits.argmax(axis=-1).astype(np.int32)
    assert len(np.unique(labels)) > 2
    return found, labels


def comparable(line):
    """A line without what differs from run to run."""
    return {name: value for name, value in line.items() if name != "seconds"}
