"""What a detector measures of one candidate, and the forward passes many of them share."""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from ban_jax import perturb, types
from ban_jax.detectors import slices
from ban_jax.detectors.words import Words
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables


class Evidence(NamedTuple):
    """One candidate's measurements; a verdict is drawn from them on the host.

    Attributes:
      vectors: name -> `[K]`, larger where a class looks more like a backdoor's target.
      errors: name -> `[K]` standard error of each entry, from the images it averages.
      clean_accuracy: `[]` on the probe, stored statistics; NaN where there was none.
      is_finite: `[]` bool, false where any loss, logit or weight was not.
      info: whatever else a method has to tell, a tree of arrays: it goes into the record
        as it is. The report draws `curves` (name -> `[R, K]`, a vector at each noise
        radius), `histogram` (`[K]`, share of predictions per class under noise),
        `histogram_without_noise`, and `search` (`inversion.told`, losses by round).
      images: name -> `[K, H, W, C]` in [0, 1], such as a recovered trigger of each class;
        the report shows them.
      work: `[]` image forward-equivalents that were done, by a method that may end early;
        None: as many as `Detector.work` says.
    """

    vectors: dict[str, Array]
    errors: dict[str, Array]
    clean_accuracy: Array
    is_finite: Array
    info: dict[str, Any] = {}
    images: dict[str, Array] = {}
    work: Array | None = None


def fresh_images(num_images: int) -> int:
    """Images a search leaves for counting; all of them where there is one minibatch."""
    return max(num_images - MINIBATCH, min(num_images, MINIBATCH))


def split(minibatches: int, restart: Array) -> tuple[Array, Array]:
    """The minibatch a restart searches on, and the others, which it counts on.

    Returns:
      Index `[]` and indices `[T - 1]`; of a single minibatch, itself both times.
    """
    search = restart % minibatches
    return search, (search + 1 + jnp.arange(max(minibatches - 1, 1))) % minibatches


def logits_of(network: Network, mode: types.NormMode) -> perturb.ApplyFn:
    """`(variables, images [B,H,W,C]) -> logits [B,K]` of a network cut in two."""
    return _in_slices(network.logits, network, mode)


def features_of(network: Network, mode: types.NormMode) -> perturb.ApplyFn:
    """`(variables, images [B,H,W,C]) -> features [B,h,w,c]`."""
    return _in_slices(network.features, network, mode)


def _in_slices(
    run: types.FeaturesFn, network: Network, mode: types.NormMode
) -> perturb.ApplyFn:
    """What a network gives, in `slices` unless images have to do with one another."""

    def apply_fn(variables: Variables, images: Array) -> Array:
        def passed(images: Array) -> Array:
            return run(variables, images, mode)[0]

        shared = mode != "stored" and variables.get("batch_stats")
        if network.images_apart and not shared:
            return slices.in_slices(passed, images)
        return passed(images)

    return apply_fn


def over_minibatches(
    network: Network, variables: Variables, images: Array, mode: types.NormMode
) -> Array:
    """Logits `[T, B, K]` of `[T, B, H, W, C]`, statistics of each minibatch apart."""

    apply_fn = logits_of(network, mode)
    return jax.lax.map(lambda minibatch: apply_fn(variables, minibatch), images)


def share_of_others(values: Array, labels: Array) -> tuple[Array, Array]:
    """Per class, the mean of `values` over the images of other classes.

    Args:
      values: `[N, K]`, for example softmax probabilities or one-hot predictions.
      labels: `[N]`.

    Returns:
      Mean `[K]` and its standard error `[K]`; zeros where every image is of the class.
    """
    num_classes = values.shape[1]
    others = 1.0 - jax.nn.one_hot(labels, num_classes, dtype=values.dtype)
    count = jnp.maximum(jnp.sum(others, axis=0), 1.0)
    mean = jnp.sum(values * others, axis=0) / count
    spread = jnp.sum(jnp.square(values - mean[None]) * others, axis=0) / count
    return mean, jnp.sqrt(spread / count)


def histogram(logits: Array) -> Array:
    """Share of predictions per class `[K]` of logits `[..., K]`."""
    num_classes = logits.shape[-1]
    predictions = jnp.argmax(logits, axis=-1).reshape(-1)
    return jnp.mean(jax.nn.one_hot(predictions, num_classes), axis=0)


RISE = "batch_minus_stored"
"""The vector that only networks with stored batch statistics have."""
WORDS = {
    "stored": Words(
        "Probability under stored statistics",
        "Mean probability of each class on clean images of other classes, with the "
        "normalisation statistics stored in the checkpoint.",
    ),
    "batch": Words(
        "Probability under batch statistics",
        "The same mean probability with statistics taken from the images at hand.",
    ),
    RISE: Words(
        "Batch less stored statistics",
        "Rise of the probability of each class when the stored statistics, which a "
        "backdoored network learned with triggered images, are replaced.",
        "difference",
    ),
    "last_layer": Words(
        "Last layer, mean weight per class",
        "Mean of the weights that lead to each class. No images are needed.",
        "number",
    ),
}
"""Of the vectors that `forward` gives."""


class Forward(NamedTuple):
    """The forward passes without noise that most modes begin with (`forward`)."""

    vectors: dict[str, Array]
    errors: dict[str, Array]
    histogram: Array
    clean_accuracy: Array
    is_finite: Array


def forward(
    network: Network, variables: Variables, probe: Probe, batch: Array | None = None
) -> Forward:
    """Class vectors that need no noise, and the clean accuracy.

    `stored` and `batch` are the mean softmax probability of each class over images of
    other classes, under stored statistics and under those of the minibatch. The stored
    ones were learned with triggered images among the clean ones; without them the
    target's share rises, so `batch_minus_stored` points at it. Networks without batch
    normalisation have no such vector.

    Args:
      probe: images `[T, B, H, W, C]` and labels `[T, B]`.
      batch: logits `[N, K]` under the statistics of the minibatch, where they are known.
    """
    labels = probe.labels.reshape(-1)
    stored = over_minibatches(network, variables, probe.images, "stored")
    if batch is None:
        batch = over_minibatches(network, variables, probe.images, "batch")
    stored_p = jax.nn.softmax(stored).reshape(labels.size, -1)
    batch_p = jax.nn.softmax(batch).reshape(labels.size, -1)
    vectors, errors = {}, {}
    shares = {"stored": stored_p, "batch": batch_p}
    if variables.get("batch_stats"):  # a network without statistics has none to forget
        shares[RISE] = batch_p - stored_p
    for name, values in shares.items():
        vectors[name], errors[name] = share_of_others(values, labels)
    vectors["last_layer"] = last_layer(network, variables)
    errors["last_layer"] = jnp.zeros_like(vectors["last_layer"])
    return Forward(
        vectors=vectors,
        errors=errors,
        histogram=histogram(batch),
        clean_accuracy=jnp.mean(jnp.argmax(stored_p, axis=-1) == labels),
        is_finite=jnp.all(jnp.isfinite(stored)) & jnp.all(jnp.isfinite(batch)),
    )


def last_layer(network: Network, variables: Variables) -> Array:
    """Per class `[K]`, the mean of its weights in the final linear layer.

    A backdoor lifts its target's logit from many features at once (the idea of judging
    the final layer alone is DFBScanner's, arXiv 2605.18907).
    """
    return jnp.mean(network.classifier(variables), axis=0)
