"""Training against the detector's own noise: the penalty, its gradient, the step."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import attacks
from ban_jax.attacks.types import Batch
from ban_jax.detectors import directed, evidence
from ban_jax.training import one_model
from ban_jax.types import Probe
from benchmarks import _noise_penalty
from tests import tiny

TARGET = 2
RECIPE = one_model.Recipe(learning_rate=0.05, batch_size=24, crop=0, flip=False)
OPTIMIZER = one_model.sgd(0.05, 0.9, 5e-4)
ATTACK = attacks.create("badnets")
KERNEL = ATTACK.kernel(attacks.Schedule(3, 2, 24, "native"), 0.1, tiny.CLASSES)
IMAGES, LABELS = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in tiny.probe())
BATCH = Batch(
    IMAGES,
    LABELS,
    jnp.zeros(len(LABELS), jnp.int8).at[:4].set(1),
    jnp.full(tiny.CLASSES, TARGET),
)


def begin():
    variables = tiny.variables()
    return one_model.TrainState(
        variables,
        (OPTIMIZER.init(variables["params"]), KERNEL.optimizer.init(())),
        ATTACK.init(jax.random.key(0), (4, 4, 3)),
        jnp.int32(0),
    )


@functools.partial(jax.jit, static_argnums=1)
def after(strength, steps):
    """The model after some steps on one batch, and the penalty before each."""

    def body(state, index):
        return _noise_penalty.step(
            state, BATCH, jax.random.fold_in(jax.random.key(1), index), strength,
            jnp.int32(TARGET), network=tiny.NETWORK, optimizer=OPTIMIZER, kernel=KERNEL,
        )  # fmt: skip

    return jax.lax.scan(body, begin(), jnp.arange(steps))


def reached(params, target=TARGET):
    variables = {**tiny.variables(), "params": params}
    return _noise_penalty.penalty(
        tiny.NETWORK, variables, IMAGES, LABELS, jnp.int32(target), jax.random.key(0)
    )


def test_the_penalty_is_what_the_detector_counts_on_the_same_images():
    settings = directed.Settings()
    found = directed.noise(
        tiny.NETWORK,
        tiny.variables(),
        Probe(IMAGES[None], LABELS[None]),
        jnp.arange(tiny.CLASSES),
        key=jax.random.key(5),
        epsilon=settings.epsilon,
        steps=settings.steps,
    )
    params = tiny.variables()["params"]
    told = [float(reached(params, target)) for target in range(tiny.CLASSES)]
    np.testing.assert_allclose(told, found.share, rtol=1e-5)


def test_the_gradient_is_that_at_the_noisy_weights_with_the_noise_constant():
    variables = tiny.variables()
    settings = directed.Settings()
    noisy, _ = directed.noise_towards(
        tiny.NETWORK, variables, IMAGES, LABELS, TARGET, key=jax.random.key(0),
        epsilon=settings.epsilon, steps=settings.steps,
    )  # fmt: skip

    def share(params):
        logits = tiny.apply({**variables, "params": params}, IMAGES)
        return evidence.share_of_others(jax.nn.softmax(logits), LABELS)[0][TARGET]

    expected = jax.grad(share)(noisy["params"])
    found = jax.grad(reached)(variables["params"])
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
    elsewhere = jax.grad(share)(variables["params"])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(found, elsewhere, rtol=1e-2, atol=1e-4)


def test_without_the_penalty_a_step_is_that_of_ordinary_training():
    found, _ = after(0.0, 1)
    expected, _ = one_model.train_step(
        begin(), BATCH, jax.random.key(3), network=tiny.NETWORK, optimizer=OPTIMIZER,
        kernel=KERNEL, recipe=RECIPE,
    )  # fmt: skip
    chex.assert_trees_all_close(
        found.variables, expected.variables, rtol=1e-5, atol=1e-6
    )


def test_the_penalty_makes_noise_reach_less_of_the_target():
    _, plain = after(0.0, 40)
    _, punished = after(3.0, 40)
    assert punished[-1] < 0.7 * plain[-1]
