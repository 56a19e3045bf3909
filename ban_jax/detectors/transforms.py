"""Inversions whose trigger is a network: what BTI-DBF, FeatureRE and UNICORN share.

The U-Net changes images on the scale the candidate was trained on, and nothing bounds what
it gives: so a candidate is taken without its pixel constants, and images are scaled first.
Only pictures for people are cut to [0, 1].

Its parameters are one vector. An optimiser, a choice of the best and a loop's carry then
compute with one array instead of dozens of small ones: there is less to compile, and
there are fewer kernels to launch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import flatten_util
from jax import numpy as jnp

from ban_jax.detectors import inversion
from ban_jax.detectors.words import Words
from ban_jax.models import unet
from ban_jax.types import Array, Network, Probe, Variables

PICTURES = {
    "before": Words("Clean image", "One per class, as it is."),
    "after": Words("Changed image", "What the recovered network makes of it."),
    "difference": Words(
        "Change of the image", "Grey where nothing changed, at half its strength."
    ),
}
"""Words for `pictures`."""


class Scale(NamedTuple):
    """Pixel constants `[C]` of a candidate."""

    mean: Array
    std: Array

    def scaled(self, images: Array) -> Array:
        """`[..., H, W, C]` in [0, 1] -> the scale the candidate was trained on."""
        return (images - self._along(self.mean, images)) / self._along(self.std, images)

    def pixels(self, scaled: Array) -> Array:
        """The way back, unbounded."""
        return scaled * self._along(self.std, scaled) + self._along(self.mean, scaled)

    @staticmethod
    def _along(constant: Array, images: Array) -> Array:
        return constant.reshape((1,) * (images.ndim - 1) + constant.shape)


class Clean(NamedTuple):
    """A candidate and clean images on one scale.

    Attributes:
      variables: the candidate's, without pixel constants.
      images: `[N, H, W, C]` scaled.
      labels: `[N]`.
      scale: the constants.
    """

    variables: Variables
    images: Array
    labels: Array
    scale: Scale


class Trained(NamedTuple):
    """Parameters that are searched for, and their optimiser's state."""

    params: Any
    optimizer: optax.OptState


def clean_of(variables: Variables, probe: Probe) -> Clean:
    """A candidate that takes scaled images, and the probe's images so scaled."""
    images, labels = inversion.flat(probe)
    constants = variables.get("normalisation")
    if not constants:
        channels = (images.shape[-1],)
        scale = Scale(jnp.zeros(channels), jnp.ones(channels))
        return Clean(variables, images, labels, scale)
    scale = Scale(constants["mean"], constants["std"])
    identity = {
        "mean": jnp.zeros_like(scale.mean),
        "std": jnp.ones_like(scale.std),
    }
    bare = {**variables, "normalisation": identity}
    return Clean(bare, scale.scaled(images), labels, scale)


def net_of(network: Network, shape: tuple[int, ...], width: int) -> unet.UNet:
    """The U-Net for images `[H, W, C]`, computed as the candidate is."""
    return unet.UNet(
        channels=shape[-1],
        width=width,
        levels=unet.levels_of(shape[:2]),
        lowering=network.lowering,
        precision=network.precision,
    )


def init(net: unet.UNet, key: Array) -> Array:
    """Its parameters `[P]`, as PyTorch starts them; consumes `key`."""
    return flatten_util.ravel_pytree(_tree(net, key))[0]


@functools.lru_cache(maxsize=64)
def tree_of(net: unet.UNet) -> Callable[[Array], Any]:
    """The function from a U-Net's parameters `[P]` to the tree that Linen takes."""
    found: list[Callable[[Array], Any]] = []

    def flat(key: Array) -> Array:
        vector, back = flatten_util.ravel_pytree(_tree(net, key))
        found.append(back)
        return vector

    jax.eval_shape(flat, jax.eval_shape(jax.random.key, 0))
    return found[0]


def _tree(net: unet.UNet, key: Array) -> Any:
    # No parameter's shape depends on the size of the images.
    side = 2 ** (net.levels + 1)
    return net.init(key, jnp.zeros((1, side, side, net.channels)))["params"]


def apply(net: unet.UNet, params: Array, images: Array) -> Array:
    """What the U-Net with parameters `[P]` makes of scaled images `[B, H, W, C]`."""
    found: Any = net.apply({"params": tree_of(net)(params)}, images)
    return found


def descend(
    loss_of: Any, trained: Trained, optimizer: optax.GradientTransformation
) -> tuple[Trained, Any]:
    """One step down.

    Args:
      loss_of: `params -> (loss [], what it saw)`.
      trained: so far.
      optimizer: makes the step.

    Returns:
      After the step, and what was seen before it.
    """
    gradient, seen = jax.grad(loss_of, has_aux=True)(trained.params)
    updates, state = optimizer.update(gradient, trained.optimizer, trained.params)
    return Trained(optax.apply_updates(trained.params, updates), state), seen


def begin(params: Any, optimizer: optax.GradientTransformation) -> Trained:
    """Parameters before their first step."""
    return Trained(params, optimizer.init(params))


def squared(one: Array, other: Array) -> Array:
    """Mean squared difference `[]`."""
    return jnp.mean(jnp.square(one - other))


def in_parts(function: Any, *arrays: Array, size: int) -> Any:
    """A function of images, a part of them at a time: no more memory than `size` take.

    Args:
      function: of arrays `[B, ...]`. It may look at all images of a part, but one that
        comes twice must change nothing for the others.
      arrays: `[N, ...]` each.
      size: images of a part at most. Parts are equal, the last image filling up the last.

    Returns:
      What the function gives, `[N, ...]`.
    """
    count = len(arrays[0])
    parts = -(-count // size)
    each = -(-count // parts)

    def split(one: Array) -> Array:
        beyond = [(0, parts * each - count), *[(0, 0)] * (one.ndim - 1)]
        return jnp.pad(one, beyond, mode="edge").reshape(parts, each, *one.shape[1:])

    found = jax.lax.map(lambda part: function(*part), [split(one) for one in arrays])
    return jax.tree.map(
        lambda leaf: leaf.reshape(parts * each, *leaf.shape[2:])[:count], found
    )


def first_of_each(labels: Array, num_classes: int) -> Array:
    """Where each class `[K]` has its first image; without any, the next class that has."""
    return jnp.argmin(
        (labels[None] - jnp.arange(num_classes)[:, None]) % num_classes, 1
    )


def pictures(scale: Scale, before: Array, after: Array) -> dict[str, Array]:
    """Scaled images `[K, H, W, C]` before and after, and what changed, for people.

    The change is drawn about a middle grey.
    """
    clean, changed = scale.pixels(before), scale.pixels(after)
    difference = 0.5 + (changed - clean) / 2
    named = {"before": clean, "after": changed, "difference": difference}
    return {
        # A search that ran off gives no picture; its losses tell of it.
        name: jnp.clip(jnp.nan_to_num(images, nan=0.5), 0.0, 1.0)
        for name, images in named.items()
    }
