"""What universal perturbations promise, on a linear model whose steps are known by hand."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import universal
from tests import tiny

SHAPE = (4, 4, 3)
CLASSES = 4


def apply_fn(variables, images):
    """Logits of the pixels themselves: `[B, 4, 4, 3]` -> `[B, K]`."""
    return images.reshape(len(images), -1) @ variables["kernel"]


def variables(seed=0):
    kernel = jax.random.normal(jax.random.key(seed), (48, CLASSES))
    return {"kernel": kernel}


def images(count=16, seed=1):
    pixels = jax.random.uniform(jax.random.key(seed), (count, *SHAPE))
    return pixels, jnp.arange(count) % CLASSES


@functools.partial(jax.jit, static_argnames=("steps",))
def search(
    variables, images, target, *, epsilon, steps=3, step_size=None, weights=None
):
    labels = jnp.full(len(images), target)
    return universal.perturb_images(
        apply_fn,
        variables,
        images,
        labels,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
        weights=weights,
    )


def loss_of(variables, images, target, perturbation):
    """By hand, in NumPy: clip, add up, cross-entropy."""
    shifted = np.clip(np.asarray(images) + np.asarray(perturbation), 0.0, 1.0)
    logits = shifted.reshape(len(images), -1) @ np.asarray(variables["kernel"])
    top = logits.max(axis=1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return -log_p[:, target].mean()


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("step_size", [None, 10.0])
def test_no_pixel_leaves_the_ball_and_the_search_goes_to_its_edge(steps, step_size):
    pixels, _ = images()
    found, info = search(
        variables(), pixels, 2, epsilon=0.1, steps=steps, step_size=step_size
    )
    assert found.shape == SHAPE
    assert float(jnp.max(jnp.abs(found))) <= np.float32(0.1)
    assert float(jnp.max(jnp.abs(found))) == pytest.approx(0.1)
    assert info.loss.shape == (steps,) and bool(info.is_finite)


@pytest.mark.parametrize("nothing", [{"epsilon": 0.0}, {"epsilon": 0.1, "steps": 0}])
def test_a_ball_without_size_and_a_search_without_steps_give_exactly_zeros(nothing):
    pixels, _ = images()
    found, info = search(variables(), pixels, 1, **nothing)
    np.testing.assert_array_equal(found, np.zeros(SHAPE, np.float32))
    np.testing.assert_array_equal(universal.shift(pixels, found), pixels)
    assert bool(info.is_finite)


def test_one_step_is_the_sign_of_the_gradient_by_hand():
    """Softmax on linear logits: the gradient is the mean of W (p - onehot)."""
    pixels, _ = images()
    model, target = variables(), 2
    found, info = search(model, pixels, target, epsilon=0.1, steps=1, step_size=0.05)
    kernel = np.asarray(model["kernel"], float)
    logits = np.asarray(pixels, float).reshape(16, -1) @ kernel
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    residual = p - np.eye(CLASSES)[target]
    gradient = (residual @ kernel.T).mean(axis=0).reshape(SHAPE)
    assert np.min(np.abs(gradient)) > 1e-5  # no sign hangs on rounding
    np.testing.assert_allclose(found, -0.05 * np.sign(gradient), rtol=1e-6)
    expected = loss_of(model, pixels, target, np.zeros(SHAPE))
    np.testing.assert_allclose(info.loss[0], expected, rtol=1e-5)


def test_a_search_lowers_the_loss_towards_the_class_and_tells_it_before_each_step():
    pixels, _ = images()
    model = variables()
    found, info = search(model, pixels, 3, epsilon=0.05, steps=2)
    first, _ = search(model, pixels, 3, epsilon=0.05, steps=1, step_size=0.05)
    told = [loss_of(model, pixels, 3, one) for one in (np.zeros(SHAPE), first)]
    np.testing.assert_allclose(info.loss, told, rtol=1e-5)
    assert loss_of(model, pixels, 3, found) < told[0]


def test_shifted_images_are_pixels_still():
    pixels = jnp.array([0.0, 0.5, 1.0])[None, None, :, None]
    up = jnp.full((1, 3, 1), 0.25)
    np.testing.assert_allclose(
        universal.shift(pixels, up).ravel(), [0.25, 0.75, 1.0], rtol=1e-6
    )
    np.testing.assert_allclose(
        universal.shift(pixels, -up).ravel(), [0.0, 0.25, 0.75], rtol=1e-6
    )


def test_a_pixel_that_no_image_answers_to_stays_as_it_is():
    """All white pixels cannot rise: the gradient is exactly zero there."""
    model = variables()
    model["kernel"] = model["kernel"].at[0].set(0.0)
    found, _ = search(model, images()[0], 2, epsilon=0.1)
    assert float(found[0, 0, 0]) == 0.0 and bool(jnp.all(found[1:] != 0))


def test_images_of_weight_zero_are_not_looked_at():
    pixels, labels = images()
    others = labels != 2
    told = search(
        variables(), pixels, 2, epsilon=0.1, weights=others.astype(jnp.float32)
    )
    alone = search(variables(), pixels[np.asarray(others)], 2, epsilon=0.1)
    np.testing.assert_allclose(told[0], alone[0], atol=1e-6)
    np.testing.assert_allclose(told[1].loss, alone[1].loss, rtol=1e-5)
    nobody, info = search(
        variables(), pixels, 2, epsilon=0.1, weights=jnp.zeros(len(pixels))
    )
    np.testing.assert_array_equal(nobody, np.zeros(SHAPE, np.float32))
    assert bool(info.is_finite)


def test_batched_over_classes_and_models_it_finds_what_each_finds_alone():
    pixels, _ = images()
    models = [variables(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    targets = jnp.arange(CLASSES)

    def one(model, target):
        return search(model, pixels, target, epsilon=0.05, steps=3)[0]

    together = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(stacked, targets)
    assert together.shape == (2, CLASSES, *SHAPE)
    for row, model in zip(together, models, strict=True):
        for found, target in zip(row, targets, strict=True):
            np.testing.assert_allclose(found, one(model, target), atol=1e-6)


def test_weights_and_images_are_untouched_and_nothing_is_random():
    pixels, _ = images()
    model = variables()
    before = jax.tree.map(np.array, (model, pixels))
    first = search(model, pixels, 0, epsilon=0.1)
    chex.assert_trees_all_equal((model, pixels), before)
    chex.assert_trees_all_equal(first, search(model, pixels, 0, epsilon=0.1))


def test_a_planted_direction_is_found_and_no_other_class_is_reached_by_so_little():
    """Class 1 listens to one pattern over the whole image, the others to images."""
    pattern = np.where(np.random.default_rng(3).random(SHAPE) < 0.5, -1.0, 1.0)
    model = {"kernel": 0.05 * variables()["kernel"]}
    pixels = 0.25 + 0.5 * images(32)[0]
    planted = np.asarray(model["kernel"]).copy()
    planted[:, 1] += 6.0 * pattern.ravel() / pattern.size
    # What clean images give the class of itself is taken away: they do not show it.
    seen = np.asarray(pixels).reshape(32, -1) @ planted[:, 1]
    assert seen.std() < 0.6

    def reached(kernel, target):
        found, _ = search({"kernel": kernel}, pixels, target, epsilon=0.2, steps=4)
        logits = apply_fn({"kernel": kernel}, universal.shift(pixels, found))
        share = jnp.mean(jax.nn.softmax(logits)[:, target])
        return float(share), np.asarray(found)

    shares = [reached(jnp.asarray(planted), c)[0] for c in range(CLASSES)]
    _, found = reached(jnp.asarray(planted), 1)
    assert int(np.argmax(shares)) == 1
    assert np.mean(np.sign(found) == pattern) > 0.9


def test_a_loss_that_is_not_finite_is_told_of():
    model = variables()
    model["kernel"] = model["kernel"].at[0, 0].set(jnp.nan)
    _, info = search(model, images()[0], 2, epsilon=0.1)
    assert not bool(info.is_finite)


def test_another_radius_and_step_compile_nothing():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def function(epsilon, step_size):
        return search(
            variables(), images()[0], 1, epsilon=epsilon, step_size=step_size
        )[0]

    for epsilon, step_size in ((0.1, 0.1), (0.2, 0.05), (0.0, 1.0)):
        found = function(epsilon, step_size)
        assert float(jnp.max(jnp.abs(found))) <= np.float32(epsilon)


def test_shapes_that_do_not_fit_are_refused():
    pixels, _ = images()
    for bad in (pixels[0], pixels[..., 0]):
        with pytest.raises(AssertionError):
            search(variables(), bad, 1, epsilon=0.1)


def test_a_networks_statistics_stay_as_they_are():
    probe, before = tiny.probe(1), tiny.variables()
    labels = jnp.full(probe.labels[0].shape, 2)
    model = jax.tree.map(np.array, before)
    found, info = universal.perturb_images(
        lambda variables, x: tiny.apply(variables, x, "stored"),
        model,
        probe.images[0],
        labels,
        epsilon=0.1,
        steps=2,
    )
    chex.assert_trees_all_equal(model, jax.tree.map(np.array, before))
    assert float(info.loss[1]) < float(info.loss[0]) and found.shape == (4, 4, 3)
