"""What a trigger looks like: clean images, triggered ones, and the difference."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ban_jax.storage import atomic

ROWS = ("clean", "triggered", "difference")
SIDE, MARGIN, CAPTION = 128, 8, 18


def contact_sheet(
    clean: np.ndarray,
    triggered: np.ndarray,
    *,
    title: str = "",
    answers: Sequence[Sequence[str]] = ((), ()),
) -> Image.Image:
    """Three rows of pictures, captioned.

    The difference is shown around mid-grey, stretched so that its largest value, which
    the caption says, is black or white.

    Args:
      clean: `[N, H, W, C]` in [0, 1], one or three channels.
      triggered: the same images with the trigger.
      title: attack and target, above all; left out where it is empty.
      answers: what the model takes each clean and each triggered image for.
    """
    difference = triggered - clean
    largest = float(np.abs(difference).max())
    stretch = 0.5 / largest if largest > 0 else 1.0
    captions = (
        _captions(ROWS[0], answers[0]),
        _captions(ROWS[1], answers[1]),
        [f"{ROWS[2]}, up to {largest:.2f}"],
    )
    rows = (clean, triggered, 0.5 + stretch * difference)
    width = MARGIN + len(clean) * (SIDE + MARGIN)
    head = CAPTION if title else 0
    height = head + len(rows) * (SIDE + MARGIN + CAPTION)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 3), title, fill="black")
    for row, (told, images) in enumerate(zip(captions, rows, strict=True)):
        top = head + row * (SIDE + MARGIN + CAPTION)
        for column, caption in enumerate(told):
            pen.text(
                (MARGIN + column * (SIDE + MARGIN), top + 3), caption, fill="black"
            )
        for column, image in enumerate(images):
            place = (MARGIN + column * (SIDE + MARGIN), top + CAPTION)
            sheet.paste(_picture(image), place)
    return sheet


def _captions(name: str, answers: Sequence[str]) -> list[str]:
    """One for each picture of a row, or the row's name above the first."""
    return [f"{name}, answer {answer}" for answer in answers] if answers else [name]


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
