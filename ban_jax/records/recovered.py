"""Recovered images as a line keeps them: PNGs in base64, bounded in number and size."""

import numpy as np

from ban_jax.detectors import evidence
from ban_jax.zoo import pictures

MOST_CLASSES = 32
"""Of more classes, those with the largest entries of the first vector are kept."""
LONGEST_SIDE = 96
"""Pixels; what is larger is averaged over squares of pixels."""


def pngs(found: evidence.Evidence) -> dict[str, list[str]]:
    """Name -> one PNG in base64 per class, empty where it is not kept."""
    if not found.images:
        return {}
    vector = np.asarray(next(iter(found.vectors.values())), float)
    order = np.argsort(-np.nan_to_num(vector, nan=-np.inf), kind="stable")
    kept = set(order[:MOST_CLASSES].tolist())
    return {
        name: [
            pictures.base64_png(shrunk(image)) if k in kept else ""
            for k, image in enumerate(np.asarray(images))
        ]
        for name, images in found.images.items()
    }


def shrunk(image: np.ndarray) -> np.ndarray:
    """`[H, W, C]`, its longer side at most `LONGEST_SIDE`."""
    factor = -(-max(image.shape[:2]) // LONGEST_SIDE)
    if factor == 1:
        return image
    height, width = (side // factor for side in image.shape[:2])
    cut = image[: height * factor, : width * factor]
    return cut.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
