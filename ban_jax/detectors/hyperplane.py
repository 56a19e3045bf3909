"""The search of FeatureRE for one class: a U-Net and a feature mask, in turn.

`detectors.feature_re` says what they are for. Everything is pure, for one model and one
class; settings are those of `feature_re.Settings`.
"""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from ban_jax.detectors import class_transforms as shared
from ban_jax.detectors import inversion, transforms
from ban_jax.detectors.class_transforms import Others, Pressure
from ban_jax.detectors.transforms import Trained
from ban_jax.models import unet
from ban_jax.types import Array, Network, Variables

Seen = dict[str, Array]


class State(NamedTuple):
    """The search of one class.

    Attributes:
      net: the U-Net's parameters.
      mask: unbounded, `[h, w, c]`.
      pressure: of the last epoch.
      best: parameters and mask with the smallest value.
      reached: `[]` the largest share led to the class in any epoch.
      is_finite: `[]` whether all losses were.
    """

    net: Trained
    mask: Trained
    pressure: Pressure
    best: inversion.Best
    reached: Array
    is_finite: Array


def warm_up(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    params: Any,
    batches: Others,
    target: Array,
    config: Any,
) -> Trained:
    """Trains the U-Net to lead images to the class, before there is a mask."""
    optimizer = inversion.adam(config.learning_rate)

    def step(trained: Trained, batch: Others) -> tuple[Trained, None]:
        trained, _ = transforms.descend(
            lambda params: warm_loss(
                net, network, variables, params, batch, target, config
            ),
            trained,
            optimizer,
        )
        return trained, None

    def once(trained: Trained, _: None) -> tuple[Trained, None]:
        return jax.lax.scan(step, trained, batches)

    first = transforms.begin(params, optimizer)
    return jax.lax.scan(once, first, length=config.warm_epochs)[0]


def begin(net: Trained, shape: tuple[int, ...], config: Any) -> State:
    """A search after its warm-up: a mask of 0.88 everywhere on features `[h, w, c]`."""
    free = jnp.ones(shape)
    mask = transforms.begin(free, inversion.adam(config.mask_learning_rate))
    best = inversion.nothing((net.params, inversion.boxed(free)))
    return State(net, mask, shared.no_pressure(), best, jnp.zeros(()), jnp.array(True))


def warm_loss(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    params: Any,
    batch: Others,
    target: Array,
    config: Any,
) -> tuple[Array, Seen]:
    """Loss `[]` of the warm-up on one batch `[B, H, W, C]`."""
    changed = transforms.apply(net, params, batch.images)
    logits, _ = network.logits(variables, changed, "stored")
    image = shared.change(batch.images, changed, batch.weights)
    loss = shared.cross_entropy(logits, target, batch.weights)
    loss += jnp.where(image > config.image_bound, 100 * image, 0.0)
    return loss, {"loss": loss, "image": image}


def mix(mask: Array, features: Array, lent: Array) -> Array:
    """Features `[B, h, w, c]` where the mask holds, lent ones elsewhere."""
    return mask[None] * features + (1 - mask)[None] * lent


def net_loss(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    params: Any,
    mask: Array,
    batch: Others,
    lent: Array,
    centre: Array,
    target: Array,
    pressure: Pressure,
    config: Any,
) -> tuple[Array, Seen]:
    """Loss `[]` of the U-Net on one batch.

    Args:
      net, network, variables: U-Net and candidate.
      params: the U-Net's.
      mask: `[h, w, c]` in [0, 1].
      batch: scaled images `[B, H, W, C]` and their weights.
      lent: `[B, h, w, c]` features of clean images.
      centre: `[h, w, c]` mean features of the class.
      target: the class.
      pressure: of the last epoch.
      config: see `feature_re.Settings`.
    """
    changed = transforms.apply(net, params, batch.images)
    features, _ = network.features(variables, changed, "stored")
    logits, _ = network.head(variables, mix(mask, features, lent), "stored")
    seen = {
        "cosine": shared.cosine(centre, shared.mean_of(features, batch.weights)),
        "success": shared.success(logits, target, batch.weights),
        "image": shared.change(batch.images, changed, batch.weights),
        "spread": shared.spread(features, mask, batch.weights),
    }
    entropy = shared.cross_entropy(logits, target, batch.weights)
    loss = 5 * jnp.maximum(seen["cosine"], 0.0)
    loss += shared.cost_of_bounds(
        seen, "image", config.image_bound, entropy, pressure, config
    )
    return loss, {**seen, "loss": loss}


def mask_loss(
    network: Network,
    variables: Variables,
    free: Array,
    features: Array,
    lent: Array,
    weights: Array,
    target: Array,
    bound: Array,
) -> tuple[Array, Array]:
    """Loss `[]` of an unbounded mask on features `[B, h, w, c]`, and its norm `[]`."""
    mask = inversion.boxed(free)
    logits, _ = network.head(variables, mix(mask, features, lent), "stored")
    norm = jnp.sum(mask)
    loss = shared.cross_entropy(logits, target, weights)
    return loss + jnp.where(norm > bound, norm, 0.0), norm


def most_of(size: int, config: Any) -> Array:
    """Entries `[]` that a mask over `size` features may hold."""
    return jnp.floor(size * config.mask_size)


def epoch(
    net: unet.UNet,
    network: Network,
    variables: Variables,
    state: State,
    batches: Others,
    lent: Array,
    centre: Array,
    target: Array,
    index: Array,
    config: Any,
) -> tuple[State, Seen]:
    """One pass over the batches: for each a step of the U-Net, then one of the mask.

    Args:
      lent: `[2, T, B, h, w, c]` features lent for the U-Net's steps and the mask's.
      index: `[]` of the epoch; for the rest see `net_loss`.
    """
    net_optimizer = inversion.adam(config.learning_rate)
    mask_optimizer = inversion.adam(config.mask_learning_rate)
    bound = most_of(state.mask.params.size, config)

    def step(
        carry: tuple[Trained, Trained], job: tuple[Others, Array, Array]
    ) -> tuple[tuple[Trained, Trained], Seen]:
        trained, mask = carry
        batch, for_net, for_mask = job
        trained, seen = transforms.descend(
            lambda params: net_loss(
                net,
                network,
                variables,
                params,
                inversion.boxed(mask.params),
                batch,
                for_net,
                centre,
                target,
                state.pressure,
                config,
            ),
            trained,
            net_optimizer,
        )
        changed = transforms.apply(net, trained.params, batch.images)
        features, _ = network.features(variables, changed, "stored")
        mask, norm = transforms.descend(
            lambda free: mask_loss(
                network,
                variables,
                free,
                features,
                for_mask,
                batch.weights,
                target,
                bound,
            ),
            mask,
            mask_optimizer,
        )
        return (trained, mask), {**seen, "mask": norm}

    (trained, mask), seen = jax.lax.scan(
        step, (state.net, state.mask), (batches, *lent)
    )
    seen = {name: jnp.mean(values) for name, values in seen.items()}
    value = value_of(seen, mask.params.size, config)
    # The value is of what the epoch began with.
    began = (state.net.params, inversion.boxed(state.mask.params))
    pressure = Pressure(
        image=shared.excess(seen["image"], config.image_bound),
        success=jnp.maximum(config.success - seen["success"], 0.0) / config.success,
        spread=shared.excess(seen["spread"], config.spread_bound),
    )
    after = State(
        net=trained,
        mask=mask,
        pressure=pressure,
        best=inversion.better(state.best, value, began, index),
        reached=jnp.maximum(state.reached, seen["success"]),
        is_finite=state.is_finite & jnp.isfinite(seen["loss"]) & jnp.isfinite(value),
    )
    return after, {**seen, "value": value}


def value_of(seen: Seen, size: int, config: Any) -> Array:
    """The value `[]` of what an epoch saw, of a mask over `size` features."""
    return (
        seen["cosine"]
        - seen["success"]
        + shared.excess(seen["image"], config.image_bound)
        + shared.excess(seen["mask"], jnp.maximum(most_of(size, config), 1.0))
        + shared.excess(seen["spread"], config.spread_bound)
    )
