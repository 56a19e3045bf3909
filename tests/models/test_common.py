"""The blocks: normalisation and its three modes, pooling, PyTorch's initialisation."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.test_util import check_grads

from ban_jax.models import common


def norm(x, mode, *, mean=0.0, var=1.0, scale=1.0, bias=0.0):
    """Output and new statistics of one normalisation layer over `x [B, H, W, C]`."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    fill = functools.partial(jnp.full, (x.shape[-1],), dtype=dtype)
    variables = {
        "params": {"scale": fill(scale), "bias": fill(bias)},
        "batch_stats": {"mean": fill(mean), "var": fill(var)},
    }
    mutable = ["batch_stats"] if mode == "update" else []
    y, after = common.Norm().apply(variables, x, mode, mutable=mutable)
    return y, after.get("batch_stats", variables["batch_stats"])


# One channel with the values 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 = 14,
# biased variance 3.5, unbiased 14 / 3.
FOUR = jnp.asarray([1.0, 2.0, 3.0, 6.0]).reshape(2, 2, 1, 1)


def test_stored_statistics_are_used_as_they_are():
    y, stats = norm(FOUR, "stored", mean=2.0, var=4.0, scale=3.0, bias=0.5)
    np.testing.assert_allclose(y.ravel(), [-1.0, 0.5, 2.0, 6.5], rtol=1e-5)
    assert stats["mean"] == 2.0
    assert stats["var"] == 4.0


@pytest.mark.parametrize("mode", ["batch", "update"])
def test_batch_statistics_use_the_biased_variance(mode):
    y, _ = norm(FOUR, mode, mean=99.0, var=99.0, scale=3.0, bias=0.5)
    expected = (np.float32([1, 2, 3, 6]) - 3) / np.sqrt(3.5 + 1e-5) * 3 + 0.5
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)


def test_update_moves_a_tenth_of_the_way_to_the_unbiased_variance():
    _, stats = norm(FOUR, "update", mean=13.0, var=1.0)
    np.testing.assert_allclose(stats["mean"], [0.9 * 13 + 0.1 * 3], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.9 * 1 + 0.1 * 14 / 3], rtol=1e-6)


def test_an_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="'stored', 'batch', 'update'.*got 'train'"):
        norm(FOUR, "train")


def test_a_large_mean_does_not_eat_the_variance():
    deviations = np.random.default_rng(0).integers(-8, 9, (4, 8, 8, 2)) / 8
    x = jnp.asarray(deviations + 4096, jnp.float32)
    mean, var = common.batch_statistics(x)
    np.testing.assert_allclose(mean, 4096 + deviations.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, deviations.var((0, 1, 2)), rtol=1e-3)
    y, _ = norm(x, "batch")
    np.testing.assert_allclose(np.std(y, axis=(0, 1, 2)), [1, 1], rtol=1e-3)


@pytest.mark.parametrize("mode", ["stored", "batch"])
def test_gradients_of_first_and_second_order_match_finite_differences(mode):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (3, 2, 2, 2), jnp.float64) + 1

        def output(x, scale, bias):
            variables = {
                "params": {"scale": scale, "bias": bias},
                "batch_stats": {"mean": jnp.ones(2), "var": 2 * jnp.ones(2)},
            }
            return jnp.sin(common.Norm().apply(variables, x, mode))

        arguments = (x, jnp.asarray([0.5, 2.0]), jnp.asarray([0.1, -1.0]))
        check_grads(output, arguments, order=2, modes=["rev"], atol=1e-3, rtol=1e-3)


def test_bfloat16_is_normalised_by_statistics_in_float32():
    deviations = np.random.default_rng(0).normal(size=(32, 16, 16, 2))
    x = jnp.asarray(deviations + 1, jnp.bfloat16)
    same = np.asarray(x, np.float32)
    mean, var = common.batch_statistics(x)
    np.testing.assert_allclose(mean, same.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, same.var((0, 1, 2)), rtol=1e-5)
    y, stats = norm(x, "update")
    assert (y.dtype, stats["mean"].dtype) == (jnp.bfloat16, jnp.float32)
    expected = (same - mean[None, None, None]) / np.sqrt(var)[None, None, None]
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=2e-2)


@pytest.mark.parametrize("mode", ["stored", "batch"])
def test_every_cotangent_has_the_dtype_of_its_input(mode):
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 2), jnp.bfloat16)
    layer = common.Norm()
    variables = layer.init(jax.random.key(0), x, mode)

    def loss(variables, x):
        return jnp.sum(jnp.sin(layer.apply(variables, x, mode)))

    gradients = jax.grad(loss, argnums=(0, 1))(variables, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, (variables, x))


def test_statistics_given_are_statistics_used():
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    variables = {
        "params": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
        "batch_stats": {"mean": jnp.zeros(2), "var": jnp.ones(2)},
    }
    given = (jnp.asarray([1.0, 2.0]), jnp.asarray([4.0, 9.0]))
    y = common.Norm().apply(variables, x, "batch", given)
    expected = (x - given[0].reshape(1, 1, 1, 2)) / np.float32([2, 3]).reshape(
        1, 1, 1, 2
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_max_pooling_pads_with_minus_infinity_and_drops_the_rest():
    x = -jnp.arange(1.0, 26.0).reshape(1, 5, 5, 1)
    halved = common.max_pool(x, 2, 2)[0, :, :, 0]
    np.testing.assert_array_equal(halved, [[-1, -3], [-11, -13]])
    padded = common.max_pool(x, 3, 2, 1)[0, :, :, 0]
    expected = [[-1, -2, -4], [-6, -7, -9], [-16, -17, -19]]
    np.testing.assert_array_equal(padded, expected)


def test_max_pooling_sends_the_gradient_to_the_largest_pixel():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    gradient = jax.grad(lambda x: jnp.sum(common.max_pool(x, 2, 2) ** 2))(x)
    blocks = np.asarray(x[:, :4]).reshape(2, 2, 2, 2, 2, 3)
    largest = blocks == blocks.max((2, 4), keepdims=True)
    np.testing.assert_allclose(
        gradient[:, :4], (2 * blocks * largest).reshape(2, 4, 4, 3), rtol=1e-6
    )
    assert not np.any(gradient[:, 4])


def test_average_pooling_drops_an_incomplete_row():
    x = jnp.arange(15.0).reshape(1, 5, 3, 1)
    np.testing.assert_array_equal(common.average_pool(x, 2).ravel(), [2.0, 8.0])


@pytest.mark.parametrize(
    "layer, shape, fan_in",
    [
        (common.Conv(50, 3, use_bias=True), (1, 4, 4, 7), 63),
        (common.Conv(50, 1, 1, 0, use_bias=True), (1, 4, 4, 90), 90),
        (common.Linear(50), (1, 80), 80),
    ],
)
def test_kernels_and_biases_start_uniform_within_the_root_of_the_fan_in(
    layer, shape, fan_in
):
    params = layer.init(jax.random.key(0), jnp.zeros(shape))["params"]
    bound = fan_in**-0.5
    for values in params.values():
        assert np.abs(values).max() <= bound
        # The largest of 50 uniform draws is below 0.8 of the bound once in 70,000 times.
        assert np.abs(values).max() > 0.8 * bound
        assert abs(values.mean()) < 0.3 * bound
