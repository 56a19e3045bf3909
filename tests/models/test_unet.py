"""The U-Net of the inversions: its size, its odd shapes, its transposed convolution."""

import re

import chex
import jax
import numpy as np
import pytest
from jax import export
from jax import numpy as jnp

from ban_jax.models import unet


def parameters(net, size):
    images = jax.ShapeDtypeStruct((1, size, size, net.channels), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)


def test_it_has_the_parameters_that_the_released_code_uses():
    leaves = jax.tree.leaves(parameters(unet.UNet(), 32))
    assert sum(leaf.size for leaf in leaves) == 10_987_011


@pytest.mark.parametrize(("size", "levels"), [(2, 0), (4, 1), (16, 3), (28, 4)])
def test_at_least_two_pixels_are_left_to_normalise(size, levels):
    assert unet.levels_of((size, 64)) == levels
    assert unet.levels_of((64, 64), most=2) == 2


@pytest.mark.parametrize("size", [(7, 8), (5, 5)])
def test_images_of_any_size_come_back_in_that_size(size):
    net = unet.UNet(channels=2, width=2, levels=unet.levels_of(size))
    images = jax.random.normal(jax.random.key(1), (3, *size, 2))
    variables = net.init(jax.random.key(0), images)
    found = net.apply(variables, images)
    assert found.shape == images.shape
    alone = net.apply(variables, images[:1])
    np.testing.assert_allclose(found[:1], alone, atol=1e-5)


ONE = unet.UNet(channels=2, width=2, levels=1)
"""Every kind of layer is there."""


@jax.jit
def slopes(params, images):
    """Gradient of a loss by the parameters."""

    def loss(params):
        return jnp.sum(jnp.sin(ONE.apply({"params": params}, images)))

    return jax.grad(loss)(params)


def test_stacked_networks_get_what_each_gets_alone():
    images = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    made = jax.jit(lambda key: ONE.init(key, images)["params"])
    both = [made(jax.random.key(seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    together = jax.jit(jax.vmap(slopes, (0, None)))(stacked, images)
    for index, params in enumerate(both):
        among = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        chex.assert_trees_all_close(among, slopes(params, images), rtol=1e-4, atol=1e-4)


def test_it_lowers_for_tpus_and_stays_narrow_where_64_bits_are_on():
    images = jax.ShapeDtypeStruct((3, 4, 4, 2), jnp.float32)
    params = jax.eval_shape(ONE.init, jax.random.key(0), images)["params"]
    assert export.export(slopes, platforms=["tpu"])(params, images).mlir_module()
    with jax.enable_x64(True):
        program = str(jax.make_jaxpr(slopes)(params, images))
    assert "f32[3," in program and not re.search(r"f64\[\d", program)


@pytest.mark.parametrize("lowering", ["native", "im2col"])
@pytest.mark.parametrize("size", [7, 8])
def test_the_doubling_is_a_transposed_convolution(size, lowering):
    layer = unet.Doubled(lowering=lowering)
    x = jax.random.normal(jax.random.key(1), (2, -(-size // 2), 4, 3))
    variables = layer.init(jax.random.key(0), x, (size, 8))

    def plain(variables, x):
        return jax.lax.conv_general_dilated(
            x,
            variables["params"]["kernel"],
            window_strides=(1, 1),
            padding=[(1, 1 + (size % 2 == 0)), (1, 2)],
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ) + variables["params"]["bias"].reshape(1, 1, 1, -1)

    def ours(variables, x):
        return layer.apply(variables, x, (size, 8))

    np.testing.assert_allclose(ours(variables, x), plain(variables, x), atol=1e-5)

    def gradients(function):
        loss = lambda *at: jnp.sum(jnp.sin(function(*at)))  # noqa: E731
        return jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(variables, x))

    for found, expected in zip(gradients(ours), gradients(plain), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_maximum_at_an_odd_border_is_of_the_pixels_there():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1) - 20
    np.testing.assert_array_equal(unet.halved(x)[0, ..., 0], [[-16, -15], [-13, -12]])
