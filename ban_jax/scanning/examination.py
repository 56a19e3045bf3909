"""One candidate from weights to evidence, pure: pixel constants first, then a detector."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import population
from ban_jax.config import DetectorConfig
from ban_jax.detectors import evidence
from ban_jax.types import Array, Network, Probe, Variables

Host = Array | np.ndarray
TRIED_MINIBATCHES = 2
"""Clean minibatches that pixel constants are tried on. One of 128 images was misled about
two of six CIFAR-10 models; two chose as four did."""


class Options(NamedTuple):
    """Pixel constants to choose from.

    Attributes:
      variables: the candidate's `params` and `batch_stats`.
      means: `[L, C]`.
      stds: `[L, C]`.
    """

    variables: Variables
    means: Host
    stds: Host


class Choice(NamedTuple):
    """The pixel constants that fit best.

    Attributes:
      which: `[]`, of the L.
      mean: `[C]`.
      std: `[C]`.
    """

    which: Array
    mean: Array
    std: Array


class Member(NamedTuple):
    """What one candidate brings.

    Attributes:
      variables: `params` and `batch_stats`.
      mean: `[C]`, of its pixels.
      std: `[C]`.
      words: `[8]` uint32, its identity (`population.identity_words`).
    """

    variables: Variables
    mean: Host
    std: Host
    words: Host


class Common(NamedTuple):
    """What every candidate is examined with. All of it is traced: a new seed, radius or
    step size compiles nothing."""

    probe: Probe
    key: Array
    config: DetectorConfig


def choose(options: Options, common: Common, *, network: Network) -> Choice:
    """The pixel constants under which a candidate has the smallest clean loss.

    Stored statistics, a few minibatches. A loss that is not finite is never the smallest.
    """
    images, labels = (leaf[:TRIED_MINIBATCHES] for leaf in common.probe)

    def loss(constants: Sequence[Host]) -> Array:
        variables = _with_constants(options.variables, *constants)
        logits = evidence.over_minibatches(network, variables, images, "stored")
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[..., None], axis=-1))

    losses = jax.lax.map(loss, options[1:])
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    mean, std = (jnp.asarray(leaf)[best] for leaf in options[1:])
    return Choice(best, mean, std)


def examine(
    member: Member, common: Common, *, network: Network, detect: Callable[..., Any]
) -> evidence.Evidence:
    """Evidence of one candidate."""
    variables = _with_constants(member.variables, member.mean, member.std)
    key = population.fold_words(common.key, member.words)
    return detect(network, variables, common.probe, key=key, config=common.config)


def _with_constants(variables: Variables, mean: Host, std: Host) -> dict[str, Any]:
    return {**variables, "normalisation": {"mean": mean, "std": std}}


@functools.cache
def bound(function: Callable[..., Any], **static: Any) -> Callable[[Any, Common], Any]:
    """`choose` or `examine` of one architecture; the same object each time."""
    return functools.partial(function, **static)
