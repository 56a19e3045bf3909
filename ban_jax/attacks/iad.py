"""IAD, input-aware dynamic: every image gets a trigger of its own from a network.

References:
  Nguyen and Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020; constants of
  xiaoyunxxy/ban, train_models/IAD.
"""

import dataclasses

from ban_jax.attacks import generator, poison
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import Kernel, Schedule


@dataclasses.dataclass(frozen=True)
class IAD(generator.GeneratorAttack):
    """Settings of the networks.

    Attributes:
      rate: share of every batch that is poisoned.
    """

    rate: float = 0.1

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, cover=self.cover, per_batch=True)

    def kernel(self, schedule: Schedule, rate: float, num_classes: int) -> Kernel:
        del num_classes
        capacity = poison.whole(rate * schedule.batch_size)
        return generator.kernel(self, schedule, capacity)

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"a pattern drawn for each image by a network of width {self.width}"
