"""Pixel constants: those the field's code is known to use, and how a user names them."""

import math

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

BYTES = "0..255"
"""Name of mean 0, std 1/255: pixels as the bytes of an image file."""


def options(dataset: str, channels: int) -> dict[str, tuple[tuple, tuple]]:
    """Constants worth trying on a data set, the likeliest first.

    An unknown data set gets all of them; images that are not RGB only those that do not
    depend on colour.
    """
    tried: dict[str, tuple[tuple, tuple]] = {}
    if channels == 3:
        named = [name for name in NORMALISATIONS if name in dataset]
        # cifar100 has cifar10 in its name, too.
        known = [max(named, key=len)] if named else NORMALISATIONS
        for name in known:
            tried |= NORMALISATIONS[name]
    tried[RAW] = ((0.0,) * channels, (1.0,) * channels)
    tried[HALF] = ((0.5,) * channels, (0.5,) * channels)
    tried[BYTES] = ((0.0,) * channels, (1 / 255,) * channels)
    return tried


def parse_normalisation(text: str, channels: int) -> tuple[tuple, tuple]:
    """Reads `NAME` or `MEAN/STD` with comma-separated numbers, one or one per channel.

    Raises:
      ValueError: for anything else; the message shows both forms.
    """
    named = {name: options("", channels)[name] for name in (RAW, HALF, BYTES)}
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
    fits = len(mean) == len(std) == channels
    if not (fits and all(map(math.isfinite, (*mean, *std))) and min(std) > 0):
        raise ValueError(
            f"--normalisation {text!r} must give {channels} means and {channels} positive "
            f"deviations, all finite, got {mean} and {std}"
        )
    return mean, std
