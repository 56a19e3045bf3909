"""The promises of `optimize_mask`, one test each."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import mask
from tests import tiny

FEATURES = tiny.features(tiny.variables(), tiny.probe().images[0], "batch")[0]
LABELS = tiny.probe().labels[0]


def head(variables, features):
    return tiny.head(variables, features, "batch")[0]


@functools.partial(jax.jit, static_argnames="steps")
def compiled(variables, features, **arguments):
    return mask.optimize_mask(head, variables, features, LABELS, **arguments)


def optimise(variables=None, features=FEATURES, **changes):
    arguments = {
        "key": jax.random.key(0),
        "l1_weight": 0.5,
        "learning_rate": 0.05,
        "steps": 20,
    } | changes
    variables = variables or tiny.variables()
    return compiled(variables, features, **arguments)


@pytest.mark.parametrize("learning_rate", [0.05, 10.0])
def test_every_entry_lies_between_zero_and_one(learning_rate):
    found, _ = optimise(learning_rate=learning_rate)
    assert found.shape == FEATURES.shape[1:]
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_zero_steps_return_the_start_and_the_same_key_the_same_mask():
    start, info = optimise(steps=0)
    np.testing.assert_array_equal(
        start, jax.random.uniform(jax.random.key(0), FEATURES.shape[1:])
    )
    assert info.loss_kept.shape == (0,)
    chex.assert_trees_all_equal(optimise()[0], optimise()[0])


def test_the_objective_falls():
    _, info = optimise(steps=60, l1_weight=0.0)
    gap = np.asarray(info.loss_kept - info.loss_dropped)
    assert gap[-1] < gap[0] - 0.1


def test_a_heavier_weight_gives_a_smaller_mask():
    light = optimise(steps=60, l1_weight=0.0)[1].mean
    heavy = optimise(steps=60, l1_weight=10.0)[1].mean
    assert float(heavy) < float(light) - 0.1


def test_one_step_is_adams():
    found, _ = optimise(steps=1, learning_rate=0.01)
    start = jax.random.uniform(jax.random.key(0), FEATURES.shape[1:])
    moved = np.abs(np.asarray(found - start))
    inside = (np.asarray(found) > 0) & (np.asarray(found) < 1)
    # Adam's first step has length learning_rate wherever the gradient is not zero.
    np.testing.assert_allclose(moved[inside], 0.01, rtol=2e-2)


def test_the_first_step_goes_down_the_objective():
    variables = tiny.variables()
    start = jax.random.uniform(jax.random.key(0), FEATURES.shape[1:])

    def entropy(factor):
        log_p = jax.nn.log_softmax(head(variables, FEATURES * factor[None]))
        return -jnp.mean(log_p[jnp.arange(len(LABELS)), LABELS])

    slope = jax.grad(lambda mask: entropy(mask) - entropy(1 - mask))(start)
    # As much as moves half of the entries: the mean's slope is one over their number.
    weight = -float(jnp.median(slope)) * slope.size
    down = -jnp.sign(slope + weight / slope.size)
    found, _ = optimise(variables, steps=1, learning_rate=0.01, l1_weight=weight)
    inside = (found > 0) & (found < 1) & (jnp.abs(slope + weight / slope.size) > 1e-6)
    assert 0.3 < float(jnp.mean(down[inside] > 0)) < 0.7
    np.testing.assert_array_equal(jnp.sign(found - start)[inside], down[inside])


def test_a_nan_feature_is_a_flag_and_not_an_exception():
    _, info = optimise(features=FEATURES.at[0, 0, 0, 0].set(jnp.nan))
    assert not bool(info.is_finite)


def test_vmap_over_models_equals_a_loop():
    population = [tiny.variables(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *population)
    together = jax.vmap(lambda variables: optimise(variables)[0])(stacked)
    for index, variables in enumerate(population):
        np.testing.assert_allclose(together[index], optimise(variables)[0], atol=1e-5)
