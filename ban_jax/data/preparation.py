"""An image as a network of another size takes it: resized, and its middle cut out.

torchvision's networks of 224 pixels resize the shorter side to 256 and keep the middle 224
(a share of 0.875); timm's name their share `crop_pct` and their filter in `config.json`.
"""

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

Filter = Literal["bilinear", "bicubic", "lanczos", "nearest"]
FILTERS = get_args(Filter)


class Preparation(NamedTuple):
    """How images of any size become squares.

    Attributes:
      size: side of the squares, in pixels.
      kept: share of the shorter side that is kept, in (0, 1].
      filter: of the resizing, antialiased.
    """

    size: int
    kept: float = 0.875
    filter: Filter = "bilinear"


Size = int | Preparation
"""Squares of this side, whatever that does to proportions; or prepared as said."""


def check(how: Preparation) -> None:
    """Refuses what cannot be done.

    Raises:
      ValueError: naming the value and what is expected.
    """
    if how.size < 1:
        raise ValueError(f"images need at least one pixel a side, got {how.size}")
    if not 0 < how.kept <= 1:
        raise ValueError(
            f"the share of an image that is kept must be in (0, 1], got {how.kept}"
        )
    if how.filter not in FILTERS:
        raise ValueError(f"the filter must be one of {FILTERS}, got {how.filter!r}")


def prepared(image: np.ndarray, how: Preparation) -> np.ndarray:
    """`[H, W, C]` uint8 -> `[size, size, C]` uint8, as torchvision and timm do with Pillow.

    An image of that size already is taken as it is: it was prepared before.

    Raises:
      ValueError: see `check`.
    """
    check(how)
    height, width, channels = image.shape
    if (height, width) == (how.size, how.size):
        return image
    short = math.floor(how.size / how.kept)
    # The longer side is cut to whole pixels, the place of the middle rounded, as there.
    sides = [int(short * side / min(height, width)) for side in (height, width)]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(
        picture.resize((sides[1], sides[0]), Image.Resampling[how.filter.upper()])
    )
    top, left = (round((side - how.size) / 2) for side in sides)
    middle = resized[top : top + how.size, left : left + how.size]
    return middle[..., None] if channels == 1 else middle
