"""No attack: a trigger that changes nothing, so clean models train like others."""

import dataclasses

from ban_jax.attacks import poison, static
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Clean(static.StaticAttack):
    """No trigger."""

    @property
    def policy(self) -> poison.Policy:
        return poison.NO_POISON

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        del key
        return static.state(static.neutral(image_shape))

    def describe(self, image_shape: tuple[int, int, int]) -> None:
        del image_shape
