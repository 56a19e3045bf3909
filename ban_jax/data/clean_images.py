"""The clean images that flags ask for."""

import sys
import warnings
from typing import Any

import numpy as np

from ban_jax.data import dataset as datasets
from ban_jax.data import preparation, sources
from ban_jax.data import probe as probes
from ban_jax.types import MINIBATCH, Probe


def load(flags: Any, how: preparation.Preparation | None = None) -> datasets.Dataset:
    """Clean images by the flags of `scan` or `repair`, fewer where there are no more.

    Args:
      flags: of the command.
      how: prepares them so, whatever the flags say of sizes.
    """
    return datasets.load(
        flags.data,
        data_dir=flags.data_dir,
        split=flags.split,
        num=flags.num_clean,
        at_most=True,
        seed=flags.seed,
        image_size=how or size(flags),
    )


def asked(
    flags: Any, how: preparation.Preparation | None = None
) -> tuple[datasets.Dataset, Probe]:
    """Clean images and their minibatches; a note says where they are fewer than asked for.

    Args:
      flags: of `scan`.
      how: see `load`.
    """
    dataset = load(flags, how)
    probe = minibatches(dataset)
    kept = probe.labels.size
    if MINIBATCH <= kept < flags.num_clean:
        print(
            f"note: {kept} of {len(dataset.labels)} clean images are used, "
            f"{flags.num_clean} were asked for: batch statistics are taken over "
            f"whole minibatches of {MINIBATCH}",
            file=sys.stderr,
        )
    return dataset, probe


def are_as_given(flags: Any, dataset: datasets.Dataset) -> bool:
    """Whether images that were prepared for a model are what the flags alone give."""
    try:
        given = load(flags)
    except sources.DataError:  # their sizes differ, where nothing makes them equal
        return False
    return np.array_equal(given.pixels, dataset.pixels)


def size(flags: Any) -> preparation.Size | None:
    """What images become, by `image_size` and, of commands that have them, `crop_pct` and
    `interpolation`.

    Raises:
      ValueError: for a size or a crop that cannot be, and a crop of no given size.
    """
    how: preparation.Size | None = flags.image_size
    kept = getattr(flags, "crop_pct", None)
    if how is None:
        if kept is not None:
            raise ValueError(
                "--crop-pct needs --image-size N, the side of what is cut out"
            )
        return None
    if kept is not None:
        how = preparation.Preparation(flags.image_size, kept, flags.interpolation)
    preparation.check(how)
    return how


def minibatches(dataset: datasets.Dataset) -> Probe:
    """`probe.minibatches`, its warning as a note to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = probes.minibatches(dataset.images, dataset.labels)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return probe
