"""The architectures, by name."""

import functools
from collections.abc import Callable
from typing import Any

from ban_jax.models import common, densenet, preact_resnet, resnet, vgg
from ban_jax.models.common import Classifier, abstract_variables, network

ARCHITECTURES: dict[str, Callable[..., Classifier]] = {
    "densenet121": densenet.DenseNet,
    "preact_resnet18": preact_resnet.PreActResNet,
    "resnet18": resnet.ResNet,
    "resnet34": functools.partial(resnet.ResNet, blocks=(3, 4, 6, 3)),
    "vgg16": vgg.VGG,
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
