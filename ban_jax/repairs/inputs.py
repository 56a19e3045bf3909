"""What a repair is asked for, and the images it works with."""

import dataclasses
import hashlib
import json
import sys
from typing import Any, NamedTuple

import numpy as np
from jax import numpy as jnp

import ban_jax
from ban_jax import data, detectors, records, repairs
from ban_jax.convolution import tables
from ban_jax.data import clean_images, preparation
from ban_jax.data import normalisation as normalisations
from ban_jax.types import Probe

HELD_BATCH = 250
"""Largest batch of held-out images whose accuracy is taken at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """All that decides what a repair gives. The fields are those of the command's flags.

    Attributes:
      data: clean images, as for `scan`.
      data_dir: where TFDS data lie.
      split: of the clean data.
      image_size: resizes the clean images to squares of this side.
      num_clean: how many clean images to use at most.
      held_out: share of them that no repair learns from.
      num_test: test images to measure on; None: all.
      method: a name in `repairs.METHODS`.
      settings: the method's.
      mode: detector of the scans before and after.
      arch: architecture of every candidate, instead of recognising it.
      normalisation: NAME or MEAN/STD for every candidate, as for `scan`.
      seed: of all randomness and of the choice of clean images.
      chunk: candidates repaired side by side; None: chosen for the device.
      orbax: writes each model as an Orbax folder too.
    """

    data: str | None
    data_dir: str | None
    split: str
    image_size: int | None
    num_clean: int
    held_out: float
    num_test: int | None
    method: str
    settings: Any
    mode: str
    arch: str | None
    normalisation: str | None
    seed: int
    chunk: int | None
    orbax: bool


class Images(NamedTuple):
    """What a repair works with.

    Attributes:
      clean: to learn from and to be watched on, on the device.
      probe: the held-out part, for the scans.
      test: what accuracy and success are measured on: the test split where the clean
        images are from another one, else the held-out part.
      num_classes: K that the labels need.
      class_names: where the data set names them.
      digest: of the clean images.
      preparation: of all of them, see `records.Job`.
    """

    clean: repairs.CleanSet
    probe: Probe
    test: data.Dataset
    num_classes: int
    class_names: tuple[str, ...] | None
    digest: str
    preparation: str = ""


def load(request: Request, how: preparation.Preparation | None = None) -> Images:
    """Reads the clean images and divides them.

    Args:
      request: what is asked for.
      how: the models' own config prepares images; None: as the request says.

    Raises:
      ValueError: for flags that contradict each other, a part that is too small.
    """
    if request.data is None:
        raise ValueError(
            "a repair needs clean images: give --data NAME, a folder or an .npz file"
        )
    dataset = clean_images.load(request, how)
    rest, held = divide(
        len(dataset.labels),
        request.held_out,
        request.seed,
        batch=f"--{request.method}.batch-size",
        size=request.settings.batch_size,
    )
    held_set = dataclasses.replace(
        dataset, pixels=dataset.pixels[held], labels=dataset.labels[held]
    )
    digest = hashlib.sha256(dataset.pixels.tobytes() + dataset.labels.tobytes())
    return Images(
        clean=clean_set(dataset.pixels[rest], dataset.labels[rest], held_set),
        probe=clean_images.minibatches(held_set),
        test=_test(request, held_set, dataset.pixels[rest], how),
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        digest=digest.hexdigest()[:16],
        preparation=preparation.told(how) if how else "",
    )


def divide(
    count: int, held_out: float, seed: int, *, size: int, batch: str = "batch_size"
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that a repair learns from, and of those held out.

    Args:
      count: N.
      held_out: share of them.
      seed: of the division.
      size: images per batch; one must be left to learn from.
      batch: what the user knows that by.

    Raises:
      ValueError: for a share out of range, a part that is too small.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"--held-out must be between 0 and 1, got {held_out:g}")
    order = np.random.RandomState(seed).permutation(count)
    num_held = round(held_out * count)
    held, rest = order[:num_held], order[num_held:]
    if len(rest) < size or num_held < 2:
        raise ValueError(
            f"of {count} clean images {num_held} are held out and {len(rest)} are left "
            f"to learn from; at least 2 and one batch of {size} are needed: give more "
            f"(--num-clean), hold out another share (--held-out) or lower {batch}"
        )
    return rest, held


def clean_set(
    pixels: np.ndarray, labels: np.ndarray, held: data.Dataset
) -> repairs.CleanSet:
    """Puts both parts on the device, the held-out one as even minibatches.

    Args:
      pixels: `[N, H, W, C]` to learn from.
      labels: `[N]`.
      held: to be watched on; the last minibatch is filled up and the filler not counted.
    """
    count = len(held.labels)
    batches = -(-count // HELD_BATCH)
    size = -(-count // batches)
    chosen = np.arange(batches * size)
    filled = np.where(chosen < count, held.labels[chosen % count], repairs.FILLER)
    return repairs.CleanSet(
        jnp.asarray(pixels),
        jnp.asarray(labels),
        jnp.asarray(held.pixels[chosen % count]).reshape(
            batches, size, *held.pixels.shape[1:]
        ),
        jnp.asarray(filled).reshape(batches, size),
    )


def _test(
    request: Request,
    held: data.Dataset,
    learned: np.ndarray,
    how: preparation.Preparation | None,
) -> data.Dataset:
    """Images that the models are measured on, none of which is learned from."""
    assert request.data is not None
    # Drawn at random already, as those of a data set are.
    most = slice(request.num_test)
    held = dataclasses.replace(held, pixels=held.pixels[most], labels=held.labels[most])
    if request.split == "test":
        return held
    try:
        found = data.load(
            request.data,
            data_dir=request.data_dir,
            num=request.num_test,
            image_size=how or request.image_size,
        )
    except data.DataError as error:
        print(
            f"note: no test images ({error}): the {len(held.labels)} held-out clean "
            "images take their place",
            file=sys.stderr,
        )
        return held
    # Another split may be the same images: of a folder whose only other one is `val`, of
    # an .npz that has but one, or a slice of the test split.
    known = {image.tobytes() for image in learned}
    fresh = np.array([image.tobytes() not in known for image in found.pixels])
    if fresh.all():
        return found
    print(
        f"note: {int((~fresh).sum())} of {len(fresh)} test images are among those that are "
        "learned from: they are left out",
        file=sys.stderr,
    )
    if fresh.sum() < 2:
        return held
    return dataclasses.replace(
        found, pixels=found.pixels[fresh], labels=found.labels[fresh]
    )


def scan_settings(request: Request, images: Images) -> records.Settings:
    """Of the scans before and after; those of `ban-jax scan` with the same mode."""
    channels = images.probe.images.shape[-1]
    normalisation = None
    if request.normalisation is not None:
        normalisation = normalisations.parse_normalisation(
            request.normalisation, channels
        )
    return records.Settings(
        mode=request.mode,
        config=detectors.DETECTORS[request.mode].settings(),
        seed=request.seed,
        dataset=request.data or "",
        class_names=images.class_names,
        normalisation=normalisation,
        architecture=request.arch,
        chunk=request.chunk,
        lowering=tables.default(),
    )


def making(request: Request, images: Images) -> dict[str, Any]:
    """All that decides what a repair gives; two runs into one folder must share it."""
    names = (
        "data", "split", "image_size", "num_clean", "held_out", "num_test", "method",
        "mode", "arch", "normalisation", "seed", "orbax",
    )  # fmt: skip
    return {
        "command": "repair",
        **{name: getattr(request, name) for name in names},
        "settings": dataclasses.asdict(request.settings),
        "images": images.digest,
        "lowering": scan_settings(request, images).lowering_identity(),
        "version": ban_jax.__version__,
    }


def digest(making: dict[str, Any]) -> str:
    """Short hash of a making."""
    text = json.dumps(making, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
