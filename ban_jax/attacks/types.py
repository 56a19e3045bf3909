"""What an attack is: a trigger with a state of its own."""

from typing import Any, Protocol

from ban_jax.types import Array

State = Any
"""Pytree of arrays: what differs between two models under the same attack."""


class ApplyFn(Protocol):
    """Pure: `(state, images [B, H, W, C] in [0, 1]) -> triggered images`."""

    def __call__(self, state: State, images: Array) -> Array: ...


class Attack(Protocol):
    """One kind of trigger; its fields are what a user may choose.

    Two attacks with the same `apply` train in one compiled program, and their states,
    of one structure and shape, stack: trigger, target and rate are data, never static.
    """

    @property
    def apply(self) -> ApplyFn:
        """A module-level function, so it can be a static argument of `jax.jit`."""

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> State:
        """Draws a model's trigger. Consumes `key`.

        Raises:
          ValueError: when the trigger does not fit images of `(H, W, C)`.
        """

    def describe(self, image_shape: tuple[int, int, int]) -> str | None:
        """The trigger in a few words, for the ground truth of a zoo."""
