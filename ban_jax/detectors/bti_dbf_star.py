"""BTI-DBF*: BTI-DBF with the feature mask of BAN.

Nothing in BTI-DBF's mask loss keeps the mask small: it may call almost every feature
benign, and leave none to be changed. BAN's mask pays for its size. The other two stages,
the bounds and the verdict are those of `detectors.bti_dbf`.

Of the variant only the mask's training was released; what is not known is taken from there
(the weight, a mask that is clamped instead of boxed) and from BTI-DBF (all else).
`released` takes the mask's training step as it was released, with drifting statistics and
its norm over itself (`detectors.reference` says what that is), and BTI-DBF's own.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise", NeurIPS
  2024, for the variant; `ban_detection.py` of the code released with it.
"""

import dataclasses
import functools

import jax

from ban_jax import mask as masks
from ban_jax.detectors import bti_dbf, decoupling, evidence, reference
from ban_jax.detectors.decoupling import Decoupled
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.transforms import Clean
from ban_jax.types import Array, Network, Probe, Variables


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[*bti_dbf.TRACED, "l1_weight"],
    meta_fields=[*bti_dbf.STATIC],
)
@dataclasses.dataclass(frozen=True)
class Settings(bti_dbf.Settings):
    """Those of `bti_dbf.Settings`, and the weight of the mask's size.

    Attributes:
      learning_rate, mask_learning_rate, image_bound, feature_bound, noise: see there.
      pretrain_epochs, mask_epochs, generator_epochs, batches, batch_size: see there.
      width, crop, flip, released: see there.
      l1_weight: weight of the mask's mean; with `released`, of its norm over itself.
    """

    l1_weight: float = 0.75


def detect(
    network: Network,
    variables: Variables,
    probe: Probe,
    *,
    key: Array,
    config: Settings,
) -> evidence.Evidence:
    """Measures one candidate; pure. See `bti_dbf.detect`."""
    return bti_dbf.measure(network, variables, probe, decouple, key=key, config=config)


def decouple(network: Network, clean: Clean, key: Array, config: Settings) -> Decoupled:
    """Learns the mask of the benign features, as BAN does."""
    start_key, steps_key = jax.random.split(key)
    if not config.released:
        # All images in every step: only the head is computed, on remembered features.
        features = decoupling.remembered(network, clean, config.batch_size)[1].images
        mask, info = masks.optimize_mask(
            lambda variables, features: network.head(variables, features, "stored")[0],
            clean.variables,
            features,
            clean.labels,
            key=start_key,
            l1_weight=config.l1_weight,
            learning_rate=config.mask_learning_rate,
            steps=config.mask_epochs * config.batches,
        )
        return Decoupled(mask, clean.variables, info.loss_kept, info.loss_dropped)

    features = jax.eval_shape(
        lambda images: network.features(clean.variables, images, "stored")[0],
        clean.images[:1],
    )
    start = jax.random.uniform(start_key, features.shape[1:], features.dtype)
    told = reference.Settings(
        l1_weight=config.l1_weight, mask_learning_rate=config.mask_learning_rate
    )

    def step(
        state: reference.MaskState, job: tuple[Array, Array]
    ) -> tuple[reference.MaskState, tuple[Array, Array]]:
        index, key = job
        images = decoupling.draw(clean, index, key, config)
        state, info = reference.mask_step(
            network, state, images, clean.labels[index], told
        )
        return state, (info.kept, info.dropped)

    index, keys = decoupling.steps_of(steps_key, clean, config.mask_epochs, config)
    jobs = index.reshape(-1, index.shape[-1]), keys.reshape(-1)
    first = reference.start_mask(clean.variables, start)
    state, (kept, dropped) = jax.lax.scan(step, first, jobs)
    return Decoupled(state.mask, state.variables, kept, dropped)


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=bti_dbf.RULE,
    work=bti_dbf.work,
    summary="BTI-DBF with BAN's feature mask, which pays for its size; the score is the "
    "share of changed images that fall into one class",
    vectors=bti_dbf.WORDS,
    published=True,
    counts=bti_dbf.COUNTS,
)
