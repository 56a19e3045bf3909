"""Every lowering is the same function, forwards and backwards, wherever it runs."""

import functools
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import numpy as jnp
from jax.test_util import check_grads

from ban_jax import convolution
from ban_jax.convolution import lowerings

CASES = [
    # size, stride, padding, height, width
    (1, 1, 0, 5, 4),
    (1, 2, 0, 5, 4),
    (1, 2, 1, 4, 4),
    (3, 1, 0, 5, 7),
    (3, 1, 1, 4, 4),
    (3, 1, 1, 1, 1),
    (3, 1, 1, 2, 2),
    (3, 2, 1, 2, 2),
    (3, 1, 2, 5, 4),
    (3, 2, 1, 8, 8),
    (3, 2, 1, 7, 4),
    (3, 2, 1, 1, 2),
    (3, 2, 0, 7, 6),
    (3, 3, 1, 8, 7),
    (5, 1, 2, 4, 5),
    (7, 2, 3, 9, 8),
    (5, 2, 2, 2, 1),
]
SOME_CASES = [(1, 2, 0, 5, 4), (3, 1, 1, 4, 4), (3, 2, 1, 7, 4)]


def reference(x, kernel, stride, padding):
    """Straight from the definition, in NumPy."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    h, w = ((length - size) // stride + 1 for length in x.shape[1:3])
    y = np.zeros((x.shape[0], h, w, kernel.shape[-1]), x.dtype)
    for i in range(h):
        for j in range(w):
            window = x[:, i * stride :, j * stride :][:, :size, :size]
            y[:, i, j] = np.tensordot(window, kernel, 3)
    return y


def arguments(size, height, width, dtype, models=(), batch=2):
    """Images `[B, H, W, 3]` and a kernel `[size, size, 3, 4]`, with leading `models`."""
    rng = np.random.default_rng(size + height)
    x = rng.normal(size=(*models, batch, height, width, 3)).astype(dtype)
    return x, rng.normal(size=(*models, size, size, 3, 4)).astype(dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def everything(x, kernel, stride, padding, lowering):
    """The convolution and its two gradients under a cotangent that differs everywhere."""

    def apply(x, kernel):
        return convolution.conv2d(
            x, kernel, stride=stride, padding=padding, lowering=lowering
        )

    y, backward = jax.vjp(apply, x, kernel)
    return y, *backward(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


@functools.partial(jax.jit, static_argnums=(2, 3))
def autodiff(x, kernel, stride, padding):
    """What `everything` must return, by XLA's own convolution and its autodiff."""
    y, backward = jax.vjp(
        lambda x, kernel: jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ),
        x,
        kernel,
    )
    return y, *backward(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize("size, stride, padding, height, width", CASES)
def test_values_and_gradients_are_the_definitions_in_float64(
    lowering, size, stride, padding, height, width
):
    with jax.enable_x64(True):
        x, kernel = arguments(size, height, width, np.float64)
        found = everything(x, kernel, stride, padding, lowering)
        np.testing.assert_allclose(
            found[0], reference(x, kernel, stride, padding), atol=1e-10
        )
        for one, other in zip(found, autodiff(x, kernel, stride, padding), strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize("size, stride, padding, height, width", SOME_CASES)
def test_float32_stays_float32_and_agrees(
    lowering, size, stride, padding, height, width
):
    x, kernel = arguments(size, height, width, np.float32)
    found = everything(x, kernel, stride, padding, lowering)
    for one, other in zip(found, autodiff(x, kernel, stride, padding), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize("size, stride, padding", [(1, 2, 0), (3, 1, 1), (3, 2, 1)])
@pytest.mark.parametrize("shared_images", [True, False])
def test_stacked_models_agree_with_single_ones(
    lowering, size, stride, padding, shared_images
):
    x, kernel = arguments(size, 6, 5, np.float32, models=(3,))
    if shared_images:
        x = np.broadcast_to(x[:1], x.shape)
    stacked = jax.vmap(
        lambda x, kernel: everything(x, kernel, stride, padding, lowering),
        in_axes=(None if shared_images else 0, 0),
    )(x[0] if shared_images else x, kernel)
    for index in range(3):
        single = autodiff(x[index], kernel[index], stride, padding)
        for one, other in zip(stacked, single, strict=True):
            np.testing.assert_allclose(one[index], other, atol=1e-4)


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize("size, stride, padding", [(1, 2, 0), (3, 1, 1), (3, 2, 1)])
def test_a_loop_computes_the_same(lowering, size, stride, padding):
    x, kernel = arguments(size, 6, 5, np.float32)

    @jax.jit
    def loop(x, kernel):
        def step(carry, factor):
            return carry, everything(x * factor, kernel, stride, padding, lowering)

        return jax.lax.scan(step, 0, jnp.asarray([1.0, 2.0]))[1]

    looped = loop(x, kernel)
    for index, factor in enumerate((1, 2)):
        outside = autodiff(x * factor, kernel, stride, padding)
        for one, other in zip(looped, outside, strict=True):
            np.testing.assert_allclose(one[index], other, atol=2e-4)


@functools.partial(jax.jit, static_argnums=(2, 3))
def all_lowerings(x, kernel, stride, padding):
    """`everything` by every lowering, in one program."""
    return {
        lowering: everything(x, kernel, stride, padding, lowering)
        for lowering in convolution.LOWERINGS
    }


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    size=st.sampled_from([1, 2, 3, 4]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    height=st.integers(4, 7),
    width=st.integers(4, 7),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_any_small_shape_agrees_with_xlas_own_convolution(
    size, stride, padding, height, width, channels
):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)
    expected = autodiff(x, kernel, stride, padding)
    for lowering, found in all_lowerings(x, kernel, stride, padding).items():
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=lowering)


@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
def test_second_derivatives_are_right(lowering):
    with jax.enable_x64(True):
        x, kernel = arguments(3, 4, 5, np.float64)
        check_grads(
            jax.jit(
                lambda x, kernel: jnp.sin(
                    convolution.conv2d(
                        x, kernel, stride=2, padding=1, lowering=lowering
                    )
                )
            ),
            (jnp.asarray(x), jnp.asarray(kernel)),
            order=2,
            modes=["rev"],
            atol=1e-3,
            rtol=1e-3,
        )


@pytest.mark.parametrize("excess", [0, 1, 2])
def test_a_batch_large_enough_to_be_halved_has_the_same_gradient(excess):
    batch = convolution.HALVED_BATCH + excess
    with jax.enable_x64(True):
        x, kernel = arguments(3, 4, 5, np.float64, models=(2,), batch=batch)
        found = jax.vmap(lambda x, kernel: everything(x, kernel, 2, 1, "native"))(
            x, kernel
        )
        for index in range(2):
            expected = autodiff(x[index], kernel[index], 2, 1)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one[index], other, atol=1e-10)


def test_a_batch_in_many_parts_has_the_same_gradient(monkeypatch):
    monkeypatch.setattr(lowerings, "MOST_PIXELS", 2 * 6 * 6)
    monkeypatch.setattr(lowerings, "LEAST_IMAGES", 1)
    assert lowerings.parts_of(7, 36) == 4  # the last of one image
    with jax.enable_x64(True):
        x, kernel = arguments(3, 6, 6, np.float64, batch=7)
        found = everything.__wrapped__(x, kernel, 1, 1, "native")
        for one, other in zip(found, autodiff(x, kernel, 1, 1), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)


def test_parts_of_a_batch_are_not_rounded_one_by_one(monkeypatch):
    """Errors of bfloat16 stay what they are of one part."""
    rng = np.random.default_rng(0)
    x, cotangent = (
        jnp.asarray(np.abs(rng.normal(size=(64, 8, 8, 4))), jnp.bfloat16)
        for _ in range(2)
    )

    def gradient(parts, *arrays):
        monkeypatch.setattr(lowerings, "parts_of", lambda *_: parts)
        _, backward = jax.vjp(
            lambda kernel: convolution.conv2d(
                arrays[0], kernel, stride=1, padding=1, lowering="native"
            ),
            jnp.zeros((3, 3, 4, 4), arrays[0].dtype),
        )
        return np.float32(backward(arrays[1])[0])

    exact = gradient(1, *(one.astype(jnp.float32) for one in (x, cotangent)))
    one, many = (np.linalg.norm(gradient(n, x, cotangent) - exact) for n in (1, 32))
    assert 0 < many < 2 * one


def test_parts_of_a_batch_are_small_where_its_images_are_large(monkeypatch):
    of = lowerings.parts_of
    pixels = {"32": 1024, "16": 256, "224": 224**2}
    assert [of(63, pixels["16"]), of(64, pixels["16"]), of(65, 64)] == [1, 2, 2]
    assert [of(128, pixels["32"]), of(90, pixels["32"])] == [4, 3]
    assert of(128, pixels["224"]) == 16  # of eight images each
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [of(128, pixels["32"]), of(63, pixels["224"])] == [2, 1]


@pytest.mark.parametrize("stride", [1, 2])
def test_native_gradients_use_the_one_layout_that_is_fast_in_a_loop(stride):
    x, kernel = arguments(3, 6, 6, np.float32, batch=convolution.HALVED_BATCH)
    program = everything.lower(x, kernel, stride, 1, "native").as_text()
    layouts = re.findall(r"dim_numbers = (.*?), window", program)
    assert layouts == ["[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"] * 3


def test_an_unknown_lowering_lists_the_known_ones():
    x, kernel = arguments(3, 4, 4, np.float32)
    known = "'native', 'columns', 'sequential', 'shift', 'im2col'.*got 'winograd'"
    with pytest.raises(ValueError, match=known):
        convolution.conv2d(x, kernel, stride=1, padding=1, lowering="winograd")


@pytest.mark.parametrize("width, columns", [(8, 4), (6, 2), (7, 1)])
def test_columns_share_one_wider_kernel_as_far_as_the_width_divides(width, columns):
    x, kernel = arguments(3, 5, width, np.float32)
    conv = functools.partial(
        convolution.conv2d, stride=1, padding=1, lowering="columns"
    )
    program = jax.jit(conv).lower(x, kernel).as_text()
    (found,) = re.findall(r"stablehlo\.convolution.*, tensor<(\w+)xf32>\)", program)
    assert found == f"3x{3 + columns - 1}x3x{4 * columns}"


@pytest.mark.parametrize("lowering, groups", [("native", {1, 3}), ("sequential", {1})])
def test_stacked_models_are_groups_unless_they_follow_one_another(lowering, groups):
    x, kernel = arguments(3, 6, 6, np.float32, models=(3,))
    stacked = jax.jit(jax.vmap(lambda x, kernel: everything(x, kernel, 1, 1, lowering)))
    program = stacked.lower(x, kernel).as_text()
    found = re.findall(r"(?:feature|batch)_group_count = (\d+)", program)
    assert {int(count) for count in found} == groups


def choice(**layers):
    """A `Choice` from `search` and `kernel` as lists of (layer, lowering)."""
    listed = {
        what: tuple((convolution.Layer(*layer), name) for layer, name in entries)
        for what, entries in layers.items()
    }
    return convolution.Choice("native", **listed)


def test_each_half_of_a_layer_gets_its_own_lowering():
    x, kernel = arguments(3, 6, 6, np.float32)
    layer = (6, 3, 1, 3, 4)
    mixed = choice(search=[(layer, "shift")], kernel=[(layer, "native")])
    program = everything.lower(x, kernel, 1, 1, mixed).as_text()
    # Nine products forward, nine back to the input, one convolution for the kernel.
    assert program.count("stablehlo.dot_general") == 18
    assert program.count("stablehlo.convolution") == 1
    for one, other in zip(
        everything(x, kernel, 1, 1, mixed), autodiff(x, kernel, 1, 1), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_unlisted_layer_takes_after_its_nearest_and_the_stride_weighs_most():
    chosen = choice(
        search=[
            ((32, 3, 1, 16, 16), "native"),
            ((8, 3, 1, 64, 64), "shift"),
            ((8, 3, 2, 64, 64), "im2col"),
        ]
    )
    of = chosen.of
    assert of(convolution.Layer(8, 3, 2, 64, 64), "search") == "im2col"
    assert of(convolution.Layer(28, 3, 1, 3, 16), "search") == "native"
    # Factors 2, 2 and 2 from the third; 1, 1 and 1 but another stride from the second.
    assert of(convolution.Layer(4, 3, 2, 128, 128), "search") == "im2col"
    assert of(convolution.Layer(8, 3, 1, 64, 128), "search") == "shift"
    assert of(convolution.Layer(8, 3, 1, 64, 64), "kernel") == "native"  # the fallback


def test_the_hash_is_of_what_decides_and_not_of_the_tables_name():
    layer = (6, 3, 1, 3, 4)
    one = convolution.Choice("native", table="packaged")
    other = convolution.Choice("native", table="user")
    assert one == other and hash(one) == hash(other)
    assert one.identity()["hash"] == other.identity()["hash"]
    assert (one.identity()["table"], other.identity()["table"]) == ("packaged", "user")
    for changed in (
        convolution.Choice("shift"),
        choice(search=[(layer, "shift")]),
        choice(kernel=[(layer, "shift")]),
        choice(kernel=[((6, 3, 1, 3, 8), "shift")]),
    ):
        assert changed != one and changed.identity()["hash"] != one.identity()["hash"]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("lowering", convolution.LOWERINGS)
@pytest.mark.parametrize(
    "precision, dtype, expected",
    [
        ("float32", np.float32, "HIGHEST"),
        ("tf32", np.float32, "HIGH"),
        ("bfloat16", jnp.bfloat16, "DEFAULT"),
    ],
)
def test_every_product_says_how_precise_it_is(
    lowering, precision, dtype, expected, size
):
    """Left alone, accelerators round float32 factors: it must be written in the program."""
    x, kernel = arguments(size, 6, 6, np.float32)

    def apply(x, kernel):
        return convolution.conv2d(
            x,
            kernel,
            stride=2,
            padding=size // 2,
            lowering=lowering,
            precision=precision,
        )

    def gradients(x, kernel):
        y, backward = jax.vjp(apply, x, kernel)
        return backward(y)

    x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    program = jax.jit(gradients).lower(x, kernel).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", program)
    assert len(products) >= 3
    for product in products:
        named = re.findall(r"precision\w* = \[([^\]]*)\]", product.replace("<", " "))
        words = set(re.findall(r"\b(DEFAULT|HIGHEST|HIGH)\b", " ".join(named)))
        assert words == {expected}, product
