"""The defender's clean images as minibatches, and the pixel constants tried on them."""

import hashlib
import warnings

import numpy as np
from jax import numpy as jnp

from ban_jax.types import MINIBATCH, Probe

NORMALISATIONS: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "cifar10": {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "cifar10-247": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    },
    "cifar100": {"cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))},
    "gtsrb": {
        "gtsrb-featurere": ((0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)),
        "gtsrb-toolbox": ((0.3337, 0.3064, 0.3171), (0.2672, 0.2564, 0.2629)),
    },
    "imagenet": {
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "tiny-imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    },
}
"""Data set -> name -> (mean, std): every constant the field's code is known to use."""

RAW = "none"
"""Name of the identity: pixels in [0, 1] as they are."""
HALF = "half"
"""Name of mean 0.5, std 0.5: pixels in [-1, 1]."""


def options(dataset: str, channels: int) -> dict[str, tuple[tuple, tuple]]:
    """Constants worth trying on a data set, the likeliest first.

    An unknown data set gets all of them; images that are not RGB only those that do not
    depend on colour.
    """
    tried: dict[str, tuple[tuple, tuple]] = {}
    if channels == 3:
        known = [group for name, group in NORMALISATIONS.items() if name in dataset]
        for group in known or NORMALISATIONS.values():
            tried |= group
    tried[RAW] = ((0.0,) * channels, (1.0,) * channels)
    tried[HALF] = ((0.5,) * channels, (0.5,) * channels)
    return tried


def parse_normalisation(text: str, channels: int) -> tuple[tuple, tuple]:
    """Reads `NAME` or `MEAN/STD` with comma-separated numbers, one or one per channel.

    Raises:
      ValueError: for anything else; the message shows both forms.
    """
    named = {RAW: options("", channels)[RAW], HALF: options("", channels)[HALF]}
    for group in NORMALISATIONS.values():
        named |= group
    if text in named:
        mean, std = named[text]
    else:
        parts = [part.split(",") for part in text.split("/")]
        try:
            mean, std = (tuple(float(number) for number in part) for part in parts)
        except ValueError:
            raise ValueError(
                f"--normalisation takes a name ({', '.join(sorted(named))}) or MEAN/STD "
                f"like 0.49,0.48,0.45/0.2,0.2,0.2; got {text!r}"
            ) from None
    mean, std = (part * channels if len(part) == 1 else part for part in (mean, std))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"--normalisation {text!r} must give {channels} means and {channels} positive "
            f"deviations, got {mean} and {std}"
        )
    return mean, std


def minibatches(images: np.ndarray, labels: np.ndarray) -> Probe:
    """Cuts clean images into whole minibatches; batch statistics are taken over each.

    Args:
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.

    Returns:
      Images `[T, B, H, W, C]` and labels `[T, B]`, B being `config.MINIBATCH` or N where
      there are fewer; images beyond a whole minibatch are left out. In the given order.

    Raises:
      ValueError: with fewer than two images: a batch of one has no variance.
    """
    count = len(labels)
    if count < 2:
        raise ValueError(f"at least 2 clean images are needed, got {count}")
    size = min(MINIBATCH, count)
    whole = count // size * size
    if count < MINIBATCH:
        warnings.warn(
            f"{count} clean images are fewer than one minibatch of {MINIBATCH}: noise is "
            "searched and counted on the same images, and scores are coarse",
            stacklevel=2,
        )
    return Probe(
        jnp.asarray(images[:whole], jnp.float32).reshape(-1, size, *images.shape[1:]),
        jnp.asarray(labels[:whole], jnp.int32).reshape(-1, size),
    )


def digest(probe: Probe) -> str:
    """SHA-256 of the probe: results of another probe are other results."""
    hasher = hashlib.sha256(str(probe.images.shape).encode())
    hasher.update(np.asarray(probe.images).tobytes())
    hasher.update(np.asarray(probe.labels).tobytes())
    return hasher.hexdigest()
