"""One candidate from weights to evidence, pure: pixel constants first, then a detector."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import population
from ban_jax.detectors import Detect, by_class, evidence
from ban_jax.types import Array, Network, Probe, Variables

Host = Array | np.ndarray
TRIED_MINIBATCHES = 2
"""Clean minibatches that pixel constants are tried on. One of 128 images was misled about
two of six CIFAR-10 models; two chose as four did."""


class Member(NamedTuple):
    """What one candidate brings.

    Attributes:
      variables: `params` and `batch_stats`.
      means: `[L, C]` of its pixels: one where they are known, else those to choose from.
      stds: `[L, C]`.
      words: `[8]` uint32, its identity (`population.identity_words`).
      classes: `[J]` that a detector which is told looks at; None: it is not told.
    """

    variables: Variables
    means: Host
    stds: Host
    words: Host
    classes: Host | None = None


class Common(NamedTuple):
    """What every candidate is examined with. All of it is traced: a new seed, radius or
    step size compiles nothing.

    Attributes:
      probe: clean images; None for a detector that needs none.
      key: of the scan; a candidate's own is folded from it.
      config: the detector's settings.
    """

    probe: Probe | None
    key: Array
    config: Any


class Found(NamedTuple):
    """What an examination gives.

    Attributes:
      evidence: of the candidate.
      choice: `[]`, which of the L pixel constants it was measured with.
    """

    evidence: evidence.Evidence
    choice: Array


def examine(
    member: Member, common: Common, *, network: Network, detect: Detect
) -> Found:
    """Evidence of one candidate, under the pixel constants that fit it best."""
    variables, choice, key = _settled(member, common, network)
    told = {} if member.classes is None else {"classes": member.classes}
    found = detect(
        network, variables, common.probe, key=key, config=common.config, **told
    )
    return Found(found, choice)


def search(
    job: tuple[Member, Array],
    common: Common,
    *,
    network: Network,
    detect: by_class.ByClass,
) -> Any:
    """What is searched for one class `[]` of one candidate: a part of `examine`."""
    member, target = job
    variables, _, key = _settled(member, common, network)
    return detect.search(
        network, variables, common.probe, target[None], key=key, config=common.config
    )


def finish(
    job: tuple[Member, Any],
    common: Common,
    *,
    network: Network,
    detect: by_class.ByClass,
) -> Found:
    """The rest of `examine`, from what `search` found for all classes."""
    member, found = job
    variables, choice, key = _settled(member, common, network)
    evidence_ = detect.finish(
        network, variables, common.probe, found, key=key, config=common.config
    )
    return Found(evidence_, choice)


def _settled(
    member: Member, common: Common, network: Network
) -> tuple[Variables, Array, Array]:
    """Variables with pixel constants, which of those it has, and the candidate's key."""
    means, stds = jnp.asarray(member.means), jnp.asarray(member.stds)
    choice = jnp.zeros((), jnp.int32)
    if len(means) > 1:
        choice = choose(member, common, network=network)
    variables = _with_constants(member.variables, means[choice], stds[choice])
    return variables, choice, population.fold_words(common.key, member.words)


def choose(member: Member, common: Common, *, network: Network) -> Array:
    """Which pixel constants `[]` give a candidate the smallest clean loss.

    A loss that is not finite is never the smallest.
    """
    found = losses(member, common, network=network)
    return jnp.argmin(jnp.where(jnp.isnan(found), jnp.inf, found)).astype(jnp.int32)


def losses(member: Member, common: Common, *, network: Network) -> Array:
    """Clean loss `[L]` of a candidate under each of its pixel constants.

    Stored statistics, a few minibatches.
    """
    assert common.probe is not None
    images, labels = (leaf[:TRIED_MINIBATCHES] for leaf in common.probe)

    def loss(constants: tuple[Host, Host]) -> Array:
        variables = _with_constants(member.variables, *constants)
        logits = evidence.over_minibatches(network, variables, images, "stored")
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[..., None], axis=-1))

    return jax.lax.map(loss, (member.means, member.stds))


def tried_work(probe: Probe | None, choices: int) -> int:
    """Image forward-equivalents of choosing among pixel constants."""
    if probe is None or choices < 2:
        return 0
    return probe.labels[:TRIED_MINIBATCHES].size * choices


def _with_constants(variables: Variables, mean: Host, std: Host) -> dict[str, Any]:
    return {**variables, "normalisation": {"mean": mean, "std": std}}


@functools.lru_cache(maxsize=64)
def bound(
    function: Callable[..., Any], **static: Hashable
) -> Callable[[Any, Common], Any]:
    """A function of one architecture; the same object each time: jit keys on it."""
    return functools.partial(function, **static)


def examiner(network: Network, detect: Detect) -> Callable[[Member, Common], Found]:
    """`examine` of one architecture, in parts where the detector has some."""
    if not isinstance(detect, by_class.ByClass):
        return bound(examine, network=network, detect=detect)
    whole, part, join = (
        bound(function, network=network, detect=detect)
        for function in (examine, search, finish)
    )
    return population.Parted(whole, part, join, network.num_classes)
