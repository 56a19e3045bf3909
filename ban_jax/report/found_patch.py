"""The picture of the patch that the default mode found to be the strongest.

The record keeps the patch itself (`records.recovered.told_patch`); images differ, so it is
drawn on grey ones.
"""

import base64
import binascii
from typing import NamedTuple

import numpy as np

from ban_jax.detectors import witnesses
from ban_jax.report import fields, glossary
from ban_jax.report.images import Gallery, Shot
from ban_jax.report.subject import Subject
from ban_jax.zoo import pictures

LARGEST = 1024
"""Pixels of an image's side: a record that claims more is not drawn."""
GREY = 0.5


class Patch(NamedTuple):
    """A patch of a record.

    Attributes:
      target: the class it leads to.
      share: what it adds to the mean probability of that class, on images of others.
      row: of its first pixel.
      column: of its first pixel.
      change: `[S, S, C]` in [-1, 1], added to an image's pixels.
      shape: `(H, W, C)` of the image.
    """

    target: int
    share: float
    row: int
    column: int
    change: np.ndarray
    shape: tuple[int, int, int]


def galleries(subject: Subject) -> list[Gallery]:
    """The patch of a candidate, large where it proves the suspected class; or none."""
    found = patch_of(subject.record)
    if found is None:
        return []
    count = subject.record["num_classes"]
    label = subject.labels(count)[found.target]
    is_proof = found.share > witnesses.PROOF
    does = (
        f"turns {found.share:.0%} of images into {label}"
        if is_proof
        else f"adds {found.share:.0%} to the probability of {label}"
    )
    side, (height, width, _) = len(found.change), found.shape
    alt = (
        f"Grey image with the patch of {side} by {side} pixels that {does}; its first "
        f"pixel is in row {found.row + 1} of {height}, column {found.column + 1} of "
        f"{width}"
    )
    image = on_grey(found)
    shot = Shot(_uri(image), alt, f"patch that {does}")
    alone = Shot(_uri(_cut(image, found)), "The same patch, enlarged", "enlarged")
    words = glossary.words(subject.record, "patch")
    note = f"{words.meaning} This is the strongest one, on a grey image."
    if not is_proof:
        note += " It proves nothing."
    is_suspected = is_proof and subject.marked(count) == found.target
    return [
        Gallery(
            "Strongest patch",
            note,
            shot if is_suspected else None,
            (alone,) if is_suspected else (shot, alone),
        )
    ]


def on_grey(found: Patch) -> np.ndarray:
    """A grey image `[H, W, C]` in [0, 1] with the patch on it."""
    image = np.full(found.shape, GREY)
    _cut(image, found)[:] = np.clip(GREY + found.change, 0, 1)
    return image


def _cut(image: np.ndarray, found: Patch) -> np.ndarray:
    """The square of an image `[H, W, C]` where the patch lies, a view."""
    side = len(found.change)
    return image[found.row : found.row + side, found.column : found.column + side]


def _uri(image: np.ndarray) -> str:
    return f"data:image/png;base64,{pictures.base64_png(image)}"


def patch_of(record: fields.Record) -> Patch | None:
    """The patch of a record; None where it has none, or one that does not fit it."""
    told = fields.mapping(fields.mapping(record.get("info")).get("patch"))
    shares = fields.numbers(fields.mapping(record.get("vectors")).get("patch"))
    shape = fields.listed(fields.mapping(record.get("data")).get("image_shape"))
    names = ("class", "row", "column", "side", "channels")
    numbers = [*map(told.get, names), record.get("num_classes"), *shape]
    if len(shape) != 3 or any(type(one) is not int or one < 0 for one in numbers):
        return None
    target, row, column, side, channels = (told[name] for name in names)
    height, width, of_image = shape
    fits = (
        0 < side
        and row + side <= height <= LARGEST
        and column + side <= width <= LARGEST
        and channels == of_image
        and channels in (1, 3)
        and target < len(shares) == record["num_classes"]
    )
    share = shares[target] if fits else None
    values = _signed_bytes(told.get("change"))
    if share is None or len(values) != side * side * channels:
        return None
    change = values.reshape(side, side, channels) / 127
    return Patch(target, share, row, column, change, (height, width, channels))


def _signed_bytes(encoded: object) -> np.ndarray:
    """`[N]` numbers; none where it is not bytes in base64."""
    if not isinstance(encoded, str):
        return np.zeros(0, np.int8)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
        return np.zeros(0, np.int8)
    return np.frombuffer(data, np.int8)
