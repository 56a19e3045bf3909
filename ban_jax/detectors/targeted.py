"""Neuron noise towards each class in turn: the target of a backdoor is the easy one.

For every class, noise that lowers the loss towards it on clean images of other classes;
then the share of fresh images of other classes that noise turns into it.
"""

import dataclasses
import functools

import jax
from jax import numpy as jnp

from ban_jax import perturb
from ban_jax.detectors import directed, evidence, rules
from ban_jax.detectors.detector import Detector
from ban_jax.registry import at_least
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon", "start", "radii"],
    meta_fields=["steps", "restarts"],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Floats are traced: changing one compiles nothing.

    Attributes:
      epsilon: radius of the neuron noise, relative to each scale and bias.
      radii: radii, as shares of epsilon, that the curve of the report is drawn at; the
        last one decides.
      start: radius of the random start, as a share of epsilon.
      steps: sign steps of one noise search.
      restarts: noise searches, each on the next minibatch and, where `start` is not 0,
        from a start of its own.
    """

    epsilon: float = 0.2
    radii: tuple[float, ...] = (0.5, 1.0)
    start: float = 0.0
    steps: int = at_least(1, 3)
    restarts: int = at_least(1, 1)


def detect(
    network: Network,
    variables: Variables,
    probe: Probe,
    *,
    key: Array,
    config: Settings,
) -> evidence.Evidence:
    """Measures one candidate; pure.

    Args:
      network: the model's two functions.
      variables: its collections.
      probe: images `[T, B, H, W, C]`, labels `[T, B]`, T minibatches. Restart r searches
        on minibatch r and counts on all the others.
      key: typed key, consumed.
      config: see `Settings`.

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
        noisy, info = directed.noise_towards(
            network,
            variables,
            probe.images[search],
            labels,
            target,
            key=jax.random.fold_in(jax.random.fold_in(key, restart), target),
            epsilon=config.epsilon,
            steps=config.steps,
            start=config.start,
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
    # Not made smaller by their number: they share images, or are the same.
    error = jnp.sqrt(jnp.mean(jnp.square(errors), axis=0))
    strongest = jnp.argmax(curve[-1])
    return evidence.Evidence(
        vectors={**plain.vectors, "targeted": curve[-1]},
        errors={**plain.errors, "targeted": error},
        clean_accuracy=plain.clean_accuracy,
        is_finite=plain.is_finite & jnp.all(finite) & jnp.all(jnp.isfinite(curves)),
        info={
            "curves": {"targeted": curve},
            "histogram": jnp.mean(histograms, axis=0)[strongest],
            "histogram_without_noise": plain.histogram,
        },
    )


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`."""
    minibatch = min(num_images, MINIBATCH)
    search = 2 * config.steps * minibatch
    count = evidence.fresh_images(num_images) + (len(config.radii) - 1) * minibatch
    return 2 * num_images + num_classes * config.restarts * (search + count)


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=rules.AverageZ(
        ("targeted", evidence.RISE),
        {"within": 3.3, "trusted": 4.4, "population": 3.2},
    ),
    work=work,
    summary="neuron noise towards each class in turn",
    vectors={
        **evidence.WORDS,
        "targeted": directed.WORDS["targeted"],
    },
)
