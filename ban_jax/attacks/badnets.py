"""BadNets: a small opaque patch.

References:
  Gu et al., "BadNets: Evaluating Backdooring Attacks on Deep Neural Networks",
  IEEE Access 2019; the 3x3 pattern is that of BAN's released code.
"""

import dataclasses
from typing import Literal

import jax
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array

MOTIF = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0))
"""The 3x3 pattern of the field, equal in all channels; other sizes stretch it."""


@dataclasses.dataclass(frozen=True)
class BadNets(static.StaticAttack):
    """Settings of the patch.

    Attributes:
      size: side in pixels.
      position: `corner` touches the lower right border; `random` draws one place per
        model.
      opacity: 1 hides what is below.
      rate: share of the images of other classes that are poisoned.
    """

    size: int = 3
    position: Literal["corner", "random"] = "corner"
    opacity: float = 1.0
    rate: float = 0.05

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, eligible="others")

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        height, width, _ = image_shape
        if not 1 <= self.size <= min(height, width):
            raise ValueError(
                f"a BadNets patch of {self.size}x{self.size} pixels does not fit "
                f"images of {height}x{width}"
            )
        if not 0 < self.opacity <= 1:
            raise ValueError(
                f"a BadNets patch's opacity must be in (0, 1], got {self.opacity:g}"
            )
        last = jnp.array([height - self.size, width - self.size])
        if self.position == "random":
            row, column = jax.random.randint(key, (2,), 0, last + 1)
        else:
            row, column = last
        stretch = jnp.arange(self.size) * len(MOTIF) // self.size
        patch = jnp.array(MOTIF)[stretch][:, stretch, None]
        pattern, mask = (
            jnp.broadcast_to(
                jax.lax.dynamic_update_slice(
                    jnp.zeros((height, width, 1)), square, (row, column, 0)
                ),
                image_shape,
            )
            for square in (patch, jnp.full_like(patch, self.opacity))
        )
        return static.blend(image_shape, mask, pattern)

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        height, width, _ = image_shape
        place = (
            "at a random place"
            if self.position == "random"
            else f"at row {height - self.size}, column {width - self.size}"
        )
        return f"{self.size}x{self.size} patch {place}, opacity {self.opacity:g}"
