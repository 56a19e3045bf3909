"""The promises of `perturb_params`, one test each."""

import functools
import operator

import chex
import jax
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax import numpy as jnp

from ban_jax import perturb
from tests import tiny

IMAGES, LABELS = tiny.probe().images[0], tiny.probe().labels[0]


@functools.partial(jax.jit, static_argnames=("steps", "towards", "select"))
def compiled(variables, labels, **arguments):
    return perturb.perturb_params(tiny.apply, variables, IMAGES, labels, **arguments)


def search(variables, labels=LABELS, **changes):
    arguments = {"key": jax.random.key(1), "epsilon": 0.3, "steps": 4} | changes
    return compiled(variables, labels, **arguments)


def factors(before, after):
    """Path -> after / before - 1 of every parameter that changed."""
    before = traverse_util.flatten_dict(before["params"], sep="/")
    after = traverse_util.flatten_dict(after["params"], sep="/")
    return {
        path: np.asarray(after[path] / before[path] - 1)
        for path in before
        if not np.array_equal(before[path], after[path])
    }


@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("step_size", [None, 5.0])
def test_no_factor_leaves_the_ball(start, step_size):
    variables = tiny.variables()
    noisy, info = search(variables, start=start, step_size=step_size)
    for factor in factors(variables, noisy).values():
        assert np.max(np.abs(factor)) <= 0.3 + 1e-5
    assert info.max_abs <= np.float32(0.3)


def test_epsilon_zero_returns_the_parameters_bit_for_bit():
    variables = tiny.variables()
    noisy, _ = search(variables, epsilon=0.0)
    chex.assert_trees_all_equal(noisy, variables)


def test_only_normalisation_layers_are_perturbed():
    variables = tiny.variables()
    noisy, _ = search(variables)
    assert set(factors(variables, noisy)) == {"bn/scale", "bn/bias"}
    chex.assert_trees_all_equal(noisy["batch_stats"], variables["batch_stats"])


def test_without_normalisation_every_output_channel_of_every_layer_gets_one_factor():
    variables = tiny.variables(normalised=False)
    noisy, _ = search(variables, steps=1, step_size=0.01)
    changed = factors(variables, noisy)
    assert {"stem/kernel", "linear/kernel"} <= set(changed)
    for factor in (changed["stem/kernel"], changed["linear/kernel"]):
        np.testing.assert_allclose(
            factor, np.broadcast_to(factor[:1], factor.shape), atol=1e-5
        )
        assert len(np.unique(np.round(factor[0], 5))) > 1


def test_a_selection_of_ones_own_is_respected_and_an_empty_one_is_an_error():
    variables = tiny.variables()
    noisy, _ = search(variables, select=lambda path, leaf: path == "bn/bias")
    assert set(factors(variables, noisy)) == {"bn/bias"}
    with pytest.raises(ValueError, match="no parameter to perturb.*bn/scale"):
        search(variables, select=lambda path, leaf: False)


def test_inputs_are_unchanged_and_the_same_key_gives_the_same_noise():
    variables = tiny.variables()
    copy = jax.tree.map(np.array, variables)
    first, _ = search(variables)
    second, _ = search(variables)
    chex.assert_trees_all_equal(variables, copy)
    chex.assert_trees_all_equal(first, second)
    first, other = (
        search(variables, key=jax.random.key(seed), steps=1, step_size=0.01)[0]
        for seed in (1, 2)
    )
    assert not np.array_equal(
        first["params"]["bn"]["scale"], other["params"]["bn"]["scale"]
    )


def test_each_parameter_is_drawn_from_a_key_of_its_own():
    params = {
        "wide": jnp.ones((2, 5)),
        "short": jnp.ones(3),
        "half": jnp.ones(4, jnp.bfloat16),
        "one": jnp.ones(()),
    }
    key = jax.random.key(7)
    noise = perturb.init_noise(key, {"params": params}, 0.5)
    assert set(noise) == set(params)
    for path, own in zip(sorted(params), jax.random.split(key, 4), strict=True):
        leaf = params[path]
        alone = jax.random.uniform(own, leaf.shape[-1:], leaf.dtype, -1.0, 1.0)
        chex.assert_trees_all_equal_dtypes(noise[path], alone)
        np.testing.assert_array_equal(noise[path], 0.5 * alone)


def test_dtypes_are_kept():
    variables = tiny.variables(dtype=jnp.bfloat16)
    noisy, _ = search(variables)
    chex.assert_trees_all_equal_dtypes(noisy, variables)


def loss_of(variables, labels):
    logits = tiny.apply(variables, IMAGES)
    return float(
        jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    )


def test_untargeted_noise_raises_the_loss_and_targeted_noise_lowers_it():
    variables = tiny.variables()
    target = jnp.full_like(LABELS, 2)
    worse, _ = search(variables, start=0.0)
    better, _ = search(variables, target, start=0.0, towards=True)
    assert loss_of(worse, LABELS) > loss_of(variables, LABELS)
    assert loss_of(better, target) < loss_of(variables, target)


def test_one_step_moves_every_factor_by_the_step_along_the_gradients_sign():
    variables = tiny.variables()
    noisy, _ = search(variables, steps=1, step_size=0.1, start=0.0)

    def loss(scale_factor):
        params = variables["params"]
        scale = params["bn"]["scale"] * (1 + scale_factor)
        changed = {**params, "bn": {**params["bn"], "scale": scale}}
        logits = tiny.apply({**variables, "params": changed}, IMAGES)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, LABELS))

    gradient = jax.grad(loss)(jnp.zeros(tiny.CHANNELS))
    expected = variables["params"]["bn"]["scale"] * (1 + 0.1 * jnp.sign(gradient))
    np.testing.assert_allclose(noisy["params"]["bn"]["scale"], expected, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_of_no_given_length_cross_the_ball_and_shorter_ones_do_not(steps):
    def end(step_size):
        start = jnp.full(3, -0.3)
        told = {"epsilon": 0.3, "steps": steps, "step_size": step_size}
        return perturb.climb(jnp.sum, start, **told)[0]

    np.testing.assert_allclose(end(None), 0.3, rtol=1e-6)
    np.testing.assert_allclose(end(0.3 / steps), 0.0, atol=1e-6)


def test_an_image_of_weight_zero_does_not_steer_the_search():
    variables = tiny.variables()
    weights = jnp.array([1.0] * 7 + [0.0])
    relabelled = LABELS.at[7].set((LABELS[7] + 1) % tiny.CLASSES)
    results = [
        search(variables, labels, weights=weights)[0] for labels in (LABELS, relabelled)
    ]
    chex.assert_trees_all_equal(*results)


def test_constant_logits_leave_the_noise_as_drawn():
    variables = tiny.variables()
    variables["params"]["linear"]["kernel"] *= 0
    noisy, info = search(variables, start=0.0)
    chex.assert_trees_all_equal(noisy, variables)
    assert bool(info.is_finite)


def test_a_nan_weight_is_a_flag_and_not_an_exception():
    variables = tiny.variables()
    variables["params"]["bn"]["scale"] = jnp.full((tiny.CHANNELS,), jnp.nan)
    _, info = search(variables)
    assert not bool(info.is_finite)


def test_vmap_over_models_equals_a_loop_and_a_new_epsilon_compiles_nothing():
    population = [tiny.variables(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *population)
    keys = jax.random.split(jax.random.key(3), 3)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def batched(stacked, keys, epsilon):
        return jax.vmap(lambda v, k: search(v, key=k, epsilon=epsilon)[0])(
            stacked, keys
        )

    together = batched(stacked, keys, 0.3)
    batched(stacked, keys, 0.1)
    for index, variables in enumerate(population):
        alone, _ = search(variables, key=keys[index])
        among = jax.tree.map(operator.itemgetter(index), together)
        chex.assert_trees_all_close(among, alone, atol=1e-5)


def test_interpolation_is_the_same_noise_scaled():
    variables = tiny.variables()
    noisy, _ = search(variables)
    half = perturb.interpolate(variables, noisy, 0.5)
    full, scaled = factors(variables, noisy), factors(variables, half)
    for path, factor in full.items():
        np.testing.assert_allclose(scaled[path], factor / 2, atol=1e-5)
