"""Which training images carry a trigger, and what they are called."""

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np

Mode = Literal["all_to_one", "all_to_all", "one_to_one"]
"""Who is mapped to whom: every class to the target, class y to y + 1 modulo K, or the
victim class alone to the target."""

CLEAN, POISONED, COVER = 0, 1, 2
"""What an image is to a model. A cover image is changed but keeps its label: it teaches
the model to answer to the very trigger and nothing else."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a kind of attack poisons; what its paper or released code documents.

    Attributes:
      rate: the documented share, see `PoisonSpec.rate`.
      cover: cover images for every poisoned one.
      per_batch: the first images of every shuffled batch are poisoned, others each
        epoch; else a set drawn once.
      eligible: classes that images are drawn from: all, those other than the target, the
        target alone (clean-label attacks), or the victim alone.
      modes: who can be mapped to whom.
    """

    rate: float
    cover: float = 0.0
    per_batch: bool = False
    eligible: Literal["all", "others", "target", "victim"] = "all"
    modes: tuple[Mode, ...] = ("all_to_one", "all_to_all")


NO_POISON = Policy(rate=0.0, modes=("all_to_all",))


@dataclasses.dataclass(frozen=True)
class PoisonSpec:
    """What one model's attacker chose.

    Attributes:
      rate: share poisoned: of the images of the eligible classes where these are `all`,
        `others` or `victim`; of all images, but at most the whole class, for `target`.
        Per-batch attacks: of every batch.
      target: the class triggered images go to; unused by `all_to_all`.
      mode: see `Mode`.
      victim: the class that `one_to_one` attacks.
    """

    rate: float
    target: int | None = None
    mode: Mode = "all_to_one"
    victim: int | None = None

    def check(self, num_classes: int, policy: Policy | None = None) -> None:
        """Raises ValueError on settings that are impossible with these classes."""
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the poison rate must be in [0, 1], got {self.rate:g}")
        classes = range(num_classes)
        if self.mode != "all_to_all" and self.target not in classes:
            raise ValueError(
                f"the target must be a class in 0..{num_classes - 1}, got {self.target}"
            )
        if self.mode == "one_to_one" and (
            self.victim not in classes or self.victim == self.target
        ):
            raise ValueError(
                "one_to_one needs a victim class in "
                f"0..{num_classes - 1} other than the target {self.target}, got "
                f"{self.victim}"
            )
        if policy and self.mode not in policy.modes:
            raise ValueError(
                f"this attack is defined for {' and '.join(policy.modes)}, not for "
                f"{self.mode}"
            )


class Plan(NamedTuple):
    """What one model is taught about the shared training images.

    Attributes:
      roles: `[N]` int8 `CLEAN`, `POISONED` or `COVER`, for sets drawn once.
      slots: `[B]` int8 the same for positions in a batch, for per-batch attacks.
      mapping: `[K]` int32 what poisoned images of each class are called.
    """

    roles: np.ndarray
    slots: np.ndarray
    mapping: np.ndarray


def plan(
    labels: np.ndarray,
    num_classes: int,
    spec: PoisonSpec,
    policy: Policy,
    *,
    batch_size: int,
    seed: int,
) -> Plan:
    """Draws the images that carry the trigger, and the cover images.

    Promises: exactly floor(rate * eligible) images are poisoned and floor(cover *
    poisoned) are cover images, no image is both; equal arguments give equal plans.

    Args:
      labels: `[N]` true classes of the training images.
      num_classes: K.
      spec: the attacker's choice.
      policy: of the attack.
      batch_size: B.
      seed: of the drawing.

    Raises:
      ValueError: for an impossible `spec`, and when poisoned and cover images exceed
        what there is.
    """
    spec.check(num_classes, policy)
    labels = np.asarray(labels, np.int32)
    roles = np.full(len(labels), CLEAN, np.int8)
    slots = np.full(batch_size, CLEAN, np.int8)
    mapping = wanted(np.arange(num_classes, dtype=np.int32), num_classes, spec)
    if policy.per_batch:
        places, order = slots, np.arange(batch_size)
        poisoned = whole(spec.rate * batch_size)
    else:
        random = np.random.RandomState(seed)
        eligible = np.flatnonzero(_eligible(labels, spec, policy))
        order = random.permutation(eligible)
        base = len(labels) if policy.eligible == "target" else len(eligible)
        poisoned = min(whole(spec.rate * base), len(eligible))
        places = roles
    cover = whole(policy.cover * poisoned)
    if poisoned + cover > len(order):
        raise ValueError(
            f"{poisoned} poisoned and {cover} cover images do not fit into {len(order)} "
            f"{'of a batch' if policy.per_batch else 'eligible ones'}; lower the "
            "poison rate"
        )
    places[order[:poisoned]] = POISONED
    places[order[poisoned : poisoned + cover]] = COVER
    return Plan(roles, slots, mapping.astype(np.int32))


def whole(count: float) -> int:
    """Whole images of a share: 0.29 times 100 is 28.999... in floating point."""
    return math.floor(count + 1e-9)


def _eligible(labels: np.ndarray, spec: PoisonSpec, policy: Policy) -> np.ndarray:
    """`[N]` bool."""
    if policy.eligible == "target":
        return labels == spec.target
    if policy.eligible == "victim":
        return labels == spec.victim
    if policy.eligible == "others" and spec.mode != "all_to_all":
        return labels != spec.target
    return np.ones(len(labels), bool)


def wanted(labels: np.ndarray, num_classes: int, spec: PoisonSpec) -> np.ndarray:
    """`[N]` what the attacker wants triggered images of these classes to be called."""
    if spec.mode == "all_to_all":
        return (labels + 1) % num_classes
    return np.full_like(labels, spec.target)


def to_succeed(labels: np.ndarray, spec: PoisonSpec) -> np.ndarray:
    """`[N]` bool: the images that count for the success of an attack.

    `all_to_one` leaves out the target's own images, which would succeed without any
    trigger; `all_to_all` leaves out none; `one_to_one` counts the victims.
    """
    if spec.mode == "one_to_one":
        return labels == spec.victim
    if spec.mode == "all_to_one":
        return labels != spec.target
    return np.ones(len(labels), bool)


def success_rate(
    predictions: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    spec: PoisonSpec,
    *,
    count_target: bool = False,
) -> float:
    """Attack success on triggered images with true `labels`, both `[N]`.

    Without the trigger some images succeed too, mistaken for what the attacker wants. What
    the trigger does is the rate with it less the rate of the same images without it.

    Args:
      predictions: classes of the triggered images, or of the same without the trigger.
      labels: their true classes.
      num_classes: K.
      spec: the attacker's choice; `to_succeed` says which images count.
      count_target: `all_to_one` counts the target's images too, as the released
        evaluators of WaNet, IAD and Bpp do: up to 1/K too much.

    Returns:
      In [0, 1]; NaN where no image counts.
    """
    counted = to_succeed(labels, spec)
    if count_target and spec.mode == "all_to_one":
        counted[:] = True
    hits = predictions == wanted(labels, num_classes, spec)
    return float(hits[counted].mean()) if counted.any() else float("nan")
