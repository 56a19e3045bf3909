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
      squeezed: resizes both sides to that of the shorter, whatever that does to
        proportions (timm's `crop_mode` squash, sizes of Hugging Face with two sides).
    """

    size: int
    kept: float = 0.875
    filter: Filter = "bilinear"
    squeezed: bool = False

    @property
    def short(self) -> int:
        """Pixels that the shorter side is resized to."""
        return math.floor(self.size / self.kept)


Size = int | Preparation
"""Squares of this side, whatever that does to proportions; or prepared as said."""


def told(how: Preparation) -> str:
    """A preparation in words."""
    side = f"{how.short} pixels ({how.filter})"
    middle = f", the middle {how.size}x{how.size} taken"
    if not how.squeezed:
        return f"shorter side resized to {side}{middle}"
    return f"resized to {how.short}x{side}{middle if how.short > how.size else ''}"


def check(how: Size) -> None:
    """Refuses what cannot be done.

    Raises:
      ValueError: naming the value and what is expected.
    """
    how = how if isinstance(how, Preparation) else Preparation(how)
    if how.size < 1:
        raise ValueError(
            f"the size of images (--image-size) must be at least 1, got {how.size}"
        )
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
    # The longer side is cut to whole pixels, the place of the middle rounded, as there.
    sides = [int(how.short * side / min(height, width)) for side in (height, width)]
    if how.squeezed:
        sides = [how.short, how.short]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(
        picture.resize((sides[1], sides[0]), Image.Resampling[how.filter.upper()])
    )
    top, left = (round((side - how.size) / 2) for side in sides)
    middle = resized[top : top + how.size, left : left + how.size]
    return middle[..., None] if channels == 1 else middle
