"""One convolution with several lowerings, and the measured choice among them."""

from ban_jax.convolution.lowerings import (
    HALVED_BATCH,
    LOWERINGS,
    WORK,
    Choice,
    Layer,
    Lowering,
    Name,
    What,
    conv2d,
    layer_of,
    products_of,
    transposed2d,
)

__all__ = [
    "LOWERINGS",
    "WORK",
    "HALVED_BATCH",
    "Choice",
    "Layer",
    "Lowering",
    "Name",
    "What",
    "conv2d",
    "layer_of",
    "products_of",
    "transposed2d",
]
