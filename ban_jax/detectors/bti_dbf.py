"""BTI-DBF: features are parted into benign and other ones, and images led into the others.

Three stages per model. A U-Net is trained to give images back with their features and
answers. A mask over the features is learned with which the head classifies and without
which it cannot: the benign features. Then the U-Net is trained to leave the benign
features of clean images alone and to change all others as far as it can, within bounds.
Whatever class the changed images fall into is the suspect. No class is searched for, so
the cost does not grow with their number.

The published code names the most frequent class and never says "clean"; the share of the
predictions that fall into it is judged here, by the line of 0.9 that re-implementations of
it use.

`released` repeats the code released with the paper where that is another thing:

  * The U-Net's first loss compares predictions with the cross-entropy's arguments swapped,
    and after a softmax too many; here it is the divergence of the predictions from those
    of the clean image.
  * The candidate is in train mode while the mask is learned: its stored statistics drift,
    and later stages see what they became. Here they stay those of the file.
  * Images are cropped and mirrored at random, those that are counted too; here neither.
  * Every image votes, those of the class itself too, so that a network that changes
    nothing gives each class 1/K. Here a class gets the votes of images of other classes.
  * The U-Net of the last step is taken; here that of the epoch whose change of the other
    features was largest within the bounds, if there was one.

References:
  Xu et al., "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling
  Benign Features", ICLR 2024; `pretrain.py` and `btidbf.py` of xuxiong0214/BTIDBF.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.detectors import decoupling, evidence, rules, transforms
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.words import Words
from ban_jax.models import unet
from ban_jax.registry import at_least
from ban_jax.types import MINIBATCH, Array, Network, Probe, Variables

TRACED = (
    "learning_rate",
    "mask_learning_rate",
    "image_bound",
    "feature_bound",
    "noise",
)
STATIC = (
    "pretrain_epochs",
    "mask_epochs",
    "generator_epochs",
    "batches",
    "batch_size",
    "width",
    "crop",
    "flip",
    "released",
)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[*TRACED],
    meta_fields=[*STATIC],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released code. Floats are traced.

    Attributes:
      learning_rate: Adam's, of the U-Net in both of its stages.
      mask_learning_rate: Adam's, of the mask.
      image_bound: mean squared change of scaled images above which only that is lowered.
      feature_bound: the same of the benign features.
      noise: deviation of the noise on scaled images that are counted.
      pretrain_epochs: times `batches` steps, of the U-Net's first stage.
      mask_epochs: times `batches` steps, of the mask.
      generator_epochs: times `batches` steps, of the U-Net's second stage.
      batches: per epoch; 20 of 128 are the 5 % of CIFAR-10 that the paper takes.
      batch_size: images per step.
      width: channels of the U-Net's first block.
      crop: zero pixels around an image before a random crop, with `released`.
      flip: mirrors every other image, with `released`.
      released: repeats the released code where it does something else than the method.
    """

    learning_rate: float = 1e-3
    mask_learning_rate: float = 0.01
    image_bound: float = at_least(1e-6, 0.3)
    feature_bound: float = 3.0
    noise: float = 0.03
    pretrain_epochs: int = 50
    mask_epochs: int = at_least(1, 20)
    generator_epochs: int = at_least(1, 30)
    batches: int = at_least(1, 20)
    batch_size: int = at_least(1, MINIBATCH)
    width: int = at_least(1, unet.WIDTH)
    crop: int = 4
    flip: bool = True
    released: bool = False


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
      variables: its collections; drifting statistics are a copy.
      probe: images `[T, B, H, W, C]`, labels `[T, B]`.
      key: typed key, consumed.
      config: see `Settings`.

    Returns:
      Evidence whose vector `share` is the share of images of other classes that the
      U-Net leads into each class (with `released`, of all images), and whose vector
      `change` is how much it changes the images of each class, as a multiple of
      `image_bound`, NaN where the class has no image. Its pictures are an image of each
      class before and after, grey where it has none.
    """
    return measure(
        network, variables, probe, decoupling.decouple, key=key, config=config
    )


def measure(
    network: Network,
    variables: Variables,
    probe: Probe,
    decouple: decoupling.Decouple,
    *,
    key: Array,
    config: Any,
) -> evidence.Evidence:
    """`detect` with a mask of the caller's; pure."""
    init_key, pretrain_key, mask_key, generator_key, count_key = jax.random.split(
        key, 5
    )
    plain = evidence.over_minibatches(network, variables, probe.images, "stored")
    clean = transforms.clean_of(variables, probe)
    shape = clean.images.shape[1:]
    net = transforms.net_of(network, shape, config.width)
    params = transforms.init(net, init_key)
    params, pretrained = decoupling.pretrain(
        net, network, clean, params, pretrain_key, config
    )
    parted = decouple(network, clean, mask_key, config)
    clean = clean._replace(variables=parted.variables)
    params, generated, best_epoch = decoupling.generate(
        net, network, clean, params, parted.mask, generator_key, config
    )
    predictions, change = decoupling.count(
        net, network, clean, params, count_key, config
    )
    vector, error = shares(
        predictions, clean.labels, network.num_classes, config.released
    )
    own, own_error = _of_own(change, clean.labels, network.num_classes)
    curves = (parted.kept, parted.dropped, *pretrained.values(), *generated.values())
    finite = jnp.stack([jnp.all(jnp.isfinite(curve)) for curve in curves])
    places = transforms.first_of_each(clean.labels, network.num_classes)
    missing = jnp.isnan(own).reshape(-1, 1, 1, 1)
    samples = jnp.where(missing, jnp.nan, clean.images[places])
    return evidence.Evidence(
        vectors={"share": vector, "change": own / config.image_bound},
        errors={"share": error, "change": own_error / config.image_bound},
        clean_accuracy=jnp.mean(jnp.argmax(plain, axis=-1) == probe.labels),
        is_finite=jnp.all(jnp.isfinite(plain))
        & jnp.all(finite)
        & jnp.all(jnp.isfinite(change)),
        info={
            "search": {
                "rounds": jnp.full(1, config.generator_epochs),
                "round": jnp.arange(config.generator_epochs),
                "curves": {name: curve[:, None] for name, curve in generated.items()},
            },
            "mask_mean": jnp.mean(parted.mask),
            "mask_kept": parted.kept[-1],
            "mask_dropped": parted.dropped[-1],
            "best_epoch": best_epoch,
        },
        images=transforms.pictures(
            clean.scale, samples, transforms.apply(net, params, samples)
        ),
    )


def shares(
    predictions: Array, labels: Array, num_classes: int, released: bool
) -> tuple[Array, Array]:
    """Share of predictions per class `[K]`, and its standard error `[K]`."""
    votes = jax.nn.one_hot(predictions, num_classes)
    if not released:
        return evidence.share_of_others(votes, labels)
    share = jnp.mean(votes, axis=0)
    return share, jnp.sqrt(share * (1 - share) / labels.size)


def _of_own(values: Array, labels: Array, num_classes: int) -> tuple[Array, Array]:
    """Mean of values `[N]` over images of each class `[K]`, and its standard error.

    NaN and 0 for a class that has no image.
    """
    own = jax.nn.one_hot(labels, num_classes, dtype=values.dtype).T
    count = jnp.sum(own, axis=1)
    number = jnp.maximum(count, 1.0)
    mean = jnp.sum(own * values[None], axis=1) / number
    spread = jnp.sum(own * jnp.square(values[None] - mean[:, None]), axis=1) / number
    return jnp.where(count > 0, mean, jnp.nan), jnp.sqrt(spread / number)


def work(config: Any, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents, see `Detector.work`; those of the U-Net count alike.

    The U-Net's weights are trained, so its way back counts twice its way forth.
    """
    del num_classes
    per_batch = config.batches * config.batch_size
    pretraining = (3 + 3) * config.pretrain_epochs * per_batch
    mask = config.mask_epochs * per_batch if config.released else num_images
    generator = (3 + 3) * config.generator_epochs * per_batch
    return 3 * num_images + pretraining + mask + generator


MOST_CHANGE = 2.0
"""Multiple of the image bound beyond which the U-Net's images say nothing."""


class InvertedShare(rules.LargestShare):
    """The largest share, unless the U-Net never learned to keep to its bound.

    Its vectors are the share, which decides alone, and the change.
    """

    def scores(
        self, vectors: rules.Vectors, errors: rules.Vectors, against: rules.Baseline
    ) -> rules.Scores:
        """See `rules.Rule.scores`."""
        deciding = dataclasses.replace(self, vectors=self.vectors[:1])
        found = rules.LargestShare.scores(deciding, vectors, errors, against)
        change = np.asarray(vectors[self.vectors[1]], float)
        change = change[np.isfinite(change)]  # not of classes without an image
        if change.size and np.mean(change) > MOST_CHANGE:
            reason = (
                f"the U-Net changes images by {np.mean(change):.1f} times its bound: "
                "the inversion did not succeed"
            )
            return found._replace(reason=reason)
        if found.are_z:
            return found
        return found._replace(meaning="its share of the predictions for changed images")


WORDS = {
    **transforms.PICTURES,
    "share": Words(
        "Changed images per class",
        "Share of clean images of other classes that are answered with each class after "
        "a network has changed all of their features but the benign ones.",
    ),
    "change": Words(
        "Change of images of the class",
        "Mean squared change of clean images of each class by that network, as a "
        "multiple of what it may change.",
        "number",
    ),
}

COUNTS = ("pretrain_epochs", "mask_epochs", "generator_epochs")

RULE = InvertedShare(
    ("share", "change"),
    {"within": 0.9, "trusted": 5.0, "population": 3.4},
    # Most classes get no vote at all.
    floors={"share": 0.01},
)

DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=RULE,
    work=work,
    summary="benign features are masked, and images changed in all the others; the score "
    "is the share of changed images that fall into one class",
    vectors=WORDS,
    published=True,
    counts=COUNTS,
)
