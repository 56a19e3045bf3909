"""Which training images carry the trigger, and what they are called."""

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np

Mode = Literal["all_to_one", "all_to_all"]

CLEAN, POISONED = 0, 1
"""What an image is to a model; attacks with cover images add a third."""


@dataclasses.dataclass(frozen=True)
class PoisonSpec:
    """Who is mapped to whom.

    Attributes:
      rate: share of the images that may be poisoned which are: all images but the
        target's for `all_to_one`, all for `all_to_all`.
      target: the class triggered images go to; unused by `all_to_all`.
      mode: `all_to_all` sends class y to y + 1 modulo K.
    """

    rate: float
    target: int | None = None
    mode: Mode = "all_to_one"

    def check(self, num_classes: int) -> None:
        """Raises ValueError on a rate outside [0, 1] or a target that is no class."""
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the poison rate must be in [0, 1], got {self.rate:g}")
        if self.mode == "all_to_one" and self.target not in range(num_classes):
            raise ValueError(
                f"the target must be a class in 0..{num_classes - 1}, got {self.target}"
            )


class Plan(NamedTuple):
    """What one model is taught about the shared training images.

    Attributes:
      labels: `[N]` int32, changed where poisoned.
      roles: `[N]` int8, `CLEAN` or `POISONED`.
    """

    labels: np.ndarray
    roles: np.ndarray


NO_POISON = PoisonSpec(rate=0.0, mode="all_to_all")


def plan(labels: np.ndarray, num_classes: int, spec: PoisonSpec, *, seed: int) -> Plan:
    """Draws the poisoned images.

    Promises: exactly floor(rate * eligible) images are poisoned; no image of the target
    class is; equal arguments give equal plans.
    """
    spec.check(num_classes)
    labels = np.asarray(labels, np.int32)
    to_one = spec.mode == "all_to_one"
    eligible = (
        np.flatnonzero(labels != spec.target) if to_one else np.arange(len(labels))
    )
    # A rate like 0.29 times 100 is 28.999... in floating point.
    count = math.floor(spec.rate * len(eligible) + 1e-9)
    chosen = np.random.RandomState(seed).permutation(eligible)[:count]
    roles = np.full(len(labels), CLEAN, np.int8)
    roles[chosen] = POISONED
    taught = np.where(roles == POISONED, wanted(labels, num_classes, spec), labels)
    return Plan(taught.astype(np.int32), roles)


def wanted(labels: np.ndarray, num_classes: int, spec: PoisonSpec) -> np.ndarray:
    """`[N]` what the attacker wants triggered images of these classes to be called."""
    if spec.mode == "all_to_all":
        return (labels + 1) % num_classes
    return np.full_like(labels, spec.target)


def success_rate(
    predictions: np.ndarray, labels: np.ndarray, num_classes: int, spec: PoisonSpec
) -> float:
    """Attack success on triggered images with true `labels`, both `[N]`.

    `all_to_one` leaves out the target's own images, which would succeed without any
    trigger; `all_to_all` leaves out none.
    """
    counted = (
        labels != spec.target
        if spec.mode == "all_to_one"
        else np.ones(len(labels), bool)
    )
    hits = predictions == wanted(labels, num_classes, spec)
    return float(hits[counted].mean()) if counted.any() else float("nan")
