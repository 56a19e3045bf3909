"""The architectures, by name."""

import functools
from typing import Any

from ban_jax.models import common, resnet
from ban_jax.models.common import Classifier, abstract_variables, network

ARCHITECTURES = {
    "resnet18": resnet.ResNet,
    "resnet34": functools.partial(resnet.ResNet, blocks=(3, 4, 6, 3)),
}


def create(name: str, **fields: Any) -> Classifier:
    """Builds an architecture; `fields` are those of `Classifier` and of the family.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {name!r}; known: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[name](**fields)


__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "abstract_variables",
    "common",
    "create",
    "network",
]
