"""The search of UNICORN for one class: two U-Nets, a trigger between them, a feature mask.

`detectors.unicorn` says what they are for. Everything is pure, for one model and one
class; settings are those of `unicorn.Settings`.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from ban_jax.detectors import class_transforms as shared
from ban_jax.detectors import inversion, transforms
from ban_jax.detectors.class_transforms import Others, Pressure
from ban_jax.detectors.transforms import Scale, Trained
from ban_jax.models import unet
from ban_jax.types import Array, Network, Variables

Seen = dict[str, Array]

WINDOW, DEVIATION = 11, 1.5
"""Of the Gaussian under which structures are compared."""
C1, C2 = 0.01**2, 0.03**2
"""Structural similarity's constants, for pixels in [0, 1]."""

COSINE_OF_TRIGGER = 0.5
"""Resemblance to the class up to which a trigger's step lets it be."""


class Task(NamedTuple):
    """What does not change in a search: U-Net, candidate, pixel constants."""

    net: unet.UNet
    network: Network
    variables: Variables
    scale: Scale


class Nets(NamedTuple):
    """Parameters `[P]` of the U-Net into the space, and of the one back."""

    into: Array
    back: Array


class Patch(NamedTuple):
    """Mask and pattern `[H, W, C]` in the space; unbounded, or boxed into [0, 1]."""

    mask: Array
    pattern: Array


class State(NamedTuple):
    """The search of one class.

    Attributes:
      nets: a `Nets`.
      trigger: an unbounded `Patch`.
      mask: of the features, unbounded `[h, w, c]`.
      pressure: of the last epoch.
      best: nets and trigger with the largest score, negative.
      is_finite: `[]` whether all losses were.
    """

    nets: Trained
    trigger: Trained
    mask: Trained
    pressure: Pressure
    best: inversion.Best
    is_finite: Array


class Orders(NamedTuple):
    """In which order clean images lend their features in an epoch's steps.

    Attributes:
      nets: `[T, B]` of the U-Nets' steps.
      trigger: `[T, S, B]` of the trigger's.
      mask: `[T, S, B]` of the feature mask's.
    """

    nets: Array
    trigger: Array
    mask: Array


def draw_orders(key: Array, weights: Array, config: Any) -> Orders:
    """Orders of batches with weights `[T, B]`; images that weigh nothing lend nothing."""
    number, steps = weights.shape[0], config.trigger_steps

    def order(job: tuple[Array, Array]) -> Array:
        key, weights = job
        # Those that count are spread over all places, in an order of their own.
        there = jnp.argsort(jax.random.uniform(key, weights.shape) + 2 * (weights == 0))
        count = jnp.maximum(jnp.sum(weights > 0), 1)
        place = jnp.cumsum(weights > 0) - 1
        return there[jnp.maximum(place, 0) % count]

    per_batch = 1 + 2 * steps
    keys = jax.random.split(key, (number, per_batch)).reshape(-1)
    each = jnp.repeat(weights, per_batch, axis=0)
    drawn = jax.lax.map(order, (keys, each)).reshape(number, per_batch, -1)
    return Orders(drawn[:, 0], drawn[:, 1 : 1 + steps], drawn[:, 1 + steps :])


def most_of(size: int, share: Any) -> Array:
    """Entries `[]` that a mask of so many may hold."""
    return jnp.asarray(size * share)


def stretched(values: Array, lowest: Array, highest: Array) -> Array:
    """To [0, 1], by the lowest and the highest value of all."""
    return (values - lowest) / (highest - lowest)


def stamped(there: Array, free: Patch, weights: Array) -> Array:
    """Images in the space `[B, H, W, C]` with an unbounded trigger.

    The space is stretched to [0, 1] by all images at once that weigh something.
    """
    mask, pattern = inversion.boxed(free.mask), inversion.boxed(free.pattern)
    is_there = weights.reshape(-1, 1, 1, 1) > 0
    lowest = jnp.min(jnp.where(is_there, there, jnp.inf))
    highest = jnp.max(jnp.where(is_there, there, -jnp.inf))
    unit = stretched(there, lowest, highest)
    unit = (1 - mask)[None] * unit + (mask * pattern)[None]
    return unit * (highest - lowest) + lowest


def stamp(
    net: unet.UNet, nets: Nets, free: Patch, images: Array, weights: Array
) -> Array:
    """Scaled images `[B, H, W, C]` with a trigger in the space."""
    there = transforms.apply(net, nets.into, images)
    return transforms.apply(net, nets.back, stamped(there, free, weights))


def undone(net: unet.UNet, nets: Nets, images: Array, weights: Array) -> Array:
    """Mean squared error `[]` of images led into the space and back."""
    there = transforms.apply(net, nets.into, images)
    return shared.change(images, transforms.apply(net, nets.back, there), weights)


def structure_loss(scale: Scale, one: Array, other: Array) -> Array:
    """1 less the structural similarity of scaled images: `[B]`, of `[B, H, W, C]`.

    Pixels are cut to [0, 1]; windows lie within the image, and are smaller where it is.
    """
    x, y = (jnp.clip(scale.pixels(images), 0.0, 1.0) for images in (one, other))
    shortest = min(x.shape[1:3])
    width = min(WINDOW, shortest - 1 + shortest % 2)
    place = jnp.arange(width) - (width - 1) / 2
    weights = jnp.exp(-jnp.square(place) / (2 * DEVIATION**2))
    weights /= jnp.sum(weights)

    def blurred(images: Array) -> Array:
        for axis in (1, 2):
            last = images.shape[axis] - width + 1
            shifted = (
                weights[k] * jax.lax.slice_in_dim(images, k, k + last, axis=axis)
                for k in range(width)
            )
            images = functools.reduce(jnp.add, shifted)
        return images

    moments = blurred(jnp.stack([x, y, x * x, y * y, x * y], axis=-1))
    mean_x, mean_y, square_x, square_y, product = jnp.moveaxis(moments, -1, 0)
    var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    structure = (2 * covariance + C2) / (var_x + var_y + C2)
    light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return 1 - jnp.mean(structure * light, axis=(1, 2, 3))


def pretrain(task: Task, nets: Nets, batches: Others, config: Any) -> Trained:
    """Trains the U-Nets to undo one another."""
    optimizer = inversion.adam(config.learning_rate)

    def step(trained: Trained, batch: Others) -> tuple[Trained, None]:
        def loss_of(nets: Nets) -> tuple[Array, None]:
            return undone(task.net, nets, batch.images, batch.weights), None

        return transforms.descend(loss_of, trained, optimizer)

    def once(trained: Trained, _: None) -> tuple[Trained, None]:
        return jax.lax.scan(step, trained, batches)

    first = transforms.begin(nets, optimizer)
    return jax.lax.scan(once, first, length=config.pretrain_epochs)[0]


def begin(
    nets: Trained, shape: tuple[int, ...], features: tuple[int, ...], config: Any
) -> State:
    """A search after the pretraining, of images `[H, W, C]` and features `[h, w, c]`."""
    optimizer = inversion.adam(config.trigger_learning_rate)
    free = Patch(jnp.ones(shape), jnp.zeros(shape))
    return State(
        nets=nets,
        trigger=transforms.begin(free, optimizer),
        mask=transforms.begin(jnp.ones(features), optimizer),
        pressure=shared.no_pressure(),
        best=inversion.nothing((nets.params, free)),
        is_finite=jnp.array(True),
    )


def search_loss(
    task: Task,
    changed: Array,
    mask: Array,
    batch: Others,
    lent: Array,
    centre: Array,
    target: Array,
    pressure: Pressure,
    least_cosine: float,
    config: Any,
) -> tuple[Array, Seen]:
    """Loss `[]` that U-Nets and trigger share.

    Args:
      task: see `Task`.
      changed: `[B, H, W, C]` the batch's images with the trigger.
      mask: of the features, `[h, w, c]` in [0, 1].
      batch: scaled images `[B, H, W, C]` and their weights.
      lent: `[B, h, w, c]` features of clean images.
      centre: `[h, w, c]` mean features of the class.
      target: the class.
      pressure: of the last epoch.
      least_cosine: resemblance below which it counts nothing.
      config: see `unicorn.Settings`.
    """
    features, _ = task.network.features(task.variables, changed, "stored")
    mixed = mask[None] * features + (1 - mask)[None] * lent
    logits, _ = task.network.head(task.variables, mixed, "stored")
    losses = structure_loss(task.scale, changed, batch.images)
    seen = {
        "cosine": shared.cosine(centre, shared.mean_of(features, batch.weights)),
        "success": shared.success(logits, target, batch.weights),
        "structure": shared.mean_of(losses, batch.weights),
        "spread": shared.spread(features, mask, batch.weights),
    }
    entropy = shared.cross_entropy(logits, target, batch.weights)
    loss = jnp.where(seen["cosine"] < least_cosine, 0.0, seen["cosine"])
    loss += shared.cost_of_bounds(
        seen, "structure", config.structure_bound, entropy, pressure, config
    )
    return loss, {**seen, "loss": loss}


def trigger_penalty(free: Patch, config: Any) -> Array:
    """What a mask beyond its bound costs: `[]`."""
    mask = inversion.boxed(free.mask)
    norm = jnp.sum(mask)
    beyond = norm > most_of(mask.size, config.mask_size)
    return jnp.where(beyond, 10 * norm, 0.0)


def epoch(
    task: Task,
    state: State,
    batches: Others,
    orders: Orders,
    centre: Array,
    target: Array,
    index: Array,
    config: Any,
) -> tuple[State, Seen]:
    """One pass over the batches.

    Of each batch a step of the U-Nets, then `trigger_steps` of the trigger, then as many
    of the feature mask.

    Args:
      orders: see `Orders`.
      index: `[]` of the epoch; for the rest see `search_loss`.
    """
    net_optimizer = inversion.adam(config.learning_rate)
    optimizer = inversion.adam(config.trigger_learning_rate)
    head = task.network.head

    def apply(params: Array, images: Array) -> Array:
        return transforms.apply(task.net, params, images)

    def loss_of(changed, mask, batch, lent, least):
        return search_loss(
            task, changed, inversion.boxed(mask), batch, lent, centre, target,
            state.pressure, least, config,
        )  # fmt: skip

    def batch_step(
        carry: tuple[Trained, Trained, Trained], job: tuple[Others, Orders]
    ) -> tuple[tuple[Trained, Trained, Trained], Seen]:
        nets, trigger, mask = carry
        batch, order = job
        clean, _ = task.network.features(task.variables, batch.images, "stored")

        def net_loss(params: Nets) -> tuple[Array, Seen]:
            there = apply(params.into, batch.images)
            changed = stamped(there, trigger.params, batch.weights)
            # Normalised image by image, the two lots may pass at once.
            both = apply(params.back, jnp.concatenate([changed, there]))
            changed, same = jnp.split(both, 2)
            loss, seen = loss_of(changed, mask.params, batch, clean[order.nets], 0.0)
            mapping = shared.change(batch.images, same, batch.weights)
            return loss + 200 * mapping, seen

        nets, first = transforms.descend(net_loss, nets, net_optimizer)
        there = apply(nets.params.into, batch.images)

        def back(free: Patch) -> Array:
            return apply(nets.params.back, stamped(there, free, batch.weights))

        def trigger_step(trigger: Trained, order: Array) -> tuple[Trained, Seen]:
            def trigger_loss(free: Patch) -> tuple[Array, Seen]:
                loss, seen = loss_of(
                    back(free), mask.params, batch, clean[order], COSINE_OF_TRIGGER
                )
                return loss + trigger_penalty(free, config), seen

            return transforms.descend(trigger_loss, trigger, optimizer)

        trigger, seen = jax.lax.scan(trigger_step, trigger, order.trigger)
        features, _ = task.network.features(
            task.variables, back(trigger.params), "stored"
        )

        def mask_step(mask: Trained, order: Array) -> tuple[Trained, Array]:
            def mask_loss(free: Array) -> tuple[Array, Array]:
                held = inversion.boxed(free)
                mixed = held[None] * features + (1 - held)[None] * clean[order]
                logits, _ = head(task.variables, mixed, "stored")
                norm = jnp.sum(held)
                bound = jnp.floor(most_of(held.size, config.feature_mask_size))
                loss = shared.cross_entropy(logits, target, batch.weights)
                return loss + jnp.where(norm > bound, norm, 0.0), norm

            return transforms.descend(mask_loss, mask, optimizer)

        mask, norms = jax.lax.scan(mask_step, mask, order.mask)
        told = {name: values[-1] for name, values in seen.items()}
        # As released: successes of all steps are averaged, the rest are the last step's.
        total = first["success"] + jnp.sum(seen["success"])
        told["success"] = total / (1 + config.trigger_steps)
        return (nets, trigger, mask), {**told, "feature_mask": norms[-1]}

    (nets, trigger, mask), seen = jax.lax.scan(
        batch_step, (state.nets, state.trigger, state.mask), (batches, orders)
    )
    seen = {name: jnp.mean(values) for name, values in seen.items()}
    held = inversion.boxed(trigger.params.mask)
    seen["mask"] = jnp.sum(held)
    over_mask = shared.excess(seen["mask"], most_of(held.size, config.mask_size))
    over = shared.excess(seen["structure"], config.structure_bound)
    seen["score"] = seen["success"] - over - over_mask
    pressure = Pressure(
        image=over,
        success=jnp.maximum(config.success - seen["success"], 0.0) / config.success,
        spread=shared.excess(seen["spread"], config.spread_bound),
    )
    best = inversion.better(
        state.best, -seen["score"], (nets.params, trigger.params), index
    )
    finite = jnp.isfinite(seen["loss"]) & jnp.isfinite(seen["score"])
    after = State(nets, trigger, mask, pressure, best, state.is_finite & finite)
    return after, seen
