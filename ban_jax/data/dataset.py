"""Clean images for probes and training: one call for every kind of source."""

import dataclasses
import math
import os

import numpy as np

from ban_jax.data import layouts, preparation, sources
from ban_jax.data.sources import DataError

__all__ = [
    "DataError",
    "Dataset",
    "load",
    "pixel_constants",
    "prepare",
    "split_order",
    "to_float",
]

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""

PARTS = ("defender", "attacker")
"""Splits cut from `train`, whatever the source."""
MOST_CLASSES = 100_000
"""Where the source names none: larger labels are no classes."""
DEFENDER_SHARE = 0.1
"""Of the training images, the share BAN holds out; xiaoyunxxy/ban, `ban_detection.py`."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels in memory.

    Attributes:
      name: what was asked for.
      split: the split they are from, `defender` and `attacker` being parts of `train`;
        `all` where the source has but one.
      pixels: `[N, H, W, C]` uint8, or float32 in [0, 1].
      labels: `[N]` int32.
      num_classes: K.
      class_names: K names, where known.
    """

    name: str
    split: str
    pixels: np.ndarray
    labels: np.ndarray
    num_classes: int
    class_names: tuple[str, ...] | None = None

    @property
    def images(self) -> np.ndarray:
        """`[N, H, W, C]` float32 in [0, 1]."""
        return to_float(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        _, height, width, channels = self.pixels.shape
        return height, width, channels


def to_float(pixels):
    """uint8 or float pixels, NumPy or JAX, -> float32 in [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels.astype(np.float32)


def load(
    name_or_path: str,
    *,
    data_dir: str | None = None,
    split: str = "test",
    num: int | None = None,
    at_most: bool = False,
    seed: int = 0,
    image_size: preparation.Size | None = None,
) -> Dataset:
    """Reads images and labels.

    Args:
      name_or_path: `digits` (embedded), an `.npz` file, an image folder with a
        subfolder per class or in a published layout (see `layouts.find`), or the
        name of a TFDS data set that is prepared already.
      data_dir: TFDS's folder; given, any name but `digits` is a TFDS name.
      split: which split, where the source has several. A source with a `train` split
        also has `defender`, the tenth of it that BAN holds out, in the order of
        `split_order`; and `attacker`, the rest of it, in the source's order.
      num: how many images: the first of a permutation that `seed` draws, so smaller
        choices are contained in larger ones; of `defender`, its first, so 1 % and 5 %
        of the training images are those BAN takes. None: all, in the order above.
      at_most: takes what there is where that is less than `num`; else it is an error.
      seed: of that permutation; without effect on `defender`.
      image_size: resizes to squares of this side, or prepares images as a network of
        another size takes them; None: sizes must agree.

    Returns:
      The images; equal arguments give equal arrays.

    Raises:
      DataError: when the source is absent, unreadable, without that split or has fewer
        than `num` images.
      ValueError: for an image size that cannot be.
    """
    if image_size is not None:
        preparation.check(image_size)
    find = _part if split in PARTS else _source
    try:
        source = find(name_or_path, data_dir, split, image_size)
    except OSError as error:  # a folder that may not be read
        reason = error.strerror or error
        raise DataError(f"{name_or_path}: cannot be read: {reason}") from error
    if source.length == 0:
        raise DataError(f"{name_or_path}: no image in split {split!r}")
    if num is not None and at_most:
        num = min(num, source.length)
    if num is not None and not 0 < num <= source.length:
        raise DataError(
            f"{name_or_path}: {num} images wanted, split {split!r} has {source.length}"
        )
    if num is None or source.shuffled:
        indices = np.arange(source.length)[:num]
    else:
        indices = np.random.RandomState(seed).permutation(source.length)[:num]
    pixels, labels = source.fetch(indices)
    side = getattr(image_size, "size", image_size)
    if image_size is not None and pixels.shape[1:3] != (side, side):
        if pixels.dtype != np.uint8:
            pixels = np.round(pixels * 255).astype(np.uint8)
        pixels = np.stack([sources.resize(image, image_size) for image in pixels])
    lowest, highest = int(labels.min()), int(labels.max())
    num_classes = min(max(highest + 1, 1), MOST_CLASSES)
    if source.class_names:
        num_classes = len(source.class_names)
    # Before they become 32-bit: a larger one would come out as another class.
    if lowest < 0 or highest >= num_classes:
        raise DataError(
            f"{name_or_path}: labels must be in 0..{num_classes - 1}, found "
            f"{lowest}..{highest}"
        )
    labels = labels.astype(np.int32)
    return Dataset(
        name_or_path, source.split, pixels, labels, num_classes, source.class_names
    )


def _source(
    name: str, data_dir: str | None, split: str, image_size: preparation.Size | None
) -> sources.Source:
    if name == "digits":  # embedded, wherever the others are
        return sources.digits(split)
    if data_dir is None:
        if name.endswith(".npz"):
            return sources.npz(name, split)
        if os.path.isdir(name):
            published = layouts.find(name, split, image_size)
            return published or sources.folder(name, split, image_size)
        if os.path.exists(name):
            raise DataError(f"{name}: expected an .npz file or a folder of images")
        if name.startswith((".", "~")) or os.path.isabs(name):
            raise DataError(f"{name}: no such file or folder")
    return sources.tfds(name, split, data_dir, image_size)


def split_order(count: int) -> np.ndarray:
    """The fixed permutation by which BAN divides a training set.

    It is `torch.randperm(count)` of a CPU generator with seed 0. torch swaps each place
    with one drawn from those not yet passed, by one 32-bit word of a Mersenne twister
    that is seeded as NumPy's legacy generator, so torch is not needed.

    The numbers are positions in the source's order. They name the images BAN names only
    where that order is torchvision's: class by class for folders and GTSRB; TFDS has an
    order of its own.

    Args:
      count: N, below 2**32 / 20; from there on torch draws 64-bit words.

    Returns:
      `[N]` int64.

    References:
      xiaoyunxxy/ban, `ban_detection.py`, `random_split` with `manual_seed(0)`; PyTorch,
      `randperm_cpu`.
    """
    draws = max(count - 1, 0)
    words = np.random.RandomState(0).randint(0, 2**32, draws, np.uint32)
    partners = np.arange(draws) + words % np.arange(count, count - draws, -1)
    order = list(range(count))
    for place, partner in enumerate(partners.tolist()):
        order[place], order[partner] = order[partner], order[place]
    return np.array(order, np.int64)


def _part(
    name: str, data_dir: str | None, split: str, image_size: preparation.Size | None
) -> sources.Source:
    """`defender` or `attacker` of a source's `train` split."""
    try:
        train = _source(name, data_dir, "train", image_size)
    except DataError as error:
        raise DataError(
            f"split {split!r} is cut from the train split: {error}"
        ) from error
    if train.split != "train":
        raise DataError(
            f"{name}: split {split!r} is cut from a train split, and there is but one "
            "split: a subfolder train, or the arrays train_images and train_labels, are "
            "needed"
        )
    # As `random_split` does: shares are floored, what is left over goes to the first.
    held_out = train.length - math.floor(train.length * (1 - DEFENDER_SHARE))
    order = split_order(train.length)
    defender = split == "defender"
    chosen = order[:held_out] if defender else np.sort(order[held_out:])
    return sources.Source(
        length=len(chosen),
        fetch=lambda indices: train.fetch(chosen[indices]),
        class_names=train.class_names,
        split=split,
        shuffled=defender,
    )


def together(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Images to train and to test on, both with as many classes as either shows.

    Raises:
      DataError: for images of two shapes.
    """
    if test.image_shape != train.image_shape:
        raise DataError(
            f"{train.name}: training images are {train.image_shape}, test images "
            f"{test.image_shape}"
        )
    classes = max(train.num_classes, test.num_classes)
    return (
        dataclasses.replace(train, num_classes=classes),
        dataclasses.replace(test, num_classes=classes),
    )


_AT_A_TIME = 256
"""Images."""


def pixel_constants(dataset: Dataset) -> Constants:
    """Mean and deviation per channel over all its pixels, rounded to four digits."""
    channels = dataset.image_shape[-1]
    total, squares = np.zeros(channels), np.zeros(channels)
    # Some images at a time and in 64 bits: a sum of millions of float32 stops growing.
    for start in range(0, len(dataset.pixels), _AT_A_TIME):
        some = to_float(dataset.pixels[start : start + _AT_A_TIME]).astype(np.float64)
        total += some.sum((0, 1, 2))
        squares += np.square(some).sum((0, 1, 2))
    count = dataset.pixels.size / channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return (
        tuple(round(float(value), 4) for value in mean),
        tuple(max(round(float(value), 4), 1e-4) for value in std),
    )


def prepare(name: str, data_dir: str | None = None) -> str:
    """Downloads a TFDS data set in the format that reads without TensorFlow.

    Returns:
      The folder it lies in.

    Raises:
      DataError: when TensorFlow, needed for preparing alone, is not installed, and for
        whatever keeps the data set from being there.
    """
    try:
        # Not at the top: preparing is the one thing that needs TensorFlow.
        import tensorflow  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            "preparing a TFDS data set needs TensorFlow (reading it does not): install "
            "this package with its extra `prepare`"
        ) from error
    try:
        builder = tensorflow_datasets.builder(
            name, data_dir=data_dir, file_format="array_record"
        )
        builder.download_and_prepare()
    # A name that is unknown, a server, a disk: of many kinds, by version.
    except Exception as error:
        raise DataError(f"TFDS {name} cannot be prepared: {error}") from error
    return str(builder.data_dir)
