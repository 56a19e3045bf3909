"""BAN: untargeted neuron noise, and where it leaves doubt searches towards classes.

The released verdict reads one histogram: predictions under noise through the complement
of the mask. Both halves mislead on their own. With stored statistics every model
collapses into some class, and the complement of a mask concentrates the predictions of a
clean model with no noise at all, because little is left of the features and the head's
bias decides. So statistics are those of the minibatch under the noise, and each histogram
under noise is read against the same histogram without it.

What a class is suspected of is seen by several witnesses, one vector each: the pull of
untargeted noise, the stored statistics and the last layer; and where these leave doubt two
that cost a search per class (`detectors.directed`). Besides, a patch of a hundredth of the
image is searched towards each class: one that most images follow is proof by itself, and
finds models whose noise was tamed by fine-tuning.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024, section 3.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import numpy as jnp

from ban_jax import mask as masks
from ban_jax import patch, perturb
from ban_jax.detectors import directed, evidence, witnesses
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words
from ban_jax.registry import at_least
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables

CHEAP = ("untargeted", evidence.RISE, "last_layer")
"""Vectors that cost no search per class."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "epsilon",
        "start",
        "radii",
        "l1_weight",
        "mask_learning_rate",
    ],
    meta_fields=[
        "steps",
        "restarts",
        "mask_steps",
        "patch_steps",
        "patch_images",
        "patch_classes",
    ],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Floats are traced: changing one compiles nothing.

    Attributes:
      epsilon: radius of the neuron noise, relative to each scale and bias.
      radii: radii, as shares of epsilon, at which noise is searched; all of them count.
      start: radius of the random start, as a share of the radius at hand.
      steps: sign steps of one noise search.
      restarts: noise searches per radius, each on the next minibatch and, where `start` is
        not 0, from a start of its own.
      l1_weight: weight of the mask's mean in the mask's loss.
      mask_learning_rate: Adam's step for the mask; 0.01 in the paper.
      mask_steps: Adam steps for the mask.
      patch_steps: sign steps of one search of a patch; 0: none is searched.
      patch_images: images each of those is made on, at most a minibatch, or half of a
        single one.
      patch_classes: classes they are made towards at most: of more, those that noise
        pulls most to.
    """

    epsilon: float = 0.4
    radii: tuple[float, ...] = (1.0,)
    start: float = 0.0
    steps: int = at_least(1, 4)
    restarts: int = at_least(1, 1)
    l1_weight: float = 0.75
    mask_learning_rate: float = 0.05
    mask_steps: int = 20
    patch_steps: int = at_least(0, 3)
    patch_images: int = at_least(1, 32)
    patch_classes: int = at_least(1, 12)


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
      probe: images `[T, B, H, W, C]`, labels `[T, B]`; a restart searches on one
        minibatch and counts on the others.
      key: typed key, consumed.
      config: see `Settings`; noise is searched anew at each radius.

    Returns:
      Evidence with, each averaged over restarts and radii,
      `untargeted`: how much noise raises the mean probability of each class, over images
      of other classes; `untargeted_masked`: the same through the mask's complement, which
      is reported but does not enter the score (see `DETECTOR`); and, where a hundredth of
      an image is a pixel at least, `patch`: what a patch adds to the mean probability of
      each class, NaN for those it was not searched towards; the strongest one itself is in
      `info`, see `directed.Strongest`.
    """
    num_classes = network.num_classes
    minibatches = probe.images.shape[0]
    mask_key, noise_key = jax.random.split(key)

    def features_of(candidate: Variables, images: Array) -> Array:
        passed = evidence.features_of(network, "batch")
        return jax.lax.map(lambda minibatch: passed(candidate, minibatch), images)

    def head_of(candidate: Variables, features: Array) -> Array:
        """Flat `[N, h, w, c]` -> `[N, K]`, statistics of each minibatch apart."""
        grouped = features.reshape(-1, *probe.labels.shape[1:], *features.shape[1:])
        logits = jax.lax.map(
            lambda minibatch: network.head(candidate, minibatch, "batch")[0], grouped
        )
        return logits.reshape(-1, num_classes)

    def probabilities(candidate: Variables, features: Array) -> Array:
        """`[2, N, K]`: of each class, whole and through the mask's complement."""
        views = jnp.stack([features, features * (1 - mask)[None]])
        return jax.nn.softmax(jax.vmap(lambda view: head_of(candidate, view))(views))

    def share(values: Array, labels: Array) -> tuple[Array, Array]:
        """`[2, N, K]` -> mean and standard error `[2, K]` over images of other classes."""
        pairs = [evidence.share_of_others(view, labels) for view in values]
        return jnp.stack([mean for mean, _ in pairs]), jnp.stack([e for _, e in pairs])

    cached = features_of(variables, probe.images)
    flat = cached.reshape(-1, *cached.shape[2:])
    plain = evidence.forward(network, variables, probe, head_of(variables, flat))
    mask, mask_info = masks.optimize_mask(
        head_of,
        variables,
        flat,
        probe.labels.reshape(-1),
        key=mask_key,
        l1_weight=config.l1_weight,
        learning_rate=config.mask_learning_rate,
        steps=config.mask_steps,
    )

    def shift(radius: Array, restart: Array) -> tuple[Array, ...]:
        search, others = evidence.split(minibatches, restart)
        noisy, info = perturb.perturb_params(
            evidence.logits_of(network, "batch"),
            variables,
            probe.images[search],
            probe.labels[search],
            key=jax.random.fold_in(noise_key, restart),
            epsilon=radius,
            steps=config.steps,
            start=config.start,
        )
        labels = probe.labels[others].reshape(-1)
        features = features_of(noisy, probe.images[others])
        features = features.reshape(-1, *features.shape[2:])
        before = probabilities(
            variables, cached[others].reshape(-1, *features.shape[1:])
        )
        after = probabilities(noisy, features)
        shifted = share(after, labels)[0] - share(before, labels)[0]
        error = share(after - before, labels)[1]
        # Compiled apart, the two halves may round apart where there is no noise at all.
        shifted, error = (
            jnp.where(info.max_abs == 0, 0.0, one) for one in (shifted, error)
        )
        logits = head_of(noisy, features)
        return shifted, error, evidence.histogram(logits), info.is_finite

    def at_radius(share: Array) -> tuple[Array, ...]:
        return jax.lax.map(
            lambda restart: shift(share * config.epsilon, restart),
            jnp.arange(config.restarts),
        )

    shifts, errors, histograms, finite = jax.lax.map(
        at_radius, jnp.asarray(config.radii)
    )
    curves = jnp.mean(shifts, axis=1)  # [R, Q, 2, K] -> [R, 2, K]
    # Radii and restarts share their images, and without a random start a restart on the
    # same minibatch is the same: their errors are averaged, never taken from the spread
    # between them, nor made smaller by their number.
    error = jnp.mean(jnp.sqrt(jnp.mean(jnp.square(errors), axis=1)), axis=0)
    names = ("untargeted", "untargeted_masked")
    vectors = {
        **plain.vectors,
        **{name: jnp.mean(curves[:, i], axis=0) for i, name in enumerate(names)},
    }
    errors = {**plain.errors, **{name: error[i] for i, name in enumerate(names)}}
    is_finite = plain.is_finite & jnp.all(finite) & mask_info.is_finite
    is_finite &= jnp.all(jnp.isfinite(shifts))
    told: dict[str, Any] = {
        "curves": {name: curves[:, i] for i, name in enumerate(names)},
        "histogram": jnp.mean(histograms[-1], axis=0),
        "histogram_without_noise": plain.histogram,
    }
    has_patch = config.patch_steps > 0 and patch.side(probe.images.shape[2:]) > 0
    if has_patch:
        tried = min(num_classes, config.patch_classes)
        # Noise says nothing of a class in networks without batch statistics.
        telling = "untargeted" if evidence.RISE in vectors else "last_layer"
        reached, strongest = directed.patches(
            network,
            variables,
            probe,
            jax.lax.top_k(vectors[telling], tried)[1],
            steps=config.patch_steps,
            num_images=config.patch_images,
        )
        vectors["patch"], errors["patch"] = reached.share, reached.error
        is_finite &= reached.is_finite
        told["patch"] = strongest._asdict()
    else:
        config = dataclasses.replace(config, patch_steps=0)
    return evidence.Evidence(
        vectors=vectors,
        errors=errors,
        clean_accuracy=plain.clean_accuracy,
        is_finite=is_finite,
        info=told,
        work=jnp.asarray(work(config, num_classes, probe.labels.size)),
    )


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`; the mask's are not among them."""
    minibatch = min(num_images, MINIBATCH)
    search = 2 * config.steps * minibatch
    runs = len(config.radii) * config.restarts
    noise = runs * (search + evidence.fresh_images(num_images))
    tried = min(num_classes, config.patch_classes) if config.patch_steps else 0
    wanted, minibatches = config.patch_images, -(-num_images // MINIBATCH)
    images = directed.searched_on(wanted, minibatch, minibatches) if tried else 0
    patches = directed.work_of_patches(tried, images, config.patch_steps)
    return 2 * num_images + noise + patches


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    # Through the mask's complement (`untargeted_masked`) clean models stand out too.
    rule=witnesses.Agreement(
        (*CHEAP, *directed.WORDS),
        needed=tuple(name for name in CHEAP if name != evidence.RISE),
        dear=directed.VECTORS,
        doubt=2.0,
        statistics=evidence.RISE,
        noisy=("untargeted", "targeted"),
        explained={"targeted": "stored", "untargeted": "stored"},
        proofs={"patch": "a patch of a hundredth of the image"},
        levels={"universal": "one small change of all images' pixels"},
    ),
    further="directed",
    apart=("patch_steps", "patch_images", "patch_classes"),
    work=work,
    summary="neuron noise that breaks all classes at once, a feature mask, and a small "
    "patch towards each class; predictions under noise are compared with predictions "
    "without it",
    vectors={
        **evidence.WORDS,
        "untargeted": Words(
            "Pull of undirected noise",
            "How much the probability of each class rises, on images of other classes, "
            "when neurons are nudged to make mistakes. Mistakes of a backdoored network "
            "gather in its target.",
            "difference",
        ),
        "untargeted_masked": Words(
            "Pull of undirected noise, masked",
            "The same, read through the features that the network does not need for "
            "clean images.",
            "difference",
        ),
        "patch": Words(
            "Pull of a small patch",
            "What a patch of a hundredth of the image, found by gradients, adds to the "
            "probability of each class, on images of other classes. Above one half it is "
            "proof by itself.",
            "difference",
        ),
        **directed.WORDS,
    },
)
