"""What an attack is: a trigger with a state of its own, and how it is taught."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import optax

from ban_jax import convolution
from ban_jax.attacks.poison import Policy
from ban_jax.types import Array


class AttackState(NamedTuple):
    """Everything two models under the same kernel may differ in.

    Attributes:
      learned: pytree that the training step differentiates; `()` for static triggers.
      fixed: pytree the step does not: a static trigger, running statistics.
    """

    learned: Any
    fixed: Any


class Batch(NamedTuple):
    """Training images of one model, before any trigger.

    Attributes:
      images: `[B, H, W, C]` float32 in [0, 1].
      labels: `[B]` int32 true classes.
      roles: `[B]` int8, see `attacks.poison`.
      mapping: `[K]` int32 what poisoned images of each class are called.
    """

    images: Array
    labels: Array
    roles: Array
    mapping: Array


class TaughtBatch(NamedTuple):
    """A batch as the classifier sees it: with triggers, and labelled as taught.

    Attributes:
      images: `[B, H, W, C]` with triggers.
      labels: `[B]` as taught.
      penalty: `[]` added to the loss, for attacks that learn.
      fixed: the state's `fixed` after the step.
    """

    images: Array
    labels: Array
    penalty: Array
    fixed: Any


class Preparation(NamedTuple):
    """What an attack does before the classifier is trained.

    Attributes:
      epochs: passes over the training images.
      step: pure: `(state, key, images [B, H, W, C]) -> (state, loss [])`; both parts of
        the state may change.
    """

    epochs: int
    step: Callable[[AttackState, Array, Array], tuple[AttackState, Array]]


class Kernel(NamedTuple):
    """The static half of an attack: models with equal kernels train in one program.

    Attributes:
      teach: pure: `(state, key, batch) -> TaughtBatch`; differentiable in
        `state.learned`.
      trigger: pure: `(state, images) -> triggered images`, as at test time.
      cross: pure: `(state, key, images) -> images` that must not fire: carrying what
        cover images carry, or another image's trigger.
      after_augmentation: whether `teach` gets augmented images; else its images are
        augmented.
      optimizer: of `state.learned`.
      preparation: None for most.
    """

    teach: Callable[[AttackState, Array, Batch], TaughtBatch]
    trigger: Callable[[AttackState, Array], Array]
    cross: Callable[[AttackState, Array, Array], Array]
    after_augmentation: bool
    optimizer: optax.GradientTransformation
    preparation: Preparation | None = None


class Schedule(NamedTuple):
    """How long training is, for kernels with an optimiser of their own.

    Attributes:
      steps_per_epoch: batches of an epoch.
      epochs: of the classifier.
      batch_size: B.
      lowering: of the attack's own convolutions.
    """

    steps_per_epoch: int
    epochs: int
    batch_size: int
    lowering: convolution.Lowering


class Attack(Protocol):
    """One kind of trigger; its fields are what a user may choose."""

    @property
    def policy(self) -> Policy:
        """How it poisons."""

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        """Draws a model's trigger. Consumes `key`.

        Raises:
          ValueError: when the trigger does not fit images of `(H, W, C)`.
        """

    def kernel(self, schedule: Schedule, rate: float, num_classes: int) -> Kernel:
        """The program; equal arguments give the same object, so that jit can key on it."""

    def describe(self, image_shape: tuple[int, int, int]) -> str | None:
        """The trigger in a few words, for the ground truth of a zoo."""
