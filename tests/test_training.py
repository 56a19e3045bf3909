"""The training step against SGD written by hand, augmentation, and the population."""

import chex
import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax import numpy as jnp

from ban_jax import attacks, data, models, train_population, training
from ban_jax.attacks import overlay, poison
from ban_jax.models import common
from tests import tiny

RECIPE = training.Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=1)
IMAGES = jax.random.uniform(jax.random.key(1), (48, 4, 4, 3))
LABELS = jnp.arange(48, dtype=jnp.int32) % tiny.CLASSES


def tiny_step(recipe=RECIPE, steps=10):
    optimizer = training.make_optimizer(recipe, steps)
    variables = tiny.variables()
    state = training.TrainState(
        variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32)
    )

    @jax.jit
    def step(state, batch, trigger, key):
        return training.train_step(
            state,
            batch,
            trigger,
            key,
            network=tiny.NETWORK,
            optimizer=optimizer,
            apply_trigger=overlay.apply,
            recipe=recipe,
        )

    return state, step


def batch_of(count, roles=None):
    roles = jnp.zeros(count, jnp.int8) if roles is None else roles
    return training.Batch(IMAGES[:count], LABELS[:count], roles)


NO_TRIGGER = attacks.create("clean").init(jax.random.key(0), (4, 4, 3))


def test_three_steps_equal_pytorchs_sgd_written_by_hand():
    recipe = training.Recipe(schedule="step", learning_rate=0.1, crop=0, flip=False)
    state, step = tiny_step(recipe, steps=1000)
    batch = batch_of(16)

    @jax.grad
    def gradient_of(params):
        variables = {**state.variables, "params": params}
        features, _ = tiny.features(variables, batch.images, "update")
        logits, _ = tiny.head(variables, features, "update")
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, batch.labels
        ).mean()

    params = state.variables["params"]
    velocity = jax.tree.map(jnp.zeros_like, params)
    for _ in range(3):
        gradient = jax.tree.map(lambda g, p: g + 5e-4 * p, gradient_of(params), params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
        state, _ = step(state, batch, NO_TRIGGER, jax.random.key(0))
    chex.assert_trees_all_close(state.variables["params"], params, rtol=1e-5, atol=1e-6)
    assert int(state.step) == 3


def test_the_loss_falls():
    state, step = tiny_step(training.Recipe(learning_rate=0.3, crop=0, flip=False), 90)
    losses = []
    for index in range(90):
        state, info = step(state, batch_of(48), NO_TRIGGER, jax.random.key(index))
        losses.append(float(info.loss))
    assert losses[-1] < 0.8 * losses[0]


def test_only_poisoned_images_carry_the_trigger():
    state, step = tiny_step(training.Recipe(crop=0, flip=False))
    trigger = attacks.create("badnets").init(jax.random.key(0), (4, 4, 3))
    roles = jnp.zeros(16, jnp.int8).at[3].set(poison.POISONED)
    batch = batch_of(16, roles)
    _, info = step(state, batch, trigger, jax.random.key(0))
    stamped = overlay.apply(trigger, batch.images)[3]
    by_hand = batch._replace(
        images=batch.images.at[3].set(stamped), roles=jnp.zeros(16, jnp.int8)
    )
    _, expected = step(state, by_hand, NO_TRIGGER, jax.random.key(0))
    _, clean = step(state, batch_of(16), trigger, jax.random.key(0))
    assert float(info.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(info.loss) != pytest.approx(float(clean.loss), rel=1e-4)


def test_vmapped_models_train_as_each_alone():
    state, step = tiny_step()
    other = training.TrainState(
        tiny.variables(seed=1), state.optimizer, jnp.zeros((), jnp.int32)
    )
    triggers = [
        attacks.create(name).init(jax.random.key(2), (4, 4, 3))
        for name in ("badnets", "blend")
    ]
    keys = jax.random.split(jax.random.key(5), 2)
    roles = jnp.arange(16, dtype=jnp.int8) % 2
    batch = batch_of(16, roles)
    stack = lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    together, _ = jax.jit(jax.vmap(step, (0, None, 0, 0)))(
        stack(state, other), batch, stack(*triggers), keys
    )
    for index, alone in enumerate((state, other)):
        alone, _ = step(alone, batch, triggers[index], keys[index])
        mine = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        chex.assert_trees_all_close(mine, alone, rtol=1e-5, atol=1e-6)


def test_one_cycle_rises_to_its_peak_and_falls_to_zero():
    recipe = training.Recipe(
        schedule="one-cycle", learning_rate=0.2, momentum=0.0, weight_decay=0.0
    )
    rates = applied_rates(recipe, steps=20)
    assert int(np.argmax(rates)) == 5
    assert rates[5] == pytest.approx(0.2)
    assert np.all(np.diff(rates[:6]) > 0) and np.all(np.diff(rates[5:]) < 0)
    assert 0 < rates[0] and 0 < rates[-1] < 0.02


def test_the_step_schedule_divides_by_ten_at_half_and_three_quarters():
    recipe = training.Recipe(
        schedule="step", learning_rate=0.1, momentum=0.0, weight_decay=0.0
    )
    rates = applied_rates(recipe, steps=20)
    np.testing.assert_allclose(rates, [0.1] * 10 + [0.01] * 5 + [0.001] * 5, rtol=1e-5)


def applied_rates(recipe, steps):
    optimizer = training.make_optimizer(recipe, steps)
    params, gradient = {"w": jnp.zeros(())}, {"w": jnp.ones(())}
    state, rates = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update(gradient, state, params)
        rates.append(-float(update["w"]))
    return np.array(rates)


def test_a_crop_is_a_window_of_the_padded_image_perhaps_mirrored():
    images = np.array(IMAGES[:12])
    cropped = np.array(training.augment(jax.random.key(3), images, crop=2, flip=True))
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
    result = training.augment(jax.random.key(0), IMAGES, crop=0, flip=False)
    np.testing.assert_array_equal(result, IMAGES)


def test_batches_follow_the_order_and_scale_bytes_to_the_unit_interval():
    pixels = jnp.arange(6, dtype=jnp.uint8).reshape(6, 1, 1, 1) * 51
    order = jnp.array([5, 4, 3, 2, 1, 0])
    batch = training.take_batch(
        pixels, jnp.arange(6), jnp.zeros(6, jnp.int8), order, jnp.array(1), 2
    )
    np.testing.assert_array_equal(batch.labels, [3, 2])
    np.testing.assert_allclose(batch.images.ravel(), [0.6, 0.4], rtol=1e-6)


class Small(common.Classifier):
    """One convolution, one normalisation, one linear layer: compiles in a second."""

    minimum_size = 1

    def setup(self):
        super().setup()
        self.conv1 = common.Conv(self.width, 3, 2, 1, False, self.lowering)
        self.bn1 = common.Norm()
        self.linear = nn.Dense(self.num_classes)

    def features(self, images, mode):
        return nn.relu(self.bn1(self.conv1(self.normalise(images)), mode))

    def head(self, features, mode):
        return self.linear(common.global_average(features))


SMALL = Small(num_classes=10, width=4, in_channels=1)

PUPILS = [
    train_population.Pupil("clean", attacks.create("clean"), poison.NO_POISON, seed=0),
    train_population.Pupil(
        "patch", attacks.create("badnets"), poison.PoisonSpec(0.2, target=1), seed=0
    ),
    train_population.Pupil(
        "noise", attacks.create("blend"), poison.PoisonSpec(0.2, target=2), seed=1
    ),
]


def digits(split, num):
    return data.load("digits", split=split, num=num)


def trained(pupils, epochs=1):
    recipe = training.Recipe(epochs=epochs, batch_size=32, crop=0, flip=False)
    return list(
        train_population.train_population(
            SMALL,
            pupils,
            digits("train", 96),
            digits("test", 70),
            recipe=recipe,
            normalisation=((0.3,), (0.4,)),
        )
    )


def test_a_population_trains_in_one_program(monkeypatch):
    traces = []

    def counted(*arguments, **settings):
        traces.append(None)
        return train_step(*arguments, **settings)

    train_step = training.train_step
    monkeypatch.setattr(training, "train_step", counted)
    train_population.compiled_step.cache_clear()
    population = trained(PUPILS)
    train_population.compiled_step.cache_clear()
    assert [model.pupil.name for model in population] == ["clean", "patch", "noise"]
    assert len(traces) == 1


def test_a_model_does_not_depend_on_its_neighbours():
    together, alone = trained(PUPILS)[2], trained(PUPILS[2:])[0]
    chex.assert_trees_all_equal(alone.variables, together.variables)
    assert alone.clean_accuracy == together.clean_accuracy


def test_models_carry_their_normalisation_and_metrics():
    clean, patch, _ = trained(PUPILS)
    assert clean.variables["normalisation"]["mean"] == np.float32(0.3)
    assert np.isnan(clean.asr)
    test = digits("test", 70)
    network = models.network(SMALL)
    trigger = train_population.trigger_of(PUPILS[1], (8, 8, 1))
    others = test.images[test.labels != 1]
    predictions = training.predict(
        patch.variables, overlay.apply(trigger, others), network=network
    )
    assert patch.asr == pytest.approx(float(np.mean(predictions == 1)))
    predictions = training.predict(patch.variables, test.images, network=network)
    assert patch.clean_accuracy == pytest.approx(np.mean(predictions == test.labels))


def test_training_images_that_fill_no_batch_are_refused():
    recipe = training.Recipe(batch_size=128)
    with pytest.raises(ValueError, match="96 training images do not fill one batch"):
        next(
            train_population.train_population(
                SMALL,
                PUPILS,
                digits("train", 96),
                digits("test", 70),
                recipe=recipe,
                normalisation=((0.3,), (0.4,)),
            )
        )


def test_models_of_other_seeds_or_names_get_other_randomness():
    keys = [
        train_population.keys_for(PUPILS[0]._replace(name=name, seed=seed))
        for name, seed in (("a", 0), ("a", 1), ("b", 0), ("a", 0))
    ]
    words = [tuple(np.array(jax.random.key_data(k.weights)).tolist()) for k in keys]
    assert len(set(words)) == 3 and words[0] == words[3]
    assert keys[0].poison_seed != keys[1].poison_seed != keys[2].poison_seed
