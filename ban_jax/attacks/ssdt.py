"""SSDT, source-specific dynamic trigger: IAD's networks against one victim class.

References:
  Mo et al., "Robust Backdoor Detection for Deep Learning via Topological Evolution
  Dynamics" (TED), S&P 2024; constants of xiaoyunxxy/ban, train_models/ted.
"""

import dataclasses
import math

from ban_jax.attacks import generator
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import Kernel, Schedule


@dataclasses.dataclass(frozen=True)
class SSDT(generator.GeneratorAttack):
    """Settings of the networks; every image of the victim in a batch is poisoned."""

    @property
    def policy(self) -> Policy:
        return Policy(rate=1.0, eligible="victim", modes=("one_to_one",))

    def kernel(self, schedule: Schedule, rate: float, num_classes: int) -> Kernel:
        del rate
        # Room for far more victims than a batch of random images holds.
        expected = schedule.batch_size / num_classes
        capacity = math.ceil(expected + 4 * math.sqrt(expected))
        capacity = max(1, min(capacity, schedule.batch_size // 2))
        return generator.kernel(
            self, schedule, capacity, distance_of_first=self.released
        )

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"a pattern drawn for victims' images by a network of width {self.width}"
