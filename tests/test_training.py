"""The training step against SGD written by hand, schedules and augmentation."""

import dataclasses

import chex
import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from ban_jax import attacks, types
from ban_jax.attacks import poison
from ban_jax.attacks.types import Batch
from ban_jax.data import augmentation
from ban_jax.training import one_model
from tests import tiny

RECIPE = one_model.Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=1)
STILL = one_model.Recipe(crop=0, flip=False)
IMAGES = jax.random.uniform(jax.random.key(1), (48, 4, 4, 3))
LABELS = jnp.arange(48, dtype=jnp.int32) % tiny.CLASSES
SHAPE = (4, 4, 3)
TARGET = 2


def trigger_of(name, seed=0, **settings):
    return attacks.create(name, **settings).init(jax.random.key(seed), SHAPE)


def kernel_of(name):
    schedule = attacks.Schedule(3, 2, 16, "native")
    return attacks.create(name).kernel(schedule, 0.1, tiny.CLASSES)


def tiny_step(recipe=RECIPE, steps=10, trigger=None, seed=0):
    optimizer = one_model.make_optimizer(recipe, steps)
    kernel = kernel_of("clean")
    variables = tiny.variables(seed)
    trigger = trigger or trigger_of("clean")
    state = one_model.TrainState(
        variables,
        (optimizer.init(variables["params"]), kernel.optimizer.init(trigger.learned)),
        trigger,
        jnp.zeros((), jnp.int32),
    )

    @jax.jit
    def step(state, batch, key):
        return one_model.train_step(
            state,
            batch,
            key,
            network=tiny.NETWORK,
            optimizer=optimizer,
            kernel=kernel,
            recipe=recipe,
        )

    return state, step


def batch_of(count, roles=None):
    roles = jnp.zeros(count, jnp.int8) if roles is None else roles
    mapping = jnp.full(tiny.CLASSES, TARGET, jnp.int32)
    return Batch(IMAGES[:count], LABELS[:count], roles, mapping)


def cross_entropy_gradient(state, batch):
    """Of the tiny model's parameters on one batch, its statistics those of the batch."""

    @jax.grad
    def gradient_of(params):
        logits = tiny.apply({**state.variables, "params": params}, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, batch.labels
        ).mean()

    return gradient_of


def test_three_steps_equal_pytorchs_sgd_written_by_hand():
    recipe = one_model.Recipe(schedule="step", learning_rate=0.1, crop=0, flip=False)
    state, step = tiny_step(recipe, steps=1000)
    batch = batch_of(16)
    gradient_of = cross_entropy_gradient(state, batch)
    params = state.variables["params"]
    velocity = jax.tree.map(jnp.zeros_like, params)
    for _ in range(3):
        gradient = jax.tree.map(lambda g, p: g + 5e-4 * p, gradient_of(params), params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
        state, _ = step(state, batch, jax.random.key(0))
    chex.assert_trees_all_close(state.variables["params"], params, rtol=1e-5, atol=1e-6)
    assert int(state.step) == 3


def test_the_loss_falls():
    state, step = tiny_step(one_model.Recipe(learning_rate=0.3, crop=0, flip=False), 90)
    losses = []
    for index in range(90):
        state, info = step(state, batch_of(48), jax.random.key(index))
        losses.append(float(info.loss))
    assert losses[-1] < 0.8 * losses[0]


def test_only_poisoned_images_carry_the_trigger_and_the_targets_label():
    trigger = trigger_of("badnets")
    state, step = tiny_step(STILL, trigger=trigger)
    roles = jnp.zeros(16, jnp.int8).at[3].set(poison.POISONED)
    _, info = step(state, batch_of(16, roles), jax.random.key(0))
    clean = batch_of(16)
    stamped = kernel_of("badnets").trigger(trigger, clean.images)[3]
    assert LABELS[3] != TARGET
    by_hand = clean._replace(
        images=clean.images.at[3].set(stamped), labels=clean.labels.at[3].set(TARGET)
    )
    _, expected = step(state, by_hand, jax.random.key(0))
    _, without = step(state, clean, jax.random.key(0))
    assert float(info.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(info.loss) != pytest.approx(float(without.loss), rel=1e-4)


def test_accuracy_counts_images_classified_as_taught():
    state, step = tiny_step(STILL)
    batch = batch_of(16, jnp.full(16, poison.POISONED, jnp.int8))
    _, info = step(state, batch, jax.random.key(0))
    predicted = np.argmax(tiny.apply(state.variables, batch.images, "update"), axis=1)
    assert float(info.accuracy) == pytest.approx(np.mean(predicted == TARGET))
    assert float(info.accuracy) != pytest.approx(np.mean(predicted == batch.labels))


def shown_to_the_network(recipe, trigger, roles):
    """Runs one step outside jit with a network that keeps the images it is given."""
    seen = []

    def features(variables, images, mode):
        seen.append(np.array(images))
        return tiny.features(variables, images, mode)

    state, _ = tiny_step(recipe, trigger=trigger)
    one_model.train_step(
        state,
        batch_of(16, roles),
        jax.random.key(4),
        network=types.Network(features, tiny.head, tiny.classifier, tiny.CLASSES),
        optimizer=one_model.make_optimizer(recipe, 10),
        kernel=kernel_of("badnets"),
        recipe=recipe,
    )
    return seen[0]


@pytest.mark.parametrize("last", [True, False])
def test_a_patch_moves_with_its_image_unless_it_is_stamped_last(last):
    recipe = one_model.Recipe(crop=1, flip=True, stamp_last=last)
    roles = jnp.full(16, poison.POISONED, jnp.int8).at[0].set(poison.CLEAN)
    images = shown_to_the_network(recipe, trigger_of("badnets"), roles)
    motif = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)[..., None]
    in_corner = (images[:, 1:, 1:] == motif).all((1, 2, 3))
    assert not in_corner[0]
    if last:
        assert in_corner[1:].all()
    else:
        assert in_corner[1:].sum() < 8


def test_vmapped_models_with_triggers_of_two_kinds_train_as_each_alone():
    first, step = tiny_step(trigger=trigger_of("badnets"))
    second, _ = tiny_step(trigger=trigger_of("wanet", seed=2), seed=1)
    keys = jax.random.split(jax.random.key(5), 2)
    batch = batch_of(16, jnp.arange(16, dtype=jnp.int8) % 3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    together, _ = jax.jit(jax.vmap(step, (0, None, 0)))(stacked, batch, keys)
    for index, alone in enumerate((first, second)):
        alone, _ = step(alone, batch, keys[index])
        mine = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        chex.assert_trees_all_close(mine, alone, rtol=1e-5, atol=1e-6)


def test_a_second_step_compiles_nothing():
    state, step = tiny_step()
    for index in range(3):
        state, _ = step(state, batch_of(16), jax.random.key(index))
    assert step._cache_size() == 1


def test_one_cycle_rises_to_its_peak_and_falls_to_zero():
    recipe = one_model.Recipe(
        schedule="one-cycle", learning_rate=0.2, momentum=0.0, weight_decay=0.0
    )
    rates = applied_rates(recipe, steps=20)
    assert int(np.argmax(rates)) == 5
    assert rates[5] == pytest.approx(0.2)
    assert np.all(np.diff(rates[:6]) > 0) and np.all(np.diff(rates[5:]) < 0)
    assert 0 < rates[0] and 0 < rates[-1] < 0.02


def test_the_step_schedule_divides_by_ten_at_half_and_three_quarters():
    recipe = one_model.Recipe(
        schedule="step", learning_rate=0.1, momentum=0.0, weight_decay=0.0
    )
    rates = applied_rates(recipe, steps=20)
    np.testing.assert_allclose(rates, [0.1] * 10 + [0.01] * 5 + [0.001] * 5, rtol=1e-5)


def applied_rates(recipe, steps):
    optimizer = one_model.make_optimizer(recipe, steps)
    params, gradient = {"w": jnp.zeros(())}, {"w": jnp.ones(())}
    state, rates = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update(gradient, state, params)
        rates.append(-float(update["w"]))
    return np.array(rates)


def test_a_crop_is_a_window_of_the_padded_image_perhaps_mirrored():
    images = np.array(IMAGES[:12])
    cropped = np.array(
        augmentation.augment(jax.random.key(3), images, crop=2, flip=True)
    )
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for image, result in zip(padded, cropped, strict=True):
        windows = {
            (row, column, step): image[row : row + 4, column : column + 4][:, ::step]
            for row in range(5)
            for column in range(5)
            for step in (1, -1)
        }
        matches = [place for place, w in windows.items() if np.array_equal(w, result)]
        assert matches
        found.append(matches[0])
    assert len(set(found)) > 6
    assert {step for _, _, step in found} == {1, -1}


def test_augmentation_switched_off_changes_no_bit():
    result = augmentation.augment(jax.random.key(0), IMAGES, crop=0, flip=False)
    np.testing.assert_array_equal(result, IMAGES)


def test_batches_follow_the_order_and_scale_bytes_to_the_unit_interval():
    batch = second_batch(np.zeros(6, np.int8), np.zeros(2, np.int8))
    np.testing.assert_array_equal(batch.labels, [3, 2])
    np.testing.assert_allclose(batch.images.ravel(), [0.6, 0.4], rtol=1e-6)


def test_roles_follow_the_images_and_slots_the_places_in_a_batch():
    roles = np.array([0, 0, 0, 1, 2, 0], np.int8)
    batch = second_batch(roles, np.array([0, 0], np.int8))
    np.testing.assert_array_equal(batch.roles, [1, 0])
    batch = second_batch(np.zeros(6, np.int8), np.array([0, 2], np.int8))
    np.testing.assert_array_equal(batch.roles, [0, 2])


def second_batch(roles, slots):
    """Of six one-pixel images in reverse order, two at a time."""
    pixels = jnp.arange(6, dtype=jnp.uint8).reshape(6, 1, 1, 1) * 51
    plan = poison.Plan(jnp.array(roles), jnp.array(slots), jnp.arange(6))
    order = jnp.arange(6)[::-1]
    return one_model.take_batch(pixels, jnp.arange(6), plan, order, jnp.array(1), 2)


def test_three_steps_equal_adamw_written_by_hand():
    """Loshchilov and Hutter, algorithm 2: the decay is apart from the gradient."""
    recipe = one_model.Recipe(
        optimizer="adamw", schedule="step", learning_rate=0.01, weight_decay=0.5,
        crop=0, flip=False,
    )  # fmt: skip
    state, step = tiny_step(recipe, steps=1000)
    batch = batch_of(16)
    gradient_of = cross_entropy_gradient(state, batch)
    params = state.variables["params"]
    first = second = jax.tree.map(jnp.zeros_like, params)
    for count in (1, 2, 3):
        gradient = gradient_of(params)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
        params = jax.tree.map(
            lambda p, m, v, t=count: (
                p
                - 0.01 * m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
                - 0.01 * 0.5 * p
            ),
            params,
            first,
            second,
        )
        state, _ = step(state, batch, jax.random.key(0))
    chex.assert_trees_all_close(state.variables["params"], params, rtol=1e-4, atol=1e-5)


def fixed_logits(logits):
    """A state and a network that gives these logits whatever the images are."""
    state, _ = tiny_step(STILL)
    state = state._replace(variables={"params": {"logits": jnp.array(logits)}})
    network = types.Network(
        lambda variables, images, mode: (images, variables),
        lambda variables, images, mode: (variables["params"]["logits"], variables),
        lambda variables: variables["params"]["logits"],
        len(logits[0]),
    )
    return state, network


def loss_of(logits, labels, recipe):
    """Outside jit, so that equal operations give equal bits."""
    state, network = fixed_logits(logits)
    optimizer = one_model.make_optimizer(recipe, 10)
    state = state._replace(
        optimizer=(optimizer.init(state.variables["params"]), state.optimizer[1])
    )
    batch = batch_of(len(labels))._replace(labels=jnp.array(labels))
    _, info = one_model.train_step(
        state,
        batch,
        jax.random.key(0),
        network=network,
        optimizer=optimizer,
        kernel=kernel_of("clean"),
        recipe=recipe,
    )
    return info.loss


def test_a_smoothed_label_is_shared_out_among_all_classes():
    """Shares .6 .2 .1 .05 .05; labels .84 .04 .04 .04 .04 and .04 .04 .84 .04 .04.

    -.84 ln .6 - .04 (ln .2 + ln .1 + 2 ln .05) = .825233
    -.84 ln .1 - .04 (ln .6 + ln .2 + 2 ln .05) = 2.258641
    """
    recipe = one_model.Recipe(crop=0, flip=False, label_smoothing=0.2)
    logits = np.log([[0.6, 0.2, 0.1, 0.05, 0.05]] * 2).astype(np.float32)
    loss = loss_of(logits, [0, 2], recipe)
    assert float(loss) == pytest.approx((0.825233 + 2.258641) / 2, abs=2e-6)


def test_no_smoothing_changes_no_bit_of_the_loss():
    logits = np.random.RandomState(0).randn(16, tiny.CLASSES).astype(np.float32)
    labels = np.arange(16) % tiny.CLASSES
    loss = loss_of(logits, labels, dataclasses.replace(STILL, label_smoothing=0.0))
    plain = optax.softmax_cross_entropy_with_integer_labels(
        jnp.array(logits), jnp.array(labels)
    )
    assert float(loss) == float(jnp.mean(plain))
