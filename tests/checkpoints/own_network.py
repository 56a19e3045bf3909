"""A network of a user's own: the file that `register_architecture` is called with."""

import jax
from flax import linen as nn

from ban_jax.models import common
from ban_jax.types import Array, NormMode


class Small(common.Classifier):
    """One convolution with normalisation, one dense layer, and the last one."""

    hidden: int = 3

    def setup(self) -> None:
        super().setup()
        self.stem_conv = self.make_conv(self.width)
        self.stem_norm = common.Norm()
        self.gain = self.param("gain", nn.initializers.ones, (2 * self.width,))
        self.between = nn.Dense(2 * self.width)
        self.linear = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        """`[B, H, W, C]` -> `[B, H, W, 2 width]`."""
        x = self.stem_norm(self.stem_conv(self.normalise(images)), mode)
        x = self.between(jax.nn.relu(x)) * common.along_channels(self.gain, x)
        return common.widened(x)

    def head(self, features: Array, mode: NormMode) -> Array:
        """`[B, h, w, c]` -> `[B, K]`."""
        return self.linear(common.global_average(features))
