"""Weights and statistics drawn from each tensor's name and shape by a fixed rule."""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def tensor(name: str, shape: Sequence[int]) -> np.ndarray:
    """A float32 array of a state dict, the same wherever it is drawn."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        fan = math.prod(shape[1:])
        values = generator.normal(0, math.sqrt(2 / fan), shape)
    elif name.endswith("weight"):
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.normal(0, 0.1, shape)
    return values.astype(np.float32)


def state(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A state dict of these shapes."""
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def pixels(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[B, h, h, C]` as float32 in [0, 1] of `size` pixels a side."""
    times = size // images.shape[1]
    return images.repeat(times, axis=1).repeat(times, axis=2) / np.float32(255)
