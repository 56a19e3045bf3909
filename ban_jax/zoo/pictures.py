"""What a trigger looks like: clean images, triggered ones, and the difference."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from ban_jax.storage import atomic

ROWS = ("clean", "triggered", "difference")
SIDE, MARGIN, CAPTION = 128, 8, 18


def contact_sheet(clean: np.ndarray, triggered: np.ndarray) -> Image.Image:
    """Three rows of pictures, captioned.

    The difference is shown around mid-grey, stretched so that its largest value, which
    the caption says, is black or white.

    Args:
      clean: `[N, H, W, C]` in [0, 1], one or three channels.
      triggered: the same images with the trigger.
    """
    difference = triggered - clean
    largest = float(np.abs(difference).max())
    stretch = 0.5 / largest if largest > 0 else 1.0
    captions = (*ROWS[:2], f"{ROWS[2]}, up to {largest:.2f}")
    rows = (clean, triggered, 0.5 + stretch * difference)
    width = MARGIN + len(clean) * (SIDE + MARGIN)
    sheet = Image.new("RGB", (width, len(rows) * (SIDE + MARGIN + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (caption, images) in enumerate(zip(captions, rows, strict=True)):
        top = row * (SIDE + MARGIN + CAPTION)
        pen.text((MARGIN, top + 3), caption, fill="black")
        for column, image in enumerate(images):
            place = (MARGIN + column * (SIDE + MARGIN), top + CAPTION)
            sheet.paste(_picture(image), place)
    return sheet


def png(image: np.ndarray) -> bytes:
    """`[H, W, C]` in [0, 1] as a PNG file of the same size."""
    file = io.BytesIO()
    _pixels(image).save(file, format="PNG")
    return file.getvalue()


def base64_png(image: np.ndarray) -> str:
    """`[H, W, C]` in [0, 1] as a PNG in base64, for JSON and HTML."""
    return base64.b64encode(png(image)).decode()


def save(path: str, picture: Image.Image) -> None:
    """Writes a PNG; the file appears whole or not at all."""
    with atomic.replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _picture(image: np.ndarray) -> Image.Image:
    return _pixels(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _pixels(image: np.ndarray) -> Image.Image:
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return Image.fromarray(pixels)
