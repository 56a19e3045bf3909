"""A module cut at its last linear layer: what the Linen and NNX adapters share."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from ban_jax import population, types
from ban_jax.models import common
from ban_jax.types import Array, NormMode, Variables

NORMALISATION = "normalisation"
"""Collection of the pixel constants `mean` and `std` `[C]`; the module does not see it."""
ARGUMENTS = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "eval": True,
    "inference": True,
    "rngs": None,
}
"""What is passed to a module that takes an argument of such a name."""


class CutError(ValueError):
    """A module that cannot be cut; the message says what was expected and found."""


class Cut(NamedTuple):
    """A module, cut.

    Attributes:
      run: `(variables, pixels [B,H,W,C], mode) -> (logits [B,K], input of the last layer
        [B,...,F], variables)`.
      last: `(variables, [B,F]) -> [B,K]`, the last layer.
      kernel: `variables -> [F,K]`, its weights.
      name: what the module calls it.
      num_classes: K.
    """

    run: Callable[[Variables, Array, NormMode], tuple[Array, Array, Variables]]
    last: Callable[[Variables, Array], Array]
    kernel: Callable[[Variables], Array]
    name: str
    num_classes: int


@functools.lru_cache(maxsize=64)
def network(cut: Cut) -> types.Network:
    """The network kernels work with; one object per cut, so jit can key on it."""

    def features(variables: Variables, images: Array, mode: NormMode):
        """`[B,H,W,C]` -> `[B,h,w,F]`, at least float32."""
        if mode not in typing.get_args(NormMode):
            modes = typing.get_args(NormMode)
            raise ValueError(f"mode must be one of {modes}, got {mode!r}")
        constants = variables[NORMALISATION]
        mean, std = (
            common.along_channels(jnp.asarray(constants[name]), images)
            for name in ("mean", "std")
        )
        _, inputs, after = cut.run(variables, (images - mean) / std, mode)
        batch, *places, channels = inputs.shape
        height = places[0] if len(places) == 2 else 1
        return common.widened(inputs).reshape(batch, height, -1, channels), after

    def head(variables: Variables, features: Array, mode: NormMode):
        """`[B,h,w,F]` -> `[B,K]`; a linear layer of means is the mean of linear layers."""
        del mode
        logits = cut.last(variables, common.global_average(features))
        return common.widened(logits), variables

    return types.Network(features, head, cut.kernel, cut.num_classes)


def arguments(call: Callable[..., Any], kind: str) -> tuple[tuple[str, Any], ...]:
    """What to pass to a module's `__call__` besides the images, as pairs.

    Args:
      call: the method, unbound.
      kind: the module's class, for the message.

    Raises:
      ValueError: for an argument without default that is not one of `ARGUMENTS`.
    """
    _, *rest = list(inspect.signature(call).parameters.values())
    if not rest:
        raise CutError(f"{kind}.__call__ takes no images")
    unknown = [
        parameter.name
        for parameter in rest[1:]
        if parameter.name not in ARGUMENTS
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if unknown:
        raise CutError(
            f"{kind}.__call__ needs {', '.join(unknown)} besides the images; known "
            f"arguments are {', '.join(ARGUMENTS)}. Wrap it in a module that takes images"
        )
    return tuple(
        (parameter.name, ARGUMENTS[parameter.name])
        for parameter in rest[1:]
        if parameter.name in ARGUMENTS
    )


def num_classes(output: Any, batch: int, kind: str) -> int:
    """K of a module's output, which must be logits `[B, K]`.

    Raises:
      ValueError: for any other output.
    """
    shape = getattr(output, "shape", None)
    if shape is None:
        raise CutError(
            f"{kind} returns a {type(output).__name__}, expected logits [B, K]: wrap it "
            "in a module that returns them alone"
        )
    if len(shape) != 2 or shape[0] != batch:
        raise CutError(
            f"{kind} returns an array of shape {shape} for {batch} images, expected "
            f"logits of shape ({batch}, K)"
        )
    return shape[1]


def no_linear(kind: str, layer: str) -> CutError:
    """A module without a layer to cut at."""
    return CutError(
        f"{kind} calls no {layer}: expected a classifier whose last layer is one; a "
        "network of another make can be given as a `models.Classifier`"
    )


@population.compiled
def _both(variables: Variables, images: Array, *, cut: Cut) -> tuple[Array, ...]:
    """Logits of the whole module and of the cut one."""
    whole, _, _ = cut.run(variables, images, "stored")
    identity = {"mean": jnp.zeros(1), "std": jnp.ones(1)}
    plain = {**variables, NORMALISATION: identity}
    logits, _ = network(cut).logits(plain, images, "stored")
    return common.widened(whole), logits


def check(cut: Cut, variables: Variables, images: Array, kind: str) -> None:
    """Compares the cut network with the whole module on a few images.

    A softmax behind the last layer is no difference: kernels want logits.

    Raises:
      ValueError: where the module's output is not that of its last linear layer.
    """

    whole, logits = _both(variables, images, cut=cut)
    if not (jnp.all(jnp.isfinite(whole)) and jnp.all(jnp.isfinite(logits))):
        return  # weights that are not finite are for the verdict to report
    for same in (logits, jax.nn.softmax(logits), jax.nn.log_softmax(logits)):
        scale = jnp.maximum(jnp.max(jnp.abs(same)), 1e-6)
        # Modules may compute in bfloat16, of eight digits.
        if jnp.max(jnp.abs(whole - same)) <= 2e-2 * scale:
            return
    raise CutError(
        f"{kind} does more to the output of its last linear layer, {cut.name}, than a "
        "mean or a softmax: its logits cannot be taken from there. Give it as a "
        "`models.Classifier`"
    )
