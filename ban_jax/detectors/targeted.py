"""Neuron noise towards each class in turn: the target of a backdoor is the easy one.

For every class, noise that lowers the loss towards it on clean images of other classes;
then the share of fresh images of other classes that noise turns into it.
"""

import jax
from jax import numpy as jnp

from ban_jax import perturb
from ban_jax.config import BanConfig
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Probe, Variables


def detect(
    network: Network,
    variables: Variables,
    probe: Probe,
    *,
    key: Array,
    config: BanConfig,
) -> evidence.Evidence:
    """Measures one candidate; pure.

    Args:
      network: the model's two functions.
      variables: its collections.
      probe: images `[T, B, H, W, C]`, labels `[T, B]`, T minibatches. Restart r searches
        on minibatch r and counts on all the others.
      key: typed key, consumed.
      config: `epsilon`, `radii`, `start`, `steps` and `restarts` are used.

    Returns:
      Evidence whose vector `targeted` is the mean probability, over images of other
      classes, that noise towards a class gives it.
    """
    num_classes = network.num_classes
    minibatches = probe.images.shape[0]
    plain = evidence.forward(network, variables, probe)
    apply_fn = evidence.logits_of(network, "batch")

    def towards(target: Array, restart: Array) -> tuple[Array, ...]:
        """Searches on one minibatch, counts on the others: `[R]`, `[]`, `[K]`, `[]`."""
        search, fresh = evidence.split(minibatches, restart)
        labels = probe.labels[search]
        noisy, info = perturb.perturb_params(
            apply_fn,
            variables,
            probe.images[search],
            jnp.full(labels.shape, target),
            key=jax.random.fold_in(jax.random.fold_in(key, restart), target),
            epsilon=config.epsilon,
            steps=config.steps,
            start=config.start,
            towards=True,
            weights=(labels != target).astype(probe.images.dtype),
        )

        def forward(share: Array, minibatch: Array) -> Array:
            scaled = perturb.interpolate(variables, noisy, share)
            return apply_fn(scaled, probe.images[minibatch])

        # Weaker noise is only drawn, never judged: one minibatch will do.
        *weaker, full = config.radii
        shares = jnp.asarray([*[full] * fresh.size, *weaker])
        counted = jnp.concatenate([fresh, jnp.repeat(fresh[:1], len(weaker))])
        logits = jax.lax.map(lambda job: forward(*job), (shares, counted))

        def count(logits: Array, minibatches: Array) -> tuple[Array, Array]:
            mean, error = evidence.share_of_others(
                jax.nn.softmax(logits).reshape(-1, num_classes),
                probe.labels[minibatches].reshape(-1),
            )
            return mean[target], error[target]

        mean, error = count(logits[: fresh.size], fresh)
        curve = [count(one, fresh[0])[0] for one in logits[fresh.size :]]
        histogram = evidence.histogram(logits[: fresh.size])
        return jnp.stack([*curve, mean]), error, histogram, info.is_finite

    def all_classes(restart: Array) -> tuple[Array, ...]:
        return jax.lax.map(
            lambda target: towards(target, restart), jnp.arange(num_classes)
        )

    curves, errors, histograms, finite = jax.lax.map(
        all_classes, jnp.arange(config.restarts)
    )  # [Q, K, R], [Q, K], [Q, K, K], [Q, K]
    curve = jnp.mean(curves, axis=0).T
    error = jnp.sqrt(jnp.mean(jnp.square(errors), axis=0) / config.restarts)
    strongest = jnp.argmax(curve[-1])
    return evidence.Evidence(
        vectors={**plain.vectors, "targeted": curve[-1]},
        errors={**plain.errors, "targeted": error},
        curves={"targeted": curve},
        histogram=jnp.mean(histograms, axis=0)[strongest],
        histogram_without_noise=plain.histogram,
        clean_accuracy=plain.clean_accuracy,
        is_finite=plain.is_finite & jnp.all(finite),
    )
