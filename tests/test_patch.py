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
    unlikely = jnp.zeros(CLASSES).at[TARGET].set(-4.0)
    return images.reshape(len(images), -1) @ variables["kernel"] + unlikely[None]


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
def searches(variables, images, labels, *, steps=3):
    return patch.find_patches(
        apply_fn,
        variables,
        images,
        labels,
        jnp.arange(CLASSES),
        salient_steps=2,
        steps=steps,
    )


def search(variables, images, labels=None, *, steps=3):
    """The patch towards the target `[20, 20, 3]`, and whether all is finite."""
    labels = jnp.zeros(len(images), int) if labels is None else labels
    found = searches(variables, images, labels, steps=steps)
    assert found.changes.shape == (CLASSES, *SHAPE)
    return found.changes[TARGET], bool(found.is_finite)


def test_the_side_is_a_tenth_of_the_shorter_one_rounded_down():
    sides = {side: patch.side((side, side + 7, 3)) for side in (8, 10, 16, 32, 64, 224)}
    assert sides == {8: 0, 10: 1, 16: 1, 32: 3, 64: 6, 224: 22}
    assert patch.side((40, 9, 1)) == 0


@pytest.mark.parametrize(("row", "column"), [(6, 11), (0, 0), (18, 18)])
def test_the_square_that_a_class_answers_to_is_found_and_filled(row, column):
    found, is_finite = search(variables(row, column), images())
    assert is_finite
    square = np.s_[row : row + 2, column : column + 2]
    np.testing.assert_array_equal(found[square][..., 0], 1.0)
    answers = apply_fn(variables(row, column), universal.shift(images(), found))
    assert np.all(np.argmax(answers, -1) == TARGET)


def test_the_square_at_a_patchs_corner_is_all_of_it():
    found = searches(variables(), images(), jnp.zeros(16, int))
    for change, corner in zip(found.changes, found.corners, strict=True):
        square = patch.square_at(change, corner)
        again = jnp.zeros(SHAPE)
        again = jax.lax.dynamic_update_slice(again, square, (*corner, 0))
        np.testing.assert_array_equal(again, change)
    assert found.corners[TARGET].tolist() == [6, 11]


def test_nothing_outside_one_square_is_changed_and_no_pixel_by_more_than_its_range():
    found, _ = search(variables(), images(), steps=5)
    rows, columns, _ = np.nonzero(np.asarray(found))
    assert np.ptp(rows) <= 1 and np.ptp(columns) <= 1
    assert float(jnp.max(jnp.abs(found))) <= 1.0


def test_images_of_the_class_itself_say_nothing():
    labels = jnp.where(jnp.arange(16) < 8, 0, TARGET)
    one, _ = search(variables(), images().at[8:].set(0.0), labels)
    other, _ = search(variables(), images(), labels)
    np.testing.assert_array_equal(one, other)


def test_what_is_not_finite_is_told():
    _, is_finite = search(variables(), images().at[3, 0, 0, 0].set(jnp.nan))
    assert not is_finite


def test_a_step_inside_the_square_is_half_of_a_pixels_range():
    """It goes on from the small steps that found the place."""
    found, _ = search(variables(), images(), steps=1)
    inside = np.abs(np.asarray(found)[6:8, 11:13, 0])
    np.testing.assert_allclose(inside, 0.5 + 48 / 255, rtol=1e-6)


def test_the_place_is_the_square_with_the_largest_sum():
    seen = jnp.zeros((6, 8)).at[1, 1].set(5.0).at[4, 5].set(3.0).at[3, 6].set(3.0)
    for size, corner in ((1, (1, 1)), (2, (3, 5))):
        found = patch.salient_corner(seen, size)
        window = np.asarray(patch.window(found, size, seen.shape))
        assert window.shape == (6, 8, 1) and window.sum() == size**2
        assert np.argwhere(window[..., 0])[0].tolist() == list(corner)


def test_gradients_are_multiples_of_what_all_classes_have_and_a_tenth():
    seen = jnp.array([[[1.0, 3.0]], [[2.0, 2.0]]])
    # Of their means 1/2 and 3/2, 1 and 1: at the two pixels 3/4 and 5/4 of all classes.
    expected = [[[0.5 / 0.85, 1.5 / 1.35]], [[1 / 0.85, 1 / 1.35]]]
    np.testing.assert_allclose(patch.relative(seen), expected, rtol=1e-6)


def test_what_all_classes_hang_on_is_no_place_of_one():
    """The middle of an image moves every class, and the target most of all."""
    middle, corner = (3, 3), (7, 1)
    seen = jnp.ones((4, 9, 9)).at[:, *middle].set(50.0)
    seen = seen.at[TARGET, *middle].set(90.0).at[TARGET, *corner].set(12.0)
    found = patch.relative(seen)
    assert np.argwhere(found[TARGET] == found[TARGET].max()).tolist() == [list(corner)]
    np.testing.assert_array_equal(patch.relative(seen[:1]), seen[:1])


def test_a_pixel_that_hardly_any_class_sees_is_no_place():
    """It has many times the usual there, and next to nothing of it."""
    seen = jnp.ones((4, 9, 9)).at[:, 2, 2].set(1e-6).at[TARGET, 2, 2].set(1e-3)
    seen = seen.at[TARGET, 6, 6].set(3.0)
    found = np.asarray(patch.relative(seen)[TARGET])
    assert np.argwhere(found == found.max()).tolist() == [[6, 6]]


def test_gradients_of_all_steps_on_all_pixels_count():
    """A pixel that counts for more once another has moved, and is the place then."""

    def apply_fn(variables, images):
        first, second = images[:, 2, 3, 0], images[:, 7, 8, 0]
        rises = first + 9.0 * second * (first > 0.01)
        return jnp.stack([jnp.zeros_like(rises), rises + 1e-3 * second], -1)

    for salient_steps, place in ((1, [2, 3]), (3, [7, 8])):
        found = patch.find_patches(
            apply_fn,
            {},
            jnp.zeros((2, 10, 10, 3)),
            jnp.zeros(2, int),
            jnp.ones(1, int),
            salient_steps=salient_steps,
            steps=1,
        )
        assert np.argwhere(found.changes[0, ..., 0]).tolist() == [place]
        assert found.corners.tolist() == [place]


def test_images_of_which_a_hundredth_is_no_pixel_are_refused():
    with pytest.raises(ValueError, match="have no patch of a hundredth"):
        patch.find_patches(
            apply_fn,
            {"kernel": jnp.zeros((192, CLASSES))},
            jnp.zeros((2, 8, 8, 3)),
            jnp.zeros(2, int),
            jnp.arange(CLASSES),
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


def test_the_strongest_patch_is_told_with_its_class_and_place(measured):
    told = measured()[0].info["patch"]
    assert int(told["target"]) == 3
    # The corner's redness is what the class hangs on: added, as much as there is.
    assert told["corner"].tolist() == [11, 11]
    assert told["change"].shape == (1, 1, 3)
    assert float(told["change"][0, 0, 0]) == 1.0


def test_of_many_classes_those_are_tried_that_noise_pulls_most_to(measured):
    found, work = measured(patch_classes=2)
    told = int(found.info["patch"]["target"])
    assert told == np.nanargmax(found.vectors["patch"])
    tried = np.argsort(-np.asarray(found.vectors["untargeted"]))[:2]
    known = np.flatnonzero(np.isfinite(found.vectors["patch"]))
    assert sorted(known) == sorted(tried)
    assert int(found.work) == work < measured()[1]


def test_without_steps_no_patch_is_searched_and_none_is_paid_for(measured):
    found, work = measured(patch_steps=0)
    assert "patch" not in found.vectors and int(found.work) == work
    assert "patch" not in found.info
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
