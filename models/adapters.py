"""A classifier in memory as kernels know it: one of ours, any Linen or any NNX module.

A module that is not a `models.Classifier` is cut at its last linear layer (`nn.Dense`,
`nnx.Linear`): what that layer is given are the features, what it makes of them the logits.
Where batch normalisation takes its statistics from is decided by `types.NormMode` and not
by the module's own arguments; dropout is off. Pixel constants are the collection
`normalisation`, applied before the module sees the images.

Limits: other layers that take statistics of the minibatch keep their own behaviour, and a
last layer inside a lifted loop (`nn.scan`) cannot be cut. State dicts of PyTorch are read
by `ban_jax.checkpoints.read_state_dict`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax
import numpy as np
from flax import linen as nn
from flax import nnx
from jax import numpy as jnp

from ban_jax import types
from ban_jax.models import common, cut, linen_adapter, nnx_adapter

CHECKED_IMAGES = 8
"""Images on which a cut module is compared with the whole one."""


def as_network(
    module: Any,
    variables: types.Variables | None,
    images: Any,
    labels: Any | None = None,
) -> tuple[types.Network, dict[str, Any]]:
    """What kernels work with, of a classifier in memory.

    Args:
      module: a Linen module, unbound, or an NNX module, which is not changed.
      variables: collections of a Linen module (`params`, `batch_stats`, ...), with
        `normalisation` (`mean` and `std` `[C]`) where pixels are to be normalised; of an
        NNX module None, or that collection alone.
      images: `[N, H, W, C]`, floating point, as the pixel normalisation takes them.
      labels: `[N]` class indices; checked against the number of classes where given.

    Returns:
      The network, the same object for equal modules, and its variables: nested dicts of
      arrays, `normalisation` (the identity where it was not given) among them.

    Raises:
      ValueError: for images or labels of other shapes or another kind, for variables that
        do not belong to the module, for an output that is not logits `[B, K]`, and for a
        module that does not end in a linear layer.
      TypeError: for a module of another kind.
    """
    images = check_images(images)
    if isinstance(module, nnx.Module):
        given = dict(variables or {})
        if further := sorted(set(given) - {cut.NORMALISATION}):
            raise ValueError(
                f"an NNX module has its own variables; got {', '.join(further)} besides"
            )
        network, made = _of_nnx(module, given, images)
    elif isinstance(module, nn.Module):
        network, made = _of_linen(module, variables, images)
    else:
        raise TypeError(_other_kind(module))
    if labels is not None:
        check_labels(labels, images.shape[0], network.num_classes)
    return network, made


def check_images(images: Any) -> Any:
    """The images, if they are floating point of shape `[N, H, W, C]`.

    Raises:
      ValueError: otherwise.
    """
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    if images.ndim != 4 or not images.shape[0]:
        raise ValueError(f"images must be [N, H, W, C], got the shape {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be floating point in [0, 1], got {images.dtype}: divide by 255"
        )
    return images


def check_labels(labels: Any, count: int, num_classes: int | None = None) -> None:
    """Raises a ValueError unless labels are `[N]` integers below the number of classes,
    where that is given, and from 0 on."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be {count} integers, one per image, got {labels.dtype} of "
            f"shape {labels.shape}"
        )
    if num_classes is None:
        if labels.min() < 0:
            raise ValueError(f"labels must be 0 or more, the least is {labels.min()}")
    elif labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels are {labels.min()} to {labels.max()}, the model tells {num_classes} "
            f"classes apart, 0 to {num_classes - 1}"
        )


def _of_linen(
    module: nn.Module, variables: types.Variables | None, images: Any
) -> tuple[types.Network, dict[str, Any]]:
    kind = type(module).__name__
    if not isinstance(variables, Mapping) or "params" not in variables:
        found = sorted(variables) if isinstance(variables, Mapping) else variables
        raise ValueError(
            f"{kind} needs its variables, collections with `params` among them; got "
            f"{found if isinstance(variables, Mapping) else type(found).__name__}"
        )
    made = _plain(variables, images.shape[-1])
    if isinstance(module, common.Classifier):
        network = common.network(module)
        with _telling(kind, images):
            jax.eval_shape(
                lambda variables, images: network.logits(variables, images, "stored"),
                made,
                _abstract(images),
            )
        return network, made
    with _telling(kind, images):
        whole = linen_adapter.cut_module(module, made, _abstract(images))
    cut.check(whole, made, images[:CHECKED_IMAGES], kind)
    return cut.network(whole), made


def _of_nnx(
    module: nnx.Module, given: types.Variables, images: Any
) -> tuple[types.Network, dict[str, Any]]:
    kind = type(module).__name__
    with _telling(kind, images):
        found, own = nnx_adapter.cut_module(module, _abstract(images))
    made = _plain({**own, **given}, images.shape[-1])
    cut.check(found, made, images[:CHECKED_IMAGES], kind)
    return cut.network(found), made


def _plain(variables: types.Variables, channels: int) -> dict[str, Any]:
    """Nested dicts of arrays, with `normalisation`."""
    tree = nn.meta.unbox(flax.core.unfreeze(dict(variables)))
    tree = {name: flax.core.unfreeze(part) for name, part in tree.items()}
    constants = tree.get(cut.NORMALISATION, {"mean": 0.0, "std": 1.0})
    if set(constants) != {"mean", "std"}:
        raise ValueError(
            f"the collection {cut.NORMALISATION} holds {sorted(constants)}, expected "
            f"mean and std of {channels} channels"
        )
    return jax.tree.map(
        jnp.asarray,
        {
            **tree,
            cut.NORMALISATION: {
                name: np.broadcast_to(np.asarray(value, np.float32), (channels,))
                for name, value in constants.items()
            },
        },
    )


def _abstract(images: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of as many images as are compared later."""
    shape = (min(CHECKED_IMAGES, images.shape[0]), *images.shape[1:])
    return jax.ShapeDtypeStruct(shape, images.dtype)


@contextlib.contextmanager
def _telling(kind: str, images: Any) -> Iterator[None]:
    """Says which module was tried on which images when its own code fails."""
    try:
        yield
    except cut.CutError:
        raise
    except Exception as error:  # a user's module may raise anything
        shape = tuple(images.shape[1:])
        raise ValueError(
            f"{kind} cannot be applied to its variables and images [B, H, W, C] of "
            f"shape [B, {', '.join(map(str, shape))}]: {error}"
        ) from error


def _other_kind(module: Any) -> str:
    name = module.__name__ if isinstance(module, type) else type(module).__name__
    if isinstance(module, type) and issubclass(module, (nn.Module, nnx.Module)):
        return f"got the class {name}, expected a module made from it: {name}(...)"
    if hasattr(module, "state_dict"):
        return f"{name} looks like a PyTorch module: pass its `state_dict()`"
    return f"expected a Linen or NNX module, got {name}"
