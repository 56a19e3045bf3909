"""Names shared by every module: dimension letters, array aliases, protocols.

Dimension letters used in all docstrings:
  M models, N images, T minibatches, B images of one minibatch, H W C image height, width
  and channels, h w c the same of a feature map, F inputs and O outputs of a layer, K
  classes, R noise radii, Q restarts, S steps, E epochs, L choices of pixel constants.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax

Array = jax.Array
Variables = Mapping[str, Any]
"""Linen collections of one model: `params`, `batch_stats`, `normalisation`."""

NormMode = Literal["stored", "batch", "update"]
"""Where normalisation layers take mean and variance from.

`stored`: the statistics in the checkpoint. `batch`: those of the minibatch at hand; the
stored ones are neither read nor written. `update`: those of the minibatch, and the stored
ones move towards them as in PyTorch's train mode.
"""

Precision = Literal["float32", "tf32", "bfloat16"]
"""What convolutions multiply.

`float32`: whole float32 numbers, on every backend. `tf32`: float32 arrays whose factors
are rounded to TF32 on GPUs and split into three bfloat16 products on TPUs; a CPU has
nothing of the kind and computes as for `float32`. `bfloat16`: factors and the
activations between layers are bfloat16.
"""


MINIBATCH = 128
"""Images per batch statistic, in search and evaluation alike."""


class FeaturesFn(Protocol):
    """`(variables, images [B,H,W,C] in [0,1], mode) -> (features [B,h,w,c], variables)`.

    The returned variables differ from the given ones only in mode `update`.
    """

    def __call__(
        self, variables: Variables, images: Array, mode: NormMode
    ) -> tuple[Array, Variables]: ...


class HeadFn(Protocol):
    """`(variables, features [B,h,w,c], mode) -> (logits [B,K], variables)`."""

    def __call__(
        self, variables: Variables, features: Array, mode: NormMode
    ) -> tuple[Array, Variables]: ...


class Network(NamedTuple):
    """A classifier cut in two, `head(features(images))`: all a kernel knows of a model.

    Hashable when its functions are, so it can be a static argument of `jax.jit`.
    """

    features: FeaturesFn
    head: HeadFn
    classifier: Callable[[Variables], Array]
    """`variables -> [F, K]`, the weights of the last linear layer, inside the head."""
    num_classes: int
    lowering: Any = "native"
    """How its convolutions are computed (`ban_jax.convolution.Lowering`), so that a
    detector with a network of its own can have it computed alike."""
    precision: Precision = "float32"
    images_apart: bool = False
    """Whether, but for the statistics in `batch_stats`, no image's features depend on the
    other images of its minibatch."""

    def logits(
        self, variables: Variables, images: Array, mode: NormMode
    ) -> tuple[Array, Variables]:
        """`[B, H, W, C]` -> `[B, K]`, and the variables, new ones in mode `update`."""
        features, variables = self.features(variables, images, mode)
        return self.head(variables, features, mode)

    def predict(self, variables: Variables, images: Array) -> Array:
        """`[B, H, W, C]` -> the largest logit's class `[B]`, stored statistics."""
        return jax.numpy.argmax(self.logits(variables, images, "stored")[0], axis=-1)


class Probe(NamedTuple):
    """The defender's clean images in minibatches, over which batch statistics are taken.

    Attributes:
      images: `[T, B, H, W, C]` float32 pixels in [0, 1], before any normalisation.
      labels: `[T, B]` int32 class indices.
    """

    images: Array
    labels: Array
