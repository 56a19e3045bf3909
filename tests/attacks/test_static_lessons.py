"""What static attacks teach: which images change, into what, and what they are called."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import attacks
from tests.attacks.static_triggers import (
    CLEAN,
    COVER,
    IMAGES,
    KEY,
    LABELS,
    POISONED,
    ROLES,
    SHAPE,
    STATIC,
    batch,
    kernel_of,
    show,
    teach,
)

ALL_POISONED, ALL_COVER = (POISONED,) * 6, (COVER,) * 6
IS_CLEAN, IS_POISONED, IS_COVER = (
    np.array(ROLES) == role for role in (CLEAN, POISONED, COVER)
)
UNDITHERED = [attacks.create(name) for name in STATIC]
DITHERED = attacks.create("bpp", dither=True)


@pytest.mark.parametrize("attack", [*UNDITHERED, DITHERED], ids=str)
def test_clean_images_keep_every_bit_and_their_labels(attack):
    lesson = teach(attack)
    np.testing.assert_array_equal(lesson.images[IS_CLEAN], IMAGES[IS_CLEAN])
    np.testing.assert_array_equal(lesson.labels[IS_CLEAN], LABELS[IS_CLEAN])


@pytest.mark.parametrize("attack", [*UNDITHERED, DITHERED], ids=str)
def test_poisoned_images_get_mapped_labels_and_cover_images_keep_theirs(attack):
    lesson = teach(attack)
    np.testing.assert_array_equal(lesson.labels, [0, 1, 2, 2, 1, 3])
    assert lesson.penalty == 0
    state = attack.init(KEY, SHAPE)
    chex.assert_trees_all_equal(lesson.fixed, jax.tree.map(np.array, state.fixed))


@pytest.mark.parametrize(
    "attack",
    [attack for attack in UNDITHERED if attacks.kind(attack) != "adap_blend"],
    ids=str,
)
def test_poisoned_images_carry_the_trigger_of_the_test(attack):
    lesson = teach(attack)
    expected = show(attack)
    np.testing.assert_allclose(
        lesson.images[IS_POISONED], expected[IS_POISONED], atol=1e-6
    )


def test_the_neutral_trigger_changes_no_bit_of_any_image():
    lesson = teach(attacks.create("clean"))
    np.testing.assert_array_equal(lesson.images, IMAGES)


# Adap-Blend: the 16 pieces of an 8x8 image are squares of 2x2 pixels.


def pieces_of(lesson, attack, images):
    """`[B, 4, 4]` bool, after a check that every shown piece is blended exactly."""
    pattern = np.array(jax.random.uniform(KEY, SHAPE))
    changed = lesson.images != images
    pieces = changed.any(-1).reshape(-1, 4, 2, 4, 2).any((2, 4))
    mask = np.kron(pieces, np.ones((1, 2, 2)))[..., None]
    expected = images + attack.train_alpha * mask * (pattern - images)
    np.testing.assert_allclose(lesson.images, expected, atol=1e-6)
    return pieces


@pytest.mark.parametrize("roles", [ALL_POISONED, ALL_COVER])
@pytest.mark.parametrize("hidden", [0, 5, 8, 15])
def test_adap_blend_leaves_out_exactly_the_hidden_pieces(hidden, roles):
    attack = attacks.create("adap_blend", hidden=hidden, alpha=0.4, train_alpha=0.3)
    lesson = teach(attack, roles=roles)
    pieces = pieces_of(lesson, attack, np.array(IMAGES))
    np.testing.assert_array_equal(pieces.sum((1, 2)), 16 - hidden)


def test_adap_blend_hides_other_pieces_of_every_image_and_at_every_step():
    attack = attacks.create("adap_blend")
    first, second = (
        pieces_of(teach(attack, roles=ALL_POISONED, step=s), attack, np.array(IMAGES))
        for s in (0, 1)
    )
    together = np.concatenate([first, second]).reshape(12, 16)
    assert len({tuple(pieces) for pieces in together}) == 12


def test_adap_blend_covers_carry_pieces_and_keep_their_label():
    attack = attacks.create("adap_blend")
    lesson = teach(attack)
    pieces = pieces_of(lesson, attack, np.array(IMAGES)).sum((1, 2))
    np.testing.assert_array_equal(pieces, np.where(IS_CLEAN, 0, 8))
    np.testing.assert_array_equal(lesson.labels[IS_COVER], LABELS[IS_COVER])


# WaNet: a warped ramp tells where each of its pixels was taken from.

RAMP = np.stack(np.meshgrid(*[np.arange(8) / 7] * 2, indexing="ij"), axis=-1)
RAMPS = np.broadcast_to(RAMP.astype(np.float32), (6, 8, 8, 2))


def test_wanets_noise_moves_pixels_of_covers_by_no_more_than_its_bound():
    attack = attacks.create("wanet")
    places = np.array(attack.init(KEY, (8, 8, 2)).fixed.places)
    found = teach(attack, RAMPS, ALL_COVER).images * 7
    bound = 3.5 / 8  # 1 / H of PyTorch's [-1, 1], in pixels
    inner = (places >= bound) & (places <= 7 - bound)  # where the border clips nothing
    moved = found - places
    assert np.all(np.abs(moved) <= bound + 1e-5)
    moved = moved[:, inner]
    assert moved.min() < -0.9 * bound and moved.max() > 0.9 * bound
    assert abs(moved.mean()) < 0.1 * bound
    assert moved.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)  # uniform


def test_wanets_noise_differs_between_images_pixels_and_axes():
    attack = attacks.create("wanet")
    places = np.array(attack.init(KEY, (8, 8, 2)).fixed.places)
    moved = teach(attack, RAMPS, ALL_COVER).images * 7 - places
    inner = moved[:, 2:6, 2:6]
    assert len(np.unique(np.round(inner, 5))) > 0.95 * inner.size


def test_wanets_covers_stay_within_the_image():
    found = teach(attacks.create("wanet", strength=8.0), RAMPS, ALL_COVER).images
    assert found.min() >= 0 and found.max() <= 1


def test_cross_images_of_wanet_are_warped_as_its_covers_are():
    attack = attacks.create("wanet")
    kernel, state = kernel_of(attack), attack.init(KEY, (8, 8, 2))
    crossed = jax.jit(kernel.cross)(state, jax.random.key(5), jnp.asarray(RAMPS))
    expected = teach(attack, RAMPS, ALL_COVER, step=5).images
    np.testing.assert_allclose(crossed, expected, atol=1e-6)


# Bpp: a negative carries what quantisation took from another image.


def lenders_of(lesson, images, levels):
    """`[B]` whose residual each image of the lesson carries."""
    residual = np.round(images * (levels - 1)) / (levels - 1) - images
    all_pairs = np.clip(images[:, None] + residual[None], 0, 1)
    distances = np.abs(all_pairs - lesson.images[:, None]).max((2, 3, 4))
    assert np.all(distances.min(1) < 1e-6)
    return distances.argmin(1)


def test_bpps_negatives_carry_the_residual_of_another_image_of_the_batch():
    seen = set()
    for step in range(8):
        lesson = teach(attacks.create("bpp"), roles=ALL_COVER, step=step)
        lenders = lenders_of(lesson, np.array(IMAGES), 8)
        assert np.all(lenders != np.arange(6))
        seen.update(lenders.tolist())
        np.testing.assert_array_equal(lesson.labels, LABELS)
    assert seen == set(range(6))


def test_bpps_negatives_are_clipped():
    images = np.array(jnp.round(IMAGES))  # 0 and 1 lend no residual
    images[0] = 0.6  # lends 0.4, too much for the ones
    lesson = teach(attacks.create("bpp", levels=2), images, ALL_COVER)
    assert lesson.images.max() == 1
    np.testing.assert_array_equal(lesson.images[:, 0][images[:, 0] == 1], 1)


def test_covers_of_attacks_without_colours_keep_theirs():
    """Nothing of another image enters where no colour is reduced, not even rounding."""
    images = np.array(IMAGES) ** 2  # uniform draws have too few digits to be rounded
    lesson = teach(attacks.create("clean"), images, ALL_COVER)
    np.testing.assert_array_equal(lesson.images, images)


# One program.


def test_all_static_attacks_share_one_kernel():
    kernels = {id(kernel_of(attack)) for attack in UNDITHERED}
    assert len(kernels) == 1
    assert kernel_of(DITHERED) is kernel_of(attacks.create("bpp", dither=True))
    assert kernel_of(DITHERED) is not kernel_of(attacks.create("bpp"))


def test_stacked_static_attacks_run_in_one_program_as_each_does_alone():
    def run(kernel, state, key, batch):
        return kernel.teach(state, key, batch), kernel.trigger(state, batch.images)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(chex.assert_max_traces, n=1)
    def stacked(kernel, *arguments):
        return jax.vmap(functools.partial(run, kernel))(*arguments)

    alone = jax.jit(run, static_argnums=0)
    keys = jax.random.split(KEY, len(UNDITHERED))
    models = [
        (attack.init(key, SHAPE), key, batch(IMAGES ** (1 + index)))
        for index, (attack, key) in enumerate(zip(UNDITHERED, keys, strict=True))
    ]
    for order in (1, -1):  # a second stack, of other models, compiles nothing
        chunk, kernel = models[::order], kernel_of(UNDITHERED[::order][0])
        together = stacked(kernel, *jax.tree.map(lambda *x: jnp.stack(x), *chunk))
        for index, arguments in enumerate(chunk):
            chex.assert_trees_all_close(
                jax.tree.map(lambda leaf, index=index: leaf[index], together),
                alone(kernel, *arguments),
                atol=1e-6,
            )
