"""What the released BAN code does, step by step, its quirks included.

Written to agree with it number by number when given its draws, for comparison;
`detectors.ban` is the method done right. The quirks:

  * Until the evaluation statistics are in train mode, so the stored ones drift: once in
    a forward of noise images that only serves to learn the features' shape, then in
    every mask step (a normalisation in the head moves twice, for the mask and its
    complement) and in every noise step. The evaluation uses what they have become.
  * The mask is clamped between the loss and Adam's step: cross-entropies, their
    gradients and the norm are those of the unclamped mask, the sign in the
    regulariser's gradient is that of the clamped one, and the last mask may leave
    [0, 1].
  * The regulariser is the mask's L1 norm over that norm as a constant.
  * Noise is drawn anew for every batch and never clipped, so it may reach twice
    epsilon. Only the last batch's counts, but the statistics remember the others.
  * The evaluation sees augmented images.

What differs: the released command optimises on 1 % of the training images and evaluates
on 10 %, those included; here both are the whole probe. It mirrors images of every data
set, as there for CIFAR-10.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024; `ban_detection.py` of the code released with it, and the settings of its
  README.

One file of over 400 lines: the procedure with its quirks is read beside the released one.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import optax
from jax import numpy as jnp

from ban_jax import perturb
from ban_jax.data import augmentation
from ban_jax.detectors import evidence, rules
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words
from ban_jax.perturb import Noise
from ban_jax.registry import at_least
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon", "l1_weight", "mask_learning_rate"],
    meta_fields=["steps", "mask_epochs", "batches", "batch_size", "crop", "flip"],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released README. Floats are traced.

    Attributes:
      epsilon: radius the noise is drawn from, and its movement on top of that.
      steps: sign steps of each noise search, of length epsilon / steps.
      l1_weight: weight of the mask's regulariser.
      mask_learning_rate: Adam's step for the mask.
      mask_epochs: times `batches` mask steps.
      batches: mask steps per epoch, and noise searches.
      batch_size: images of a step, drawn with replacement.
      crop: zero pixels around an image before a random crop.
      flip: mirrors every other image.
    """

    epsilon: float = 0.3
    steps: int = at_least(1, 30)
    l1_weight: float = 0.75
    mask_learning_rate: float = 0.01
    mask_epochs: int = at_least(1, 20)
    batches: int = at_least(1, 20)
    batch_size: int = at_least(1, MINIBATCH)
    crop: int = 4
    flip: bool = True


class Views(NamedTuple):
    """Images drawn from the probe and how each one is augmented.

    Attributes:
      image: `[..., B]` which one of the flattened probe.
      shift: `[..., B, 2]` row and column where the crop of the padded image starts.
      mirrored: `[..., B]` bool.
    """

    image: Array
    shift: Array
    mirrored: Array


class Draws(NamedTuple):
    """Everything random in a run.

    Attributes:
      inputs: `[B, H, W, C]` of the first forward, as after the normalisation.
      mask: `[h, w, c]` start of the mask.
      mask_views: `[S, B]` images of each mask step.
      noise: where each of the Q noise searches starts, `[Q, C]` per parameter.
      noise_views: `[Q, B]` images of each noise search.
      unmasked_views: `[T, B]` images of the first evaluation, each of the probe once.
      negative_views: `[T, B]` the same of the second: augmentation is drawn again.
    """

    inputs: Array
    mask: Array
    mask_views: Views
    noise: Noise
    noise_views: Views
    unmasked_views: Views
    negative_views: Views


class MaskState(NamedTuple):
    """What a mask step changes: `[h, w, c]`, Adam's moments, the stored statistics."""

    mask: Array
    optimizer: optax.OptState
    variables: Variables


class MaskInfo(NamedTuple):
    """What a mask step saw: cross-entropies through mask and complement, the L1 norm
    before the clamp, and the gradient `[h, w, c]` Adam was given."""

    kept: Array
    dropped: Array
    norm: Array
    gradient: Array


class NoiseInfo(NamedTuple):
    """What a noise step saw: the cross-entropy before it, and its gradient."""

    loss: Array
    gradient: Noise


class Run(NamedTuple):
    """Outcome of the procedure.

    Attributes:
      mask: `[h, w, c]` after the last step, unclamped.
      noise: of the last batch.
      variables: with the statistics of the evaluation, without noise.
      kept, dropped: `[S]` cross-entropies of the mask steps.
      noise_loss: `[Q, steps]`.
      unmasked: `[T, B, K]` logits under noise.
      negative: `[T, B, K]` logits under noise through the mask's complement.
      negative_without_noise: `[T, B, K]` the same without noise, which is not released.
    """

    mask: Array
    noise: Noise
    variables: Variables
    kept: Array
    dropped: Array
    noise_loss: Array
    unmasked: Array
    negative: Array
    negative_without_noise: Array


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
      variables: its collections; the drifting statistics are a copy.
      probe: images `[T, B, H, W, C]`, labels `[T, B]`.
      key: typed key, consumed.
      config: see `Settings`.

    Returns:
      Evidence with the share of predictions per class under noise as vectors: `share`
      through the mask's complement, which the share rule reads and `histogram`
      repeats, and `share_unmasked`. `histogram_without_noise` is `share` with the noise
      taken off but with the statistics it left behind.
    """
    plain = evidence.forward(network, variables, probe)
    draws = draw(network, variables, probe, key=key, config=config)
    found = run(network, variables, probe, draws, config)
    vectors = {
        "share": evidence.histogram(found.negative),
        "share_unmasked": evidence.histogram(found.unmasked),
    }
    errors = {
        name: jnp.sqrt(share * (1 - share) / probe.labels.size)
        for name, share in vectors.items()
    }
    seen = (found.kept, found.dropped, found.noise_loss, found.unmasked, found.negative)
    finite = jnp.stack([jnp.all(jnp.isfinite(values)) for values in seen])
    return evidence.Evidence(
        vectors={**plain.vectors, **vectors},
        errors={**plain.errors, **errors},
        clean_accuracy=plain.clean_accuracy,
        is_finite=plain.is_finite & jnp.all(finite),
        info={
            "histogram": vectors["share"],
            "histogram_without_noise": evidence.histogram(found.negative_without_noise),
        },
    )


def draw(
    network: Network,
    variables: Variables,
    probe: Probe,
    *,
    key: Array,
    config: Settings,
) -> Draws:
    """Draws everything random in a run from one key, consumed."""
    inputs_key, mask_key, mask_views_key, noise_key, views_key = jax.random.split(
        key, 5
    )
    noise_views_key, unmasked_key, negative_key = jax.random.split(views_key, 3)
    size, batches = config.batch_size, config.batches
    epsilon = jnp.asarray(config.epsilon)
    inputs = jax.random.uniform(inputs_key, (size, *probe.images.shape[2:]))
    features = jax.eval_shape(
        lambda images: network.features(variables, images, "stored")[0], inputs
    )
    every = jnp.arange(probe.labels.size).reshape(probe.labels.shape)

    def sample(key: Array, count: int) -> Views:
        index_key, views_key = jax.random.split(key)
        index = jax.random.randint(index_key, (count, size), 0, probe.labels.size)
        return views(views_key, index)

    def views(key: Array, index: Array) -> Views:
        shift, mirrored = augmentation.draw_augmentation(
            key, index.size, crop=config.crop, flip=config.flip
        )
        return Views(
            index, shift.reshape(*index.shape, 2), mirrored.reshape(index.shape)
        )

    return Draws(
        inputs=inputs,
        mask=jax.random.uniform(mask_key, features.shape[1:], features.dtype),
        mask_views=sample(mask_views_key, config.mask_epochs * batches),
        noise=jax.vmap(lambda key: perturb.init_noise(key, variables, epsilon))(
            jax.random.split(noise_key, batches)
        ),
        noise_views=sample(noise_views_key, batches),
        unmasked_views=views(unmasked_key, every),
        negative_views=views(negative_key, every),
    )


def run(
    network: Network,
    variables: Variables,
    probe: Probe,
    draws: Draws,
    config: Settings,
) -> Run:
    """The whole procedure with every draw given; pure."""
    images = probe.images.reshape(-1, *probe.images.shape[2:])
    labels = probe.labels.reshape(-1)

    def take(views: Views) -> tuple[Array, Array]:
        chosen = augmentation.crop_and_mirror(
            images[views.image], views.shift, views.mirrored, crop=config.crop
        )
        return chosen, labels[views.image]

    def mask_body(state: MaskState, views: Views) -> tuple[MaskState, tuple]:
        state, info = mask_step(network, state, *take(views), config)
        return state, (info.kept, info.dropped)

    def search(
        carry: tuple[Variables, Noise], batch: tuple[Views, Noise]
    ) -> tuple[tuple[Variables, Noise], Array]:
        views, start = batch
        chosen = take(views)

        def noise_body(carry, _):
            variables, noise = carry
            variables, noise, info = noise_step(
                network, variables, noise, *chosen, config
            )
            return (variables, noise), info.loss

        return jax.lax.scan(noise_body, (carry[0], start), length=config.steps)

    def predict(variables: Variables, views: Views, factor: Array | float) -> Array:
        def minibatch(views: Views) -> Array:
            features, _ = network.features(variables, take(views)[0], "stored")
            return network.head(variables, features * factor, "stored")[0]

        return jax.lax.map(minibatch, views)

    state = start_mask(shape_forward(network, variables, draws.inputs), draws.mask)
    state, (kept, dropped) = jax.lax.scan(mask_body, state, draws.mask_views)
    first = jax.tree.map(lambda start: start[0], draws.noise)
    (variables, noise), noise_loss = jax.lax.scan(
        search, (state.variables, first), (draws.noise_views, draws.noise)
    )
    noisy = perturb.apply_noise(variables, noise)
    complement = (1 - state.mask)[None]
    return Run(
        mask=state.mask,
        noise=noise,
        variables=variables,
        kept=kept,
        dropped=dropped,
        noise_loss=noise_loss,
        unmasked=predict(noisy, draws.unmasked_views, 1.0),
        negative=predict(noisy, draws.negative_views, complement),
        negative_without_noise=predict(variables, draws.negative_views, complement),
    )


def shape_forward(network: Network, variables: Variables, inputs: Array) -> Variables:
    """The features of `inputs`, taken as normalised; only the statistics remember."""
    pixels = variables.get("normalisation", {})
    identity = {name: jnp.full_like(pixels[name], name == "std") for name in pixels}
    _, updated = network.features(
        {**variables, "normalisation": identity}, inputs, "update"
    )
    return {**updated, "normalisation": pixels}


def start_mask(variables: Variables, mask: Array) -> MaskState:
    """A mask before its first step."""
    return MaskState(mask, optax.scale_by_adam().init(mask), variables)


def mask_step(
    network: Network,
    state: MaskState,
    images: Array,
    labels: Array,
    config: Settings,
) -> tuple[MaskState, MaskInfo]:
    """One step of Adam on the mask, the clamp where the released code has it.

    Args:
      network: the model's two functions.
      state: mask, moments and statistics so far.
      images: `[B, H, W, C]`, augmented.
      labels: `[B]`.
      config: `l1_weight` and `mask_learning_rate` are used.
    """
    features, variables = network.features(state.variables, images, "update")

    def objective(mask: Array) -> tuple[Array, tuple[Array, Array, Variables]]:
        logits, after = network.head(variables, features * mask[None], "update")
        kept = perturb.cross_entropy(logits, labels)
        logits, after = network.head(after, features * (1 - mask)[None], "update")
        dropped = perturb.cross_entropy(logits, labels)
        return kept - dropped, (kept, dropped, after)

    gradient, (kept, dropped, variables) = jax.grad(objective, has_aux=True)(state.mask)
    norm = jnp.sum(jnp.abs(state.mask))
    clamped = jnp.clip(state.mask, 0, 1)
    gradient += config.l1_weight * jnp.sign(clamped) / norm
    direction, optimizer = optax.scale_by_adam().update(gradient, state.optimizer)
    mask = clamped - config.mask_learning_rate * direction
    return (
        MaskState(mask, optimizer, variables),
        MaskInfo(kept, dropped, norm, gradient),
    )


def noise_step(
    network: Network,
    variables: Variables,
    noise: Noise,
    images: Array,
    labels: Array,
    config: Settings,
) -> tuple[Variables, Noise, NoiseInfo]:
    """One sign step up the cross-entropy, unclipped; the statistics move too.

    Args:
      network: the model's two functions.
      variables: without noise.
      noise: so far.
      images: `[B, H, W, C]`, augmented.
      labels: `[B]`.
      config: `epsilon` and `steps` are used.

    Returns:
      The variables with moved statistics and without noise, the noise, a `NoiseInfo`.
    """

    def objective(noise: Noise) -> tuple[Array, Variables]:
        noisy = perturb.apply_noise(variables, noise)
        features, after = network.features(noisy, images, "update")
        logits, after = network.head(after, features, "update")
        return perturb.cross_entropy(logits, labels), after

    (loss, after), gradient = jax.value_and_grad(objective, has_aux=True)(noise)
    step_size = config.epsilon / config.steps
    noise = jax.tree.map(lambda n, g: n + step_size * jnp.sign(g), noise, gradient)
    return {**after, "params": variables["params"]}, noise, NoiseInfo(loss, gradient)


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`."""
    del num_classes
    mask = config.mask_epochs * config.batches * config.batch_size
    search = 2 * config.batches * config.steps * config.batch_size
    return 5 * num_images + config.batch_size + mask + search


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=rules.LargestShare(
        ("share",),
        # 0.9 is what a re-implementation uses; the released code draws no verdict.
        {"within": 0.9, "trusted": 5.0, "population": 3.4},
        # A histogram of argmaxes is zero for most classes.
        floors={"share": 0.01},
    ),
    work=work,
    summary="the procedure of the published BAN code, step by step; the score is the "
    "share of predictions that fall into one class",
    vectors={
        **evidence.WORDS,
        "share": Words(
            "Predictions under noise, masked",
            "Share of clean images answered with each class under undirected noise, read "
            "through the features that the network does not need for clean images.",
        ),
        "share_unmasked": Words(
            "Predictions under noise", "The same share, read through all features."
        ),
    },
    counts=("steps", "mask_epochs"),
)
