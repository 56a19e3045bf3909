"""What was recovered as a line keeps it: PNGs in base64, bounded in number and size, and
the strongest patch."""

import base64
from collections.abc import Mapping
from typing import Any

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


def info(told: Mapping[str, Any]) -> dict[str, Any]:
    """`Evidence.info` with its patch as `told_patch`, where it has one that is finite."""
    rest = {name: value for name, value in told.items() if name != "patch"}
    if "patch" in told and np.all(np.isfinite(told["patch"]["change"])):
        rest["patch"] = told_patch(told["patch"])
    return rest


def told_patch(strongest: Mapping[str, Any]) -> dict[str, Any]:
    """A patch in few bytes; `vectors.patch` tells how strong it is.

    Args:
      strongest: `detectors.directed.Strongest` by names, NumPy leaves.

    Returns:
      `class`; `row` and `column` of its first pixel; `side` in pixels; `channels`; and
      `change` in base64, one signed byte for each of `side * side * channels` numbers,
      of which 127 adds the whole range of a pixel, and -127 takes it away.
    """
    change = np.asarray(strongest["change"])
    row, column = np.asarray(strongest["corner"]).tolist()
    signed = np.round(127 * np.clip(change, -1, 1)).astype(np.int8)
    return {
        "class": int(strongest["target"]),
        "row": row,
        "column": column,
        "side": change.shape[0],
        "channels": change.shape[2],
        "change": base64.b64encode(signed.tobytes()).decode(),
    }
