"""The architectures, by name."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ban_jax import registry
from ban_jax.models import (
    architecture,
    common,
    convnext,
    densenet,
    efficientnet,
    mixer,
    mobilenet_v2,
    mobilenet_v3,
    plain_cnn,
    preact_resnet,
    pytorch_names,
    resnet,
    vgg,
    vit,
    wide_resnet,
)
from ban_jax.models.architecture import Architecture
from ban_jax.models.common import Classifier, abstract_variables, network

ARCHITECTURES: registry.Registry[Architecture] = registry.Registry(
    "architecture",
    {
        # The first is looked at last: it knows any few convolutions.
        **plain_cnn.FAMILY,
        **densenet.FAMILY,
        **resnet.FAMILY,
        **preact_resnet.FAMILY,
        **vgg.FAMILY,
        **mobilenet_v2.FAMILY,
        **mobilenet_v3.FAMILY,
        **efficientnet.FAMILY,
        **convnext.FAMILY,
        **vit.FAMILY,
        **mixer.FAMILY,
        **wide_resnet.FAMILY,
    },
    group="ban_jax.architectures",
)


def create(name: str, **fields: Any) -> Classifier:
    """Builds an architecture; `fields` are those of `Classifier` and of the family.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    return ARCHITECTURES[name].constructor(**fields)


def fields_for(name: str, image_size: int) -> Mapping[str, int]:
    """What an architecture to be trained on images of this side takes besides its sizes."""
    constructor: Any = ARCHITECTURES[name].constructor
    made = getattr(constructor, "func", constructor)
    return made.fields_for(image_size) if hasattr(made, "fields_for") else {}


def register_architecture(
    name: str,
    constructor: Callable[..., Classifier],
    *,
    recognise: Callable[[architecture.Shapes], architecture.Fields | None]
    | None = None,
    rename: Callable[[Collection[str]], Mapping[str, str]] = pytorch_names.unchanged,
) -> None:
    """Adds a network of your own, so that its checkpoints can be scanned.

    Example:
      class Small(models.Classifier):  # with `setup`, `features` and `head`
        ...

      models.register_architecture("small", Small)

    A file belongs to it when the names of its tensors are those of the constructor's
    variables: ours (`params/conv/kernel`, in Orbax, npz and msgpack files) or the same in
    PyTorch's spelling (`conv.weight`, in safetensors files that `write_safetensors` made).
    Classes, width and channels are read off the shapes, which must grow linearly with
    them; other fields are the constructor's defaults. Where a file fits one of our networks
    too, yours is taken, and the candidate's notes say so.

    Args:
      name: under which it is created and reported.
      constructor: a subclass of `Classifier`, or a `functools.partial` of one.
      recognise: overrides the rule above: common name -> shape in PyTorch's layout of all
        tensors in, the constructor's fields out, or None where the tensors are of another
        network. Fields must be hashable.
      rename: all names of a PyTorch file -> common names, for files of programs that call
        the layers otherwise.

    Raises:
      ValueError: when the name is taken.
    """
    ARCHITECTURES.register(name, architecture.described(constructor, recognise, rename))


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Classifier",
    "abstract_variables",
    "architecture",
    "common",
    "create",
    "fields_for",
    "network",
    "pytorch_names",
    "register_architecture",
]
