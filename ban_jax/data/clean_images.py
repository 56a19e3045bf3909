"""The clean images that flags ask for."""

import sys
import warnings
from typing import Any

from ban_jax.data import dataset as datasets
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
        image_size=flags.image_size,
    )


def minibatches(dataset: datasets.Dataset) -> Probe:
    """`probe.minibatches`, its warning as a note to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probe = probes.minibatches(dataset.images, dataset.labels)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return probe
