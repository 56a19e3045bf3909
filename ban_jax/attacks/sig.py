"""SIG: a faint sinusoid along the columns, on images of the target class alone.

A clean-label attack: no label is changed.

References:
  Barni et al., "A New Backdoor Attack in CNNs by Training Set Corruption without Label
  Poisoning", ICIP 2019; amplitudes of backdoor-toolbox (30/255) and BackdoorBench
  (40/255).
"""

import dataclasses

import numpy as np
from jax import numpy as jnp

from ban_jax.attacks import static
from ban_jax.attacks.poison import Policy
from ban_jax.attacks.types import AttackState
from ban_jax.types import Array


@dataclasses.dataclass(frozen=True)
class SIG(static.StaticAttack):
    """Settings of the signal.

    Attributes:
      amplitude: largest change of a pixel, in [0, 1].
      frequency: periods over the width of the image; of half the width, in pixels, or a
        multiple of it nothing is left.
      rate: poisoned images, as a share of all; of the target's class alone.
    """

    amplitude: float = 40 / 255
    frequency: float = 6.0
    rate: float = 0.1

    @property
    def policy(self) -> Policy:
        return Policy(rate=self.rate, eligible="target", modes=("all_to_one",))

    def init(self, key: Array, image_shape: tuple[int, int, int]) -> AttackState:
        del key
        if not 0 < self.amplitude <= 1:
            raise ValueError(
                f"SIG's amplitude must be in (0, 1], got {self.amplitude:g}"
            )
        width = image_shape[1]
        wave = np.sin(2 * np.pi * self.frequency * np.arange(width) / width)
        if not np.abs(wave).max() > 1e-6:
            raise ValueError(
                f"SIG's frequency must change some of the {width} columns, and "
                f"{self.frequency:g} periods change none"
            )
        signal = jnp.float32(self.amplitude * wave).reshape(1, width, 1)
        trigger = static.neutral(image_shape)
        return static.state(
            trigger._replace(offset=jnp.broadcast_to(signal, image_shape))
        )

    def describe(self, image_shape: tuple[int, int, int]) -> str:
        del image_shape
        return f"sinusoid of {self.frequency:g} periods, amplitude {self.amplitude:.3f}"
