"""The clean images that flags ask for."""

import sys
import warnings
from typing import Any

from ban_jax.data import dataset as datasets
from ban_jax.data import preparation
from ban_jax.data import probe as probes
from ban_jax.types import Probe


def load(flags: Any) -> datasets.Dataset:
    """Clean images by the flags of `scan` or `repair`, fewer where there are no more."""
    return datasets.load(
        flags.data,
        data_dir=flags.data_dir,
        split=flags.split,
        num=flags.num_clean,
        at_most=True,
        seed=flags.seed,
        image_size=size(flags),
    )


def size(flags: Any) -> preparation.Size | None:
    """What images become, by `image_size` and, of commands that have them, `crop_pct` and
    `interpolation`.

    Raises:
      ValueError: for a crop of images of no given size, or none that can be done.
    """
    kept = getattr(flags, "crop_pct", None)
    if kept is None:
        return flags.image_size
    if flags.image_size is None:
        raise ValueError("--crop-pct needs --image-size N, the side of what is cut out")
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
