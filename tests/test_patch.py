"""What a search for a small patch promises, on linear models whose answer is known."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import patch, universal
from ban_jax.detectors import ban
from ban_jax.types import Probe
from tests import tiny

SHAPE = (20, 20, 3)
"""A tenth of it are two pixels."""
CLASSES = 4
TARGET = 2


def apply_fn(variables, images):
    """Logits of the pixels themselves: `[B, 20, 20, 3]` -> `[B, K]`."""
    return images.reshape(len(images), -1) @ variables["kernel"]


def variables(row=6, column=11):
    """Answers to four pixels with the target, and faintly to all with any class."""
    kernel = 0.02 * jax.random.normal(jax.random.key(0), (*SHAPE, CLASSES))
    square = np.s_[row : row + 2, column : column + 2]
    kernel = kernel.at[square].set(0.0).at[(*square, 0, TARGET)].set(3.0)
    return {"kernel": kernel.reshape(-1, CLASSES)}


@functools.cache
def images(count=16):
    return jax.random.uniform(jax.random.key(1), (count, *SHAPE), maxval=0.5)


@functools.partial(jax.jit, static_argnames="steps")
def search(variables, images, weights, *, steps=3):
    labels = jnp.full(len(images), TARGET)
    return patch.find_patch(
        apply_fn,
        variables,
        images,
        labels,
        weights=weights,
        salient_steps=2,
        steps=steps,
    )


def test_the_side_is_a_tenth_of_the_shorter_one_rounded_down():
    sides = {side: patch.side((side, side + 7, 3)) for side in (8, 10, 16, 32, 64, 224)}
    assert sides == {8: 0, 10: 1, 16: 1, 32: 3, 64: 6, 224: 22}
    assert patch.side((40, 9, 1)) == 0


@pytest.mark.parametrize(("row", "column"), [(6, 11), (0, 0), (18, 18)])
def test_the_square_that_a_class_answers_to_is_found_and_filled(row, column):
    found, is_finite = search(variables(row, column), images(), jnp.ones(16))
    assert bool(is_finite)
    square = np.s_[row : row + 2, column : column + 2]
    np.testing.assert_array_equal(found[square][..., 0], 1.0)
    answers = apply_fn(variables(row, column), universal.shift(images(), found))
    assert np.all(np.argmax(answers, -1) == TARGET)


def test_nothing_outside_one_square_is_changed_and_no_pixel_by_more_than_its_range():
    found, _ = search(variables(), images(), jnp.ones(16), steps=5)
    rows, columns, _ = np.nonzero(np.asarray(found))
    assert np.ptp(rows) <= 1 and np.ptp(columns) <= 1
    assert float(jnp.max(jnp.abs(found))) <= 1.0


def test_images_without_weight_say_nothing():
    """Half of them would lead to another square."""
    some = images().at[8:, 0, 0, 0].set(jnp.nan)
    weights = jnp.where(jnp.arange(16) < 8, 1.0, 0.0)
    clean = images().at[8:].set(0.0)
    one, _ = search(variables(), clean, weights)
    other, _ = search(variables(), images(), weights)
    np.testing.assert_array_equal(one, other)
    _, is_finite = search(variables(), some, jnp.ones(16))
    assert not bool(is_finite)


def test_a_step_inside_the_square_is_half_of_a_pixels_range():
    """It goes on from the small steps that found the place."""
    found, _ = search(variables(), images(), jnp.ones(16), steps=1)
    inside = np.abs(np.asarray(found)[6:8, 11:13, 0])
    np.testing.assert_allclose(inside, patch.STEP + patch.SALIENT, rtol=1e-6)


def test_the_place_is_the_square_with_the_largest_sum():
    seen = jnp.zeros((6, 8)).at[1, 1].set(5.0).at[4, 5].set(3.0).at[3, 6].set(3.0)
    for size, corner in ((1, (1, 1)), (2, (3, 5))):
        window = np.asarray(patch.salient_window(seen, size))
        assert window.shape == (6, 8, 1) and window.sum() == size**2
        assert np.argwhere(window[..., 0])[0].tolist() == list(corner)


def test_gradients_of_all_steps_on_all_pixels_count():
    """A pixel that counts for more once another has moved, and is the place then."""

    def apply_fn(variables, images):
        first, second = images[:, 2, 3, 0], images[:, 7, 8, 0]
        rises = first + 9.0 * second * (first > 0.01)
        return jnp.stack([jnp.zeros_like(rises), rises + 1e-3 * second], -1)

    for salient_steps, place in ((1, [2, 3]), (3, [7, 8])):
        found, _ = patch.find_patch(
            apply_fn,
            {},
            jnp.zeros((2, 10, 10, 3)),
            jnp.ones(2, int),
            weights=jnp.ones(2),
            salient_steps=salient_steps,
            steps=1,
        )
        assert np.argwhere(np.asarray(found)[..., 0]).tolist() == [place]


def test_images_of_which_a_hundredth_is_no_pixel_are_refused():
    with pytest.raises(ValueError, match="have no patch of a hundredth"):
        patch.find_patch(
            apply_fn,
            {"kernel": jnp.zeros((192, CLASSES))},
            jnp.zeros((2, 8, 8, 3)),
            jnp.zeros(2, int),
            weights=jnp.ones(2),
            salient_steps=1,
            steps=1,
        )


def pixels_decide(variables, images, mode):
    """The corner pixel's redness is the third channel of what the head averages."""
    features, variables = tiny.features(variables, images, mode)
    corner = images[:, -1:, -1:, :1]
    return features.at[..., 2].set(
        12.0 * jnp.broadcast_to(corner, features.shape)[..., 2]
    ), (variables)


@pytest.fixture(name="measured", scope="module")
def measured_():
    """Evidence of mode ban on 12x12 images, of which a patch is one pixel."""
    dark = jax.random.uniform(jax.random.key(3), (2, 40, 12, 12, 3), maxval=0.1)
    labels = jnp.arange(80).reshape(2, 40) % tiny.CLASSES
    model = tiny.variables(0)
    kernel = model["params"]["linear"]["kernel"]
    model["params"]["linear"]["kernel"] = kernel.at[2].set(0.0).at[2, 3].set(1.0)
    network = tiny.NETWORK._replace(features=pixels_decide)

    def measure(**changes):
        config = ban.Settings(mask_steps=1, steps=1, patch_images=8, **changes)
        found = jax.jit(
            lambda model, probe: ban.detect(
                network, model, probe, key=jax.random.key(0), config=config
            )
        )(model, Probe(dark, labels))
        return found, ban.work(config, tiny.CLASSES, 80)

    return measure


def test_mode_ban_tells_what_a_patch_adds_to_each_class(measured):
    found, work = measured()
    assert int(np.argmax(found.vectors["patch"])) == 3
    assert float(found.vectors["patch"][3]) > 0.5
    assert np.all(np.delete(found.vectors["patch"], 3) < 0.5)
    assert np.all(np.isfinite(found.errors["patch"]))
    assert int(found.work) == work


def test_of_many_classes_those_are_tried_that_noise_pulls_most_to(measured):
    found, work = measured(patch_classes=2)
    tried = np.argsort(-np.asarray(found.vectors["untargeted"]))[:2]
    known = np.flatnonzero(np.isfinite(found.vectors["patch"]))
    assert sorted(known) == sorted(tried)
    assert int(found.work) == work < measured()[1]


def test_without_steps_no_patch_is_searched_and_none_is_paid_for(measured):
    found, work = measured(patch_steps=0)
    assert "patch" not in found.vectors and int(found.work) == work
    assert work < measured()[1]


def test_on_images_too_small_for_one_no_patch_is_searched_or_paid_for():
    config = ban.Settings(mask_steps=1, steps=1)
    found = jax.eval_shape(
        lambda: ban.detect(
            tiny.NETWORK,
            tiny.variables(),
            tiny.probe(),
            key=jax.random.key(0),
            config=config,
        )
    )
    assert "patch" not in found.vectors
