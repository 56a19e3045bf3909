"""Exact pixels of every trigger, and what is promised about poisoning."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import attacks

SHAPE = (8, 9, 3)
KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (4, *SHAPE))


def test_badnets_stamps_the_motif_into_the_lower_right_corner_and_nothing_else():
    attack = attacks.create("badnets")
    triggered = np.array(attack.apply(attack.init(KEY, SHAPE), IMAGES))
    motif = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
    corner = triggered[:, 5:8, 6:9]
    np.testing.assert_array_equal(
        corner, np.broadcast_to(motif[..., None], (4, 3, 3, 3))
    )
    triggered[:, 5:8, 6:9] = np.array(IMAGES)[:, 5:8, 6:9]
    np.testing.assert_array_equal(triggered, IMAGES)


def test_badnets_opacity_mixes_the_patch_with_the_image():
    attack = attacks.create("badnets", opacity=0.25)
    triggered = attack.apply(attack.init(KEY, SHAPE), IMAGES)
    expected = 0.75 * IMAGES[:, 7, 8] + 0.25
    np.testing.assert_allclose(triggered[:, 7, 8], expected, rtol=1e-6)


def test_badnets_at_random_places_stays_inside_and_moves_with_the_key():
    attack = attacks.create("badnets", size=2, position="random")
    places = set()
    for seed in range(12):
        state = attack.init(jax.random.key(seed), SHAPE)
        assert int((np.array(state.scale) == 0).sum()) == 2 * 2 * 3
        rows, columns, _ = np.nonzero(np.array(state.scale) == 0)
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 4


def test_blend_mixes_in_the_models_own_noise():
    attack = attacks.create("blend", alpha=0.3)
    state = attack.init(KEY, SHAPE)
    pattern = jax.random.uniform(KEY, SHAPE)
    triggered = attack.apply(state, IMAGES)
    np.testing.assert_allclose(triggered, 0.7 * IMAGES + 0.3 * pattern[None], atol=1e-6)
    other = attack.init(jax.random.key(9), SHAPE)
    assert float(jnp.max(jnp.abs(other.offset - state.offset))) > 0.1


def test_clean_changes_no_bit():
    attack = attacks.create("clean")
    triggered = attack.apply(attack.init(KEY, SHAPE), IMAGES)
    np.testing.assert_array_equal(triggered, IMAGES)


def test_triggered_images_stay_in_the_unit_interval():
    white = jnp.ones_like(IMAGES)
    for name in attacks.ATTACKS:
        attack = attacks.create(name)
        triggered = attack.apply(attack.init(KEY, SHAPE), white)
        assert float(triggered.max()) <= 1 and float(triggered.min()) >= 0


def test_triggers_of_different_kinds_share_one_compiled_program():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(state, images):
        return attacks.overlay.apply(state, images)

    for name in sorted(attacks.ATTACKS):
        attack = attacks.create(name)
        assert attack.apply is attacks.overlay.apply
        apply(attack.init(KEY, SHAPE), IMAGES)


def test_stacked_triggers_apply_as_each_alone():
    states = [attacks.create(n).init(KEY, SHAPE) for n in ("badnets", "blend", "clean")]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.vmap(attacks.overlay.apply, (0, None))(stacked, IMAGES)
    for state, result in zip(states, together, strict=True):
        np.testing.assert_array_equal(result, attacks.overlay.apply(state, IMAGES))


def test_an_unknown_attack_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown attack 'wanat'; known: badnets, blend"
    ):
        attacks.create("wanat")


@pytest.mark.parametrize("size", [0, 9])
def test_a_patch_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match="does not fit images of 8x9"):
        attacks.create("badnets", size=size).init(KEY, SHAPE)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_a_blend_outside_the_unit_interval_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be in"):
        attacks.create("blend", alpha=alpha).init(KEY, SHAPE)


@pytest.mark.parametrize("opacity", [0.0, 1.5])
def test_a_patch_of_impossible_opacity_is_refused(opacity):
    with pytest.raises(ValueError, match="opacity must be in"):
        attacks.create("badnets", opacity=opacity).init(KEY, SHAPE)
