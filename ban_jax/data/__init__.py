"""Clean images for probes and training, from TFDS, folders, `.npz` files or digits."""

from ban_jax.data.dataset import (
    Constants,
    Dataset,
    load,
    pixel_constants,
    prepare,
    split_order,
    to_float,
    together,
)
from ban_jax.data.sources import DataError

__all__ = [
    "Constants",
    "DataError",
    "Dataset",
    "load",
    "pixel_constants",
    "prepare",
    "split_order",
    "to_float",
    "together",
]
