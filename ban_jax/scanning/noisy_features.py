"""What a model makes of clean images under growing neuron noise: features and answers.

BAN's noise, untargeted, drives a backdoored model's features of all classes towards its
target's. Features are averaged over positions, and all of a model's are placed on one map,
so that radii can be compared.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import checkpoints, models, perturb, population
from ban_jax.convolution import tables
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Probe, Variables

SHARES = (0.0, 0.5, 1.0)
"""Of the radius."""
PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours a point has; fewer than a third of all points."""

Constants = tuple[tuple[float, ...], tuple[float, ...]]


class Seen(NamedTuple):
    """Of one model, at R radii: features `[R, N, c]` and answers `[R, N]`."""

    features: np.ndarray
    answers: np.ndarray


@population.compiled
def under_noise(
    variables: Variables,
    probe: Probe,
    key: Array,
    epsilon: Array,
    *,
    network: Network,
    steps: int,
) -> tuple[Array, Array]:
    """Features `[R, T, B, c]` and answers `[R, T, B]`, statistics of each minibatch."""
    noisy, _ = perturb.perturb_params(
        evidence.logits_of(network, "batch"),
        variables,
        probe.images[0],
        probe.labels[0],
        key=key,
        epsilon=epsilon,
        steps=steps,
        start=0.0,
    )

    def at(share: Array) -> tuple[Array, Array]:
        changed = perturb.interpolate(variables, noisy, share)

        def minibatch(images: Array) -> tuple[Array, Array]:
            found = evidence.features_of(network, "batch")(changed, images)
            logits, _ = network.head(changed, found, "batch")
            positions = tuple(range(1, found.ndim - 1))
            return jnp.mean(found, axis=positions), jnp.argmax(logits, axis=-1)

        return jax.lax.map(minibatch, probe.images)

    return jax.lax.map(at, jnp.asarray(SHARES))


def seen(
    candidate: checkpoints.Candidate,
    probe: Probe,
    *,
    epsilon: float,
    steps: int,
    normalisation: Constants | None = None,
) -> Seen:
    """What a model makes of the images at every radius.

    Args:
      candidate: the model.
      probe: clean images; the first minibatch finds the noise.
      epsilon: the radius.
      steps: of the search of the noise.
      normalisation: of pixels; None: the checkpoint's own.
    """
    network = models.network(candidate.spec.create(lowering=tables.default()))
    features, answers = jax.device_get(
        under_noise(
            candidate.full_variables(normalisation),
            probe,
            jax.random.key(0),
            jnp.asarray(epsilon),
            network=network,
            steps=steps,
        )
    )
    count = len(SHARES)
    return Seen(
        features.reshape(count, -1, features.shape[-1]), answers.reshape(count, -1)
    )


def placed(features: np.ndarray) -> np.ndarray:
    """Features `[R, N, c]` -> points `[R, N, 2]` of one map, each in [0, 1].

    Raises:
      ValueError: for features that are not finite, or where scikit-learn, which has t-SNE,
        is not installed.
    """
    try:
        from sklearn import manifold  # takes a second, and is not needed to scan
    except ImportError as error:
        raise ValueError(
            "t-SNE needs scikit-learn, with which this package is installed"
        ) from error
    flat = features.reshape(-1, features.shape[-1])
    if not np.isfinite(flat).all():
        raise ValueError("features under noise are not finite")
    perplexity = min(PERPLEXITY, (len(flat) - 1) / 3)
    points = manifold.TSNE(
        random_state=0, init="pca", perplexity=perplexity
    ).fit_transform(flat)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / np.maximum(high - low, 1e-9)
    return points.reshape(*features.shape[:2], 2)
