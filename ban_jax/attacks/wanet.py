"""WaNet: a smooth warp of the whole image.

Cover images are warped with random displacements on top and keep their label (the
"noise mode" of the paper), so the model learns the very field.

References:
  Nguyen and Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021;
  constants of xiaoyunxxy/ban, train_models/wanet.
"""

import dataclasses

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class WaNet(static.StaticAttack):
    """Settings of the warp.

    Attributes:
      grid: control points per axis (k).
      strength: of the displacement (s): the control points' mean is strength / H of the
        way from the image's centre to its border.
      cover: noise-mode images for every poisoned one.
      rate: share of every batch that is poisoned.
    """

    grid: int = 4
    strength: float = 0.5
    cover: float = 2.0
    rate: float = 0.1

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, cover=self.cover, per_batch=True)

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        height, width, _ = image_shape
        if not 2 <= self.grid <= min(height, width):
            raise ValueError(
                f"WaNet's grid must be in 2..{min(height, width)}, got {self.grid}"
            )
        if not self.strength > 0:
            raise ValueError(f"WaNet's strength must be above 0, got {self.strength:g}")
        points = jax.random.uniform(
            key, (self.grid, self.grid, 2), minval=-1.0, maxval=1.0
        )
        points /= jnp.mean(jnp.abs(points))
        field = jnp.einsum(
            "ik,jl,klc->ijc",
            bicubic_weights(self.grid, height),
            bicubic_weights(self.grid, width),
            points,
            precision="highest",
        )
        # From PyTorch's [-1, 1] over the image, last axis (x, y), to rows and columns.
        half = jnp.array([(height - 1) / 2, (width - 1) / 2])
        moved = field[..., ::-1] * (self.strength / height) * half.reshape(1, 1, 2)
        trigger = static.neutral(image_shape)
        places = jnp.clip(trigger.places + moved, 0.0, 2 * half.reshape(1, 1, 2))
        return static.state(
            trigger._replace(places=places, jitter=jnp.float32(half[0] / height))
        )

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return (
            f"smooth warp, {self.grid}x{self.grid} points, strength {self.strength:g}"
        )


def bicubic_weights(points: int, size: int) -> np.ndarray:
    """`[size, points]` of bicubic interpolation with aligned corners.

    PyTorch's kernel (a = -0.75, border points repeated); `jax.image.resize` has neither
    the kernel nor the alignment.
    """
    a = -0.75
    position = np.arange(size) * (points - 1) / max(size - 1, 1)
    first = np.floor(position).astype(int)
    weights = np.zeros((size, points))
    for offset in (-1, 0, 1, 2):
        t = np.abs(position - first - offset)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        index = np.clip(first + offset, 0, points - 1)
        np.add.at(weights, (np.arange(size), index), np.where(t <= 1, near, far))
    return weights.astype(np.float32)
