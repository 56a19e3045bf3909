"""Where clean images come from: TFDS, image folders, `.npz` files, embedded digits.

A source knows how many images it has and decodes only those it is asked for.
"""

import collections
import contextlib
import dataclasses
import difflib
import importlib.util
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ban_jax.data import preparation

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp")
SPLIT_FOLDERS = ("train", "test", "val", "validation")
DIGITS_TRAIN = 1200


class DataError(ValueError):
    """Images or labels cannot be used; the message says which, and what would do."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Images by index, decoded on demand.

    Attributes:
      length: number of images.
      fetch: indices -> (images, each `[H, W, C]` uint8 or float in [0, 1]; labels).
        With an image size, images are resized to it.
      class_names: names in label order, where known.
      split: the split the images are from; `all` where the source has but one.
      shuffled: the order is a random one already, so its first images are a choice.
    """

    length: int
    fetch: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    class_names: tuple[str, ...] | None
    split: str
    shuffled: bool = False


def digits(split: str) -> Source:
    """scikit-learn's handwritten digits, 8x8x1: 1,200 for training, 597 for testing."""
    if split not in ("train", "test"):
        raise DataError(f"digits has the splits train and test, not {split!r}")
    table = _digits_table()
    order = np.random.RandomState(0).permutation(len(table))
    chosen = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
    images = (table[chosen, :-1] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = table[chosen, -1].astype(np.int32)
    names = tuple(str(digit) for digit in range(10))
    return Source(len(chosen), lambda i: (images[i], labels[i]), names, split)


def _digits_table() -> np.ndarray:
    """`[N, 65]`: 64 pixels from 0 to 16, and the digit."""
    # Its file is read where it lies: scikit-learn takes over a second to import.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError(
            "digits needs scikit-learn, with which this package is installed"
        )
    home = os.path.dirname(spec.origin)
    path = os.path.join(home, "datasets", "data", "digits.csv.gz")
    if os.path.isfile(path):
        return np.loadtxt(path, delimiter=",")
    from sklearn import datasets

    bunch = datasets.load_digits()
    return np.column_stack([bunch.data, bunch.target])


def npz(path: str, split: str) -> Source:
    """`images` and `labels`, or `{split}_images` and `{split}_labels`.

    Images are uint8, or float in [0, 1]; `[N, H, W, C]` or `[N, H, W]`. `class_names`
    is read where present.
    """
    if os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a readable .npz archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            prefix, found = ("", "all") if "images" in names else (f"{split}_", split)
            wanted = [f"{prefix}images", f"{prefix}labels"]
            if not names.issuperset(wanted):
                others = " (or images and labels)" if prefix else ""
                raise DataError(
                    f"{path}: expected the arrays {' and '.join(wanted)}{others}, found "
                    f"{', '.join(sorted(names)) or 'none'}"
                )
            images, labels = (archive[name] for name in wanted)
            class_names = (
                tuple(str(name) for name in archive["class_names"].reshape(-1))
                if "class_names" in names
                else None
            )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays: {error}"
        ) from error
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"{path}: images must be [N, H, W, C] with 1 or 3 channels, got "
            f"{list(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels must be {len(images)} integers, got "
            f"{labels.dtype}{list(labels.shape)}"
        )
    images = _pixels(images, path)
    return Source(len(images), lambda i: (images[i], labels[i]), class_names, found)


def _pixels(images: np.ndarray, path: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(
            f"{path}: images must be uint8, or float in [0, 1]; got {images.dtype}"
        )
    low, high = (float(images.min()), float(images.max())) if images.size else (0, 0)
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{path}: float images must lie in [0, 1], before any normalisation; found "
            f"values from {low:g} to {high:g}"
        )
    return images.astype(np.float32)


def folder(path: str, split: str, image_size: preparation.Size | None) -> Source:
    """One subfolder per class, classes in sorted order; Pillow decodes.

    Where `path` has subfolders named train, test, val or validation, the one called
    `split` is taken (`test` also finds val and validation).
    """
    root, found = _split_folder(path, split)
    classes = [name for name in subfolders(root) if name not in SPLIT_FOLDERS]
    if not classes:
        raise DataError(
            f"{root}: expected one subfolder of images per class, found "
            f"{summary(os.listdir(root))}"
        )
    files, labels = class_files(root, classes)
    return image_files(files, labels, classes, found, image_size)


def class_files(root: str, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Every image below each class's folder, sorted as text, and its class's number."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = sorted(
            os.path.join(directory, file)
            for directory, _, names in os.walk(os.path.join(root, name))
            for file in names
            # A pipe that is called like an image would be waited at.
            if file.lower().endswith(IMAGE_SUFFIXES)
            and os.path.isfile(os.path.join(directory, file))
        )
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(
            f"{root}: {len(classes)} class folders without any image; known suffixes: "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return files, labels


def image_files(
    files: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    split: str,
    image_size: preparation.Size | None,
) -> Source:
    """Files that Pillow decodes when they are asked for."""
    numbers = np.asarray(labels, np.int32)

    def fetch(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _read_images([files[i] for i in indices], image_size), numbers[indices]

    return Source(len(files), fetch, tuple(class_names), split)


def _split_folder(path: str, split: str) -> tuple[str, str]:
    present = [name for name in subfolders(path) if name in SPLIT_FOLDERS]
    if not present:
        return path, "all"
    wanted = ("test", "val", "validation") if split == "test" else (split,)
    for name in wanted:
        if name in present:
            return os.path.join(path, name), split
    raise DataError(f"{path}: no split {split!r}, found {', '.join(present)}")


def subfolders(path: str) -> list[str]:
    """Names of the folders in a folder, sorted as text, without those that programs leave
    there (`.git`, `.ipynb_checkpoints`, `__MACOSX`)."""
    return sorted(
        entry.name
        for entry in os.scandir(path)
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    )


def summary(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(sorted(names)[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{shown}{more}" if names else "nothing"


_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
"""Pillow's modes of up to 8 bits a channel; others are cut off at 255 when converted."""


def _read_images(
    files: Sequence[str], image_size: preparation.Size | None
) -> np.ndarray:
    """`[N, H, W, C]` uint8; one channel only where every image has one."""
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                if image.mode not in _EIGHT_BITS:
                    raise DataError(
                        f"{file}: expected pixels of 8 bits, found those of mode "
                        f"{image.mode}: convert it first"
                    )
                grey = image.mode in ("1", "L")
                decoded = image.convert("L" if grey else "RGB")
        except DataError:
            raise
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            raise DataError(f"{file}: not a readable image: {error}") from error
        images.append(decoded)
    if any(image.mode == "RGB" for image in images):
        images = [image.convert("RGB") for image in images]
    return _stack([np.asarray(image) for image in images], files, image_size)


def _stack(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    image_size: preparation.Size | None,
) -> np.ndarray:
    """Equal sizes, or resized to `image_size`; else an error that lists who differs."""
    images = [image[..., None] if image.ndim == 2 else image for image in images]
    if image_size is not None:
        images = [resize(image, image_size) for image in images]
    shapes = collections.Counter(image.shape for image in images)
    if len(shapes) > 1:
        common = shapes.most_common(1)[0][0]
        others = [
            f"{name} {'x'.join(map(str, image.shape))}"
            for name, image in zip(names, images, strict=True)
            if image.shape != common
        ]
        raise DataError(
            f"images differ in size: {shapes[common]} of {len(images)} are "
            f"{'x'.join(map(str, common))}, but {summary(others)}; give an image "
            "size, like --image-size 32, to resize them all"
        )
    return np.stack(images)


def resize(image: np.ndarray, size: preparation.Size) -> np.ndarray:
    """`[H, W, C]` uint8 -> `[size, size, C]` uint8, antialiased."""
    if isinstance(size, preparation.Preparation):
        return preparation.prepared(image, size)
    if image.shape[:2] == (size, size):
        return image
    single = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if single else image)
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    return resized[..., None] if single else resized


def tfds(
    name: str, split: str, data_dir: str | None, image_size: preparation.Size | None
) -> Source:
    """A prepared TFDS data set with `image` and `label`, read without TensorFlow."""
    # Imported here: it takes seconds, and only this source needs it.
    import tensorflow_datasets

    with _quiet():
        try:
            records: Any = tensorflow_datasets.data_source(
                name, split=split, data_dir=data_dir, download=False
            )
        # What is raised for data that is not there depends on what is missing and on
        # the version: NotImplementedError, KeyError, DatasetNotFoundError and others.
        except Exception as error:
            raise DataError(_absent(name, split, data_dir, error)) from error
    features = records.dataset_info.features
    missing = [key for key in ("image", "label") if key not in features]
    if missing:
        raise DataError(
            f"TFDS {name}: not an image classification set, it has no "
            f"{' and no '.join(missing)}; found {', '.join(features)}"
        )
    class_names = tuple(features["label"].names or ()) or None

    def fetch(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _quiet():
            rows = records.__getitems__([int(i) for i in indices])
        names = [f"record {i}" for i in indices]
        images = _stack([row["image"] for row in rows], names, image_size)
        return images, np.asarray([row["label"] for row in rows], np.int32)

    return Source(len(records), fetch, class_names, split)


def _absent(name: str, split: str, data_dir: str | None, error: Exception) -> str:
    import tensorflow_datasets

    if "split" in str(error).lower() and isinstance(error, ValueError):
        return f"TFDS {name}: no split {split!r}: {error}"
    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    if name.split("/")[0].split(":")[0] not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{name!r} is neither a file, nor a folder, nor a TFDS data set{hint}"
    place = f" --data-dir {data_dir}" if data_dir else ""
    return (
        f"TFDS {name} is not prepared in {data_dir or 'the default data folder'}. "
        "Either point --data-dir to a folder that holds it, or prepare it once with "
        f"`ban-jax prepare {name}{place}`, which needs the extra `prepare`"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS warns about an optional decoder and about folders it merely tried."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
