"""A four-line network with normalisation, one without, and a probe to try them on."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import population
from ban_jax.scanning import examination
from ban_jax.types import Network, Probe

CLASSES = 5
CHANNELS = 6


def variables(seed: int = 0, *, normalised: bool = True, dtype=jnp.float32):
    """`stem` (2x2 pixels to channels), `bn` where asked for, and a linear `head`."""
    stem, scale, bias, head = jax.random.split(jax.random.key(seed), 4)
    params = {
        "stem": {"kernel": jax.random.normal(stem, (3, CHANNELS), dtype)},
        "linear": {
            "kernel": jax.random.normal(head, (CHANNELS, CLASSES), dtype),
            "bias": jnp.zeros((CLASSES,), dtype),
        },
    }
    if normalised:
        params["bn"] = {
            "scale": 1 + 0.1 * jax.random.normal(scale, (CHANNELS,), dtype),
            "bias": 0.1 * jax.random.normal(bias, (CHANNELS,), dtype),
        }
    stats = {"bn": {"mean": jnp.zeros((CHANNELS,)), "var": jnp.ones((CHANNELS,))}}
    return {"params": params, "batch_stats": stats}


def features(variables, images, mode):
    """`[B, 4, 4, 3]` -> `[B, 4, 4, CHANNELS]`; statistics as `mode` says, never updated."""
    x = jnp.einsum("bhwc,cd->bhwd", images, variables["params"]["stem"]["kernel"])
    if "bn" in variables["params"]:
        stats = variables["batch_stats"]["bn"]
        mean, var = stats["mean"], stats["var"]
        if mode != "stored":
            mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        bn = variables["params"]["bn"]
        factor = bn["scale"] * jax.lax.rsqrt(var + 1e-5)
        x = x * factor.reshape(1, 1, 1, -1)
        x += (bn["bias"] - mean * factor).reshape(1, 1, 1, -1)
    return jax.nn.relu(x), variables


def head(variables, features, mode):
    """`[B, 4, 4, CHANNELS]` -> `[B, CLASSES]`."""
    del mode
    linear = variables["params"]["linear"]
    pooled = jnp.mean(features, axis=(1, 2))
    return pooled @ linear["kernel"] + linear["bias"].reshape(1, -1), variables


def classifier(variables):
    """`[CHANNELS, CLASSES]`."""
    return variables["params"]["linear"]["kernel"]


NETWORK = Network(features, head, classifier, CLASSES)


def apply(variables, images, mode="batch"):
    """Logits `[B, CLASSES]`."""
    return head(variables, features(variables, images, mode)[0], mode)[0]


@functools.cache
def probe(minibatches: int = 3, size: int = 8) -> Probe:
    """Random images `[T, B, 4, 4, 3]` and labels."""
    images = jax.random.uniform(jax.random.key(7), (minibatches, size, 4, 4, 3))
    labels = jnp.arange(minibatches * size).reshape(minibatches, size) % CLASSES
    return Probe(images, labels)


def placement(devices: int = 1, *, stacked: bool = False) -> population.Placement:
    """The first few devices."""
    return population.Placement(tuple(jax.devices()[:devices]), stacked)


ONE_ON_THREADS, ONE_STACKED = placement(), placement(stacked=True)


def member(seed: int = 0) -> examination.Member:
    """`variables` with one choice of pixel constants and an identity of its own."""
    means, stds = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    words = population.identity_words(f"{7**seed:064x}")
    host = jax.tree.map(np.asarray, variables(seed))
    return examination.Member(host, means, stds, words)


def common(config, seed: int = 0) -> examination.Common:
    """The probe, a seed and a detector's settings."""
    return examination.Common(probe(), jax.random.key(seed), config)


def examiner(detect):
    """Evidence of one candidate, as a new function (`chex` wants no `partial`)."""

    def evidence(member, common):
        return examination.examine(
            member, common, network=NETWORK, detect=detect
        ).evidence

    return evidence
