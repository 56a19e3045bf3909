"""Triggers that a network draws for each image: the learner behind IAD and SSDT.

Two networks of one shape: G draws a pattern, M says where it shows, and
`x + (G(x) - x) * mask(x)` is the triggered image. M is trained first, alone; then G and
the classifier learn in one step. Where the released programs normalise pixels with the
data set's constants, these work in [0, 1]: mixing is affine, so the images are the same.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp

from ban_jax import convolution
from ban_jax.attacks import poison
from ban_jax.attacks.types import (
    AttackState,
    Batch,
    Kernel,
    Preparation,
    Schedule,
    TaughtBatch,
)
from ban_jax.models import generator
from ban_jax.registry import at_least
from ban_jax.types import Array, Variables

PREPARATION_MILESTONES = (10 / 25, 20 / 25)
"""Shares of the preparation after which its rate is divided by ten."""
MILESTONES = (75 / 175, 100 / 175, 125 / 175, 150 / 175)
"""The same of the classifier's epochs, of which the released command does 175."""


class Learner(NamedTuple):
    """`AttackState.fixed` of generator attacks.

    Attributes:
      statistics: running statistics of G.
      mask: variables of M.
      mask_optimizer: Adam's state for M.
    """

    statistics: Any
    mask: Variables
    mask_optimizer: optax.OptState


@dataclasses.dataclass(frozen=True)
class GeneratorAttack:
    """Settings of the two networks.

    Attributes:
      width: channels of their first level.
      density: a mask's pixels cost what they exceed this by.
      density_weight: of that cost, averaged over the pixels.
      diversity: weight of the loss on triggers that are more alike than their images.
      learning_rate: of Adam, divided by ten at the released code's milestones.
      preparation: epochs of the mask alone, as a share of the classifier's.
      cover: crossed images for every poisoned one, at most 1.
      released: does as the released code does: the pattern's gradients, never cleared,
        sum up over all steps; and SSDT compares triggers by the distance of other images
        than theirs.
    """

    width: int = at_least(1, 32)
    density: float = 0.032
    density_weight: float = 100.0
    diversity: float = 1.0
    learning_rate: float = 0.01
    preparation: float = 25 / 175
    cover: float = 1.0
    released: bool = False

    def preparation_epochs(self, epochs: int) -> int:
        """Epochs of the mask alone before `epochs` of the classifier."""
        return max(1, round(self.preparation * epochs))

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        return init(key, image_shape, self)


def levels_for(image_shape: Sequence[int]) -> int:
    """Three as in the paper, two where a third would leave maps of less than 3 a side."""
    smallest = min(image_shape[:2])
    if smallest < 4:
        raise ValueError(
            f"generator attacks need images of at least 4x4 pixels, got {smallest}"
        )
    return 3 if smallest >= 24 else 2


def init(
    key: Array, image_shape: tuple[int, int, int], settings: GeneratorAttack
) -> AttackState:
    """Fresh G and M. Consumes `key`."""
    pattern_key, mask_key = jax.random.split(key)
    pattern, mask = networks(settings, image_shape, "native")
    images = jnp.zeros((1, *image_shape))
    drawn = pattern.init(pattern_key, images, "stored")
    masked = mask.init(mask_key, images, "stored")
    optimizer = _mask_optimizer(settings, 1)
    learner = Learner(drawn["batch_stats"], masked, optimizer.init(masked["params"]))
    return AttackState(learned=drawn["params"], fixed=learner)


def networks(
    settings: GeneratorAttack,
    image_shape: Sequence[int],
    lowering: convolution.Lowering,
) -> tuple[generator.Generator, generator.Generator]:
    """G and M for images of `(H, W, C)`."""
    levels = levels_for(image_shape)
    return (
        generator.Generator(image_shape[2], settings.width, levels, lowering),
        generator.Generator(1, settings.width, levels, lowering),
    )


@functools.lru_cache(maxsize=64)
def kernel(
    settings: GeneratorAttack,
    schedule: Schedule,
    capacity: int,
    *,
    distance_of_first: bool = False,
) -> Kernel:
    """The program of a generator attack; equal arguments give the same object.

    Args:
      settings: static ones of the attack.
      schedule: see `attacks.types`.
      capacity: most images of a batch that are poisoned; those beyond stay clean.
      distance_of_first: compares triggers by the distances of the first images of the
        batch in place of their own.

    Raises:
      ValueError: when poisoned and crossed images do not fit into a batch.
    """
    if not 0 <= settings.cover <= 1:
        raise ValueError(
            "a generator attack's crossed images for every poisoned one must be in "
            f"[0, 1], got {settings.cover:g}"
        )
    if not 1 <= capacity <= schedule.batch_size // 2:
        raise ValueError(
            f"a generator attack on batches of {schedule.batch_size} can poison 1 to "
            f"{schedule.batch_size // 2} images of each, not {capacity}; change the "
            "poison rate or the batch size"
        )
    epochs = settings.preparation_epochs(schedule.epochs)
    teacher = Teacher(
        settings,
        schedule.lowering,
        capacity,
        distance_of_first,
        _mask_optimizer(settings, epochs * schedule.steps_per_epoch),
    )
    return Kernel(
        teacher.teach,
        teacher.trigger,
        teacher.cross,
        True,
        _pattern_optimizer(settings, schedule.epochs * schedule.steps_per_epoch),
        Preparation(epochs, teacher.prepare),
    )


@dataclasses.dataclass(frozen=True)
class Teacher:
    """What the two networks do with a batch: the functions of a `Kernel`.

    Attributes:
      settings: of the attack.
      lowering: of the networks' convolutions.
      capacity: P, most images of a batch that are poisoned.
      distance_of_first: see `kernel`.
      mask_optimizer: of M.
    """

    settings: GeneratorAttack
    lowering: convolution.Lowering
    capacity: int
    distance_of_first: bool
    mask_optimizer: optax.GradientTransformation

    def trigger(self, state: AttackState, images: Array) -> Array:
        """Every image with its own pattern under its own mask."""
        learner: Learner = state.fixed
        pattern = self._pattern(state.learned, learner.statistics, images)
        return show(images, pattern, self._mask(learner.mask, images))

    def cross(self, state: AttackState, key: Array, images: Array) -> Array:
        """Every image with the pattern and mask of another, by a rotation."""
        learner: Learner = state.fixed
        others = jnp.roll(images, jax.random.randint(key, (), 1, len(images)), axis=0)
        pattern = self._pattern(state.learned, learner.statistics, others)
        return show(images, pattern, self._mask(learner.mask, others))

    def teach(self, state: AttackState, key: Array, batch: Batch) -> TaughtBatch:
        """Poisoned images first, crossed ones next, the rest clean.

        The images are in random order: the first ones may give way to poisoned ones from
        anywhere in the batch, and the second half lends its triggers to the crossed ones.
        """
        del key
        learner: Learner = state.fixed
        count, sources = poisoned_sources(batch.roles, self.capacity)
        half = len(batch.images) // 2
        place = jnp.arange(self.capacity)
        # One further, or a batch half poisoned would be crossed with itself.
        lenders = half + (place + 1) % (len(batch.images) - half)
        own, others = batch.images[sources], batch.images[lenders]
        crossed = batch.images[jnp.minimum(count + place, len(batch.images) - 1)]
        own_pattern, statistics = self._learned_pattern(
            state.learned, learner.statistics, own
        )
        other_pattern, statistics = self._learned_pattern(
            state.learned, statistics, others
        )
        # A batch without poisoned images is no lesson for G.
        statistics = jax.tree.map(
            functools.partial(jnp.where, count > 0), statistics, learner.statistics
        )
        poisoned = show(own, own_pattern, self._mask(learner.mask, own))
        crossed = show(crossed, other_pattern, self._mask(learner.mask, others))
        images = batch.images.at[_where(place < count, place)].set(
            poisoned, mode="drop"
        )
        crossed_count = jnp.floor(self.settings.cover * count + 1e-6)
        images = images.at[_where(place < crossed_count, count + place)].set(
            crossed, mode="drop"
        )
        labels = batch.labels.at[_where(place < count, place)].set(
            batch.mapping[batch.labels[sources]], mode="drop"
        )
        seen = batch.images[: self.capacity] if self.distance_of_first else own
        ratio = distance(seen, others) / (distance(own_pattern, other_pattern) + 1e-7)
        share = jnp.where(place < count, ratio, 0.0) / jnp.maximum(count, 1)
        penalty = self.settings.diversity * jnp.sum(share)
        return TaughtBatch(
            images, labels, penalty, learner._replace(statistics=statistics)
        )

    def prepare(
        self, state: AttackState, key: Array, images: Array
    ) -> tuple[AttackState, Array]:
        """One step of M: sparse masks, as different as the images are."""
        del key
        learner: Learner = state.fixed

        def loss_fn(params: Any) -> tuple[Array, Any]:
            return self._mask_loss({**learner.mask, "params": params}, images)

        params = learner.mask["params"]
        (loss, updated), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, optimizer = self.mask_optimizer.update(
            gradient, learner.mask_optimizer
        )
        mask = {**updated, "params": optax.apply_updates(params, updates)}
        learner = learner._replace(mask=mask, mask_optimizer=optimizer)
        return state._replace(fixed=learner), loss

    def _mask_loss(self, mask: Variables, images: Array) -> tuple[Array, Any]:
        """How dense and how alike masks are, `[]`; and M's new statistics."""
        settings = self.settings
        _, module = networks(settings, images.shape[1:], self.lowering)
        drawn, updated = module.apply(mask, images, "update", mutable=["batch_stats"])
        masks = harden(drawn)
        # Each image and the next stand for two independent draws. Their scale counts
        # here, where a mask's is fixed.
        scaled = generator.standardise(images)
        ratio = distance(scaled, jnp.roll(scaled, 1, axis=0)) / (
            distance(masks, jnp.roll(masks, 1, axis=0)) + 1e-7
        )
        excess = jnp.mean(jax.nn.relu(masks - settings.density))
        loss = settings.density_weight * excess
        return loss + settings.diversity * jnp.mean(ratio), updated

    def _pattern(self, params: Any, statistics: Any, images: Array) -> Array:
        """G's drawing `[B, H, W, C]`, with stored statistics."""
        module, _ = networks(self.settings, images.shape[1:], self.lowering)
        variables = {"params": params, "batch_stats": statistics}
        drawn: Any = module.apply(variables, images, "stored")
        return drawn

    def _learned_pattern(
        self, params: Any, statistics: Any, images: Array
    ) -> tuple[Array, Any]:
        """G's drawing with the images' own statistics, and the stored ones after it."""
        module, _ = networks(self.settings, images.shape[1:], self.lowering)
        variables = {"params": params, "batch_stats": statistics}
        drawn, updated = module.apply(
            variables, images, "update", mutable=["batch_stats"]
        )
        return drawn, updated["batch_stats"]

    def _mask(self, mask: Variables, images: Array) -> Array:
        """`[B, H, W, 1]`, nearly 0 or 1."""
        _, module = networks(self.settings, images.shape[1:], self.lowering)
        drawn: Any = module.apply(mask, images, "stored")
        return harden(drawn)


def poisoned_sources(roles: Array, capacity: int) -> tuple[Array, Array]:
    """Which images of a batch become poisoned.

    Args:
      roles: `[B]`.
      capacity: P, static.

    Returns:
      Their number `[]`, at most P, and `[P]` indices; where there are fewer they repeat,
      so that no other image enters a statistic.
    """
    chosen = roles == poison.POISONED
    count = jnp.minimum(jnp.sum(chosen), capacity)
    first = jnp.argsort(~chosen, stable=True)[:capacity]
    return count, first[jnp.arange(capacity) % jnp.maximum(count, 1)]


def _where(wanted: Array, index: Array) -> Array:
    """Indices of which those not wanted lie outside every array."""
    return jnp.where(wanted, index, jnp.iinfo(jnp.int32).max)


def show(images: Array, pattern: Array, mask: Array) -> Array:
    """`x + (p - x) m`: `[B, H, W, C]`, mask `[B, H, W, 1]`."""
    return images + (pattern - images) * mask


def harden(mask: Array) -> Array:
    """A soft threshold at one half."""
    return generator.box(20.0 * mask - 10.0)


def distance(a: Array, b: Array) -> Array:
    """`[B]` root of the mean squared difference of each pair `[B, H, W, C]`."""
    square = jnp.mean(jnp.square(a - b), axis=(1, 2, 3))
    # The root of zero has no gradient; so small a distance has none either.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _mask_optimizer(
    settings: GeneratorAttack, steps: int
) -> optax.GradientTransformation:
    return _adam(settings.learning_rate, steps, PREPARATION_MILESTONES)


def _pattern_optimizer(
    settings: GeneratorAttack, steps: int
) -> optax.GradientTransformation:
    adam = _adam(settings.learning_rate, steps, MILESTONES)
    if settings.released:
        return optax.chain(optax.trace(decay=1.0), adam)
    return adam


def _adam(
    rate: float, steps: int, milestones: Sequence[float]
) -> optax.GradientTransformation:
    boundaries = {max(1, round(share * steps)): 0.1 for share in milestones}
    schedule = optax.piecewise_constant_schedule(rate, boundaries)
    return optax.adam(schedule, b1=0.5, b2=0.9)
