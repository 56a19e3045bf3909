"""Adversarial neuron noise: the perturbation that wakes a backdoor, for ONE model.

Every normalisation layer's scale and bias is multiplied by one factor per channel,
`(1 + delta) * scale` and `(1 + xi) * bias`. The factors are found by sign ascent on a
loss inside the ball `|delta|, |xi| <= epsilon`. Networks without normalisation layers get
one factor per output channel of their weights and biases instead.

References:
  Xu et al., "BAN: Detecting Backdoors Activated by Adversarial Neuron Noise",
  NeurIPS 2024, section 3.
  Wu and Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models",
  NeurIPS 2021, section 3.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import chex
import jax
import optax
from flax import traverse_util
from jax import numpy as jnp

from ban_jax.types import Array, Variables

Noise = dict[str, Array]
"""Path of a parameter, `/`-joined -> its factors minus one, per channel `[C]`."""
Change = TypeVar("Change")
"""What a search moves: noise on neurons, or an image."""
Select = Callable[[str, Any], bool]
"""`(path, leaf) -> bool`: whether noise acts on a parameter; its last axis is channels."""


ApplyFn = Callable[[Variables, Array], Array]
"""`(variables, images [B,H,W,C]) -> logits [B,K]`, the statistics mode baked in."""


class NoiseInfo(NamedTuple):
    """What a search saw; diagnosis only.

    Attributes:
      loss: `[S]` the mean cross-entropy before each step.
      max_abs: `[]` the largest |delta| or |xi|.
      is_finite: `[]` bool, false where a loss or a factor is NaN or infinite.
    """

    loss: Array
    max_abs: Array
    is_finite: Array


def neurons(variables: Variables, select: Select | None = None) -> dict[str, Array]:
    """The parameters that noise acts on, by path.

    Args:
      variables: one model's collections; only `params` is read.
      select: overrides the default: `scale` and `bias` of every layer that owns a
        `scale` (a normalisation layer); where no layer does, every parameter.

    Raises:
      ValueError: when nothing is selected.
    """
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    if select is None:
        norms = {path.rpartition("/")[0] for path in params if _leaf(path) == "scale"}
        chosen = {
            path: leaf
            for path, leaf in params.items()
            if not norms
            or (path.rpartition("/")[0] in norms and _leaf(path) in ("scale", "bias"))
        }
    else:
        chosen = {path: leaf for path, leaf in params.items() if select(path, leaf)}
    if not chosen:
        raise ValueError(
            f"no parameter to perturb among {sorted(params)}: `select` chose none"
        )
    return chosen


def init_noise(
    key: Array, variables: Variables, radius: chex.Numeric, select: Select | None = None
) -> Noise:
    """Draws factors from U(-radius, radius), each parameter from a key of its own.

    All rows are drawn at once, as long as the longest: XLA would compile a generator for
    each. Where `jax_threefry_partitionable` is on, as by default, a row begins alike
    whatever its length.
    """
    chosen = neurons(variables, select)
    keys = jax.random.split(key, len(chosen))
    counts = {path: math.prod(leaf.shape[-1:]) for path, leaf in chosen.items()}
    shape = (max(counts.values()),)
    rows = {
        dtype: radius
        * jax.vmap(
            lambda key, dtype=dtype: jax.random.uniform(key, shape, dtype, -1.0, 1.0)
        )(keys)
        for dtype in dict.fromkeys(leaf.dtype for leaf in chosen.values())
    }
    return {
        path: rows[leaf.dtype][index, : counts[path]].reshape(leaf.shape[-1:])
        for index, (path, leaf) in enumerate(sorted(chosen.items()))
    }


def apply_noise(variables: Variables, noise: Noise) -> Variables:
    """Multiplies each selected parameter by `1 + noise` along its last axis.

    Every other leaf is the very same array; dtypes are kept; zero noise changes no bit.
    """
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    for path, factor in noise.items():
        leaf = params[path]
        factor = factor.reshape((1,) * (leaf.ndim - 1) + factor.shape)
        params[path] = (leaf * (1 + factor)).astype(leaf.dtype)
    return {**variables, "params": traverse_util.unflatten_dict(params, sep="/")}


def interpolate(variables: Variables, noisy: Variables, share: Array) -> Variables:
    """The candidate under `share` times the noise that led from `variables` to `noisy`."""
    params = jax.tree.map(
        lambda plain, other: plain + share * (other - plain),
        variables["params"],
        noisy["params"],
    )
    return {**variables, "params": params}


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean `[]` over images, of logits `[B, K]` and classes `[B]`."""
    chex.assert_equal_shape_prefix([logits, labels], 1)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def weighted_cross_entropy(logits: Array, labels: Array, weights: Array) -> Array:
    """Mean over the images `[B]` with weight; zero where no image has any."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def perturb_params(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    labels: Array,
    *,
    key: Array,
    epsilon: chex.Numeric,
    steps: int,
    step_size: chex.Numeric | None = None,
    start: chex.Numeric = 1.0,
    towards: bool = False,
    weights: Array | None = None,
    select: Select | None = None,
) -> tuple[Variables, NoiseInfo]:
    """Finds neuron noise that raises (or, `towards`, lowers) the loss of one model.

    Pure; compile and batch it from outside. Promises, each one tested: no factor leaves
    `[-epsilon, epsilon]`; `epsilon` 0 returns every parameter bit for bit; only selected
    parameters change and dtypes are kept; statistics and inputs are untouched; the same
    key gives the same noise. Where a gradient is exactly zero a factor stays as drawn
    (sign(0) = 0).

    Args:
      apply_fn: the model; gradients are taken through it, for the noise alone.
      variables: its collections, without a model axis.
      images: `[B, H, W, C]`.
      labels: `[B]` the true classes; with `towards` the class to reach.
      key: typed key, consumed.
      epsilon: radius of the ball, relative to each parameter; 0.3 in the paper.
      steps: number of ascent steps, static.
      step_size: length of a step, `2 * epsilon / steps` when None: enough to cross the
        ball from wherever the start lies.
      start: radius of the random start as a share of epsilon.
      towards: descend instead: make `labels` the prediction.
      weights: `[B]` of each image in the loss, one when None. An image of weight zero
        still counts in batch statistics.
      select: see `neurons`.

    Returns:
      The variables with noise applied, and a `NoiseInfo`.

    Raises:
      ValueError: when `select` chooses nothing.
    """
    chex.assert_rank([images, labels], [4, 1])
    chex.assert_equal_shape_prefix([images, labels], 1)
    if weights is None:
        weights = jnp.ones(labels.shape, images.dtype)
    direction = -1.0 if towards else 1.0

    def objective(noise: Noise) -> Array:
        logits = apply_fn(apply_noise(variables, noise), images)
        return direction * weighted_cross_entropy(logits, labels, weights)

    noise, climbed = climb(
        objective,
        init_noise(key, variables, epsilon * start, select),
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
    )
    losses = direction * climbed
    extremes = jnp.stack([jnp.max(jnp.abs(factor)) for factor in noise.values()])
    info = NoiseInfo(
        loss=losses,
        max_abs=jnp.max(extremes),
        is_finite=jnp.all(jnp.isfinite(extremes)) & jnp.all(jnp.isfinite(losses)),
    )
    return apply_noise(variables, noise), info


def climb(
    objective: Callable[[Change], Array],
    noise: Change,
    *,
    epsilon: chex.Numeric,
    steps: int,
    step_size: chex.Numeric | None = None,
) -> tuple[Change, Array]:
    """Sign ascent on `objective(noise) -> []` inside the ball, from the given noise.

    Args:
      objective: differentiable; what the noise is meant to raise.
      noise: where the search starts; any tree of arrays.
      epsilon, steps, step_size: as for `perturb_params`.

    Returns:
      The noise, and the objective before each step, `[S]`.
    """
    step_size = 2 * epsilon / max(steps, 1) if step_size is None else step_size
    ascent = optax.chain(optax.scale_by_sign(), optax.scale(step_size))

    def step(noise: Change, _: None) -> tuple[Change, Array]:
        value, gradient = jax.value_and_grad(objective)(noise)
        updates, _ = ascent.update(gradient, ascent.init(noise))
        return project(optax.apply_updates(noise, updates), epsilon), value

    return jax.lax.scan(step, noise, length=steps)


def project(noise: Change, epsilon: chex.Numeric) -> Change:
    """Clips every entry into the sup-norm ball."""
    return optax.projections.projection_linf_ball(noise, epsilon)


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]
