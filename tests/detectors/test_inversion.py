"""The search that methods with a trigger per class share."""

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax.detectors import inversion

ROUNDS = 12


def countdown(targets, at_once, rounds=ROUNDS, seed=0):
    """Class t is done after t + 1 rounds; its state counts them and adds what it drew."""

    def start(target, key):
        return {"left": target + 1, "drawn": jax.random.uniform(key), "sum": 0.0}

    def step(state, target, index, key):
        total = state["sum"] + jax.random.uniform(key) * (target + 1)
        state = {**state, "left": state["left"] - 1, "sum": total}
        return state, {"sum": total, "round": index.astype(jnp.float32)}

    return jax.jit(
        lambda classes: inversion.search(
            start,
            step,
            classes,
            key=jax.random.key(seed),
            rounds=rounds,
            at_once=at_once,
            done=lambda state: state["left"] <= 0,
        )
    )(jnp.asarray(targets))


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 8])
def test_a_class_gets_what_it_gets_alone_however_many_are_computed_at_once(at_once):
    together = countdown([4, 0, 2, 7, 1], at_once)
    for place, target in enumerate([4, 0, 2, 7, 1]):
        alone = countdown([target], 1)
        among = jax.tree.map(lambda leaf, i=place: leaf[i : i + 1], together)
        chex.assert_trees_all_close(among, alone, rtol=1e-6)


def test_a_class_that_is_done_stays_as_it_is_and_its_curve_ends():
    found = countdown([0, 4], 2)
    assert found.rounds.tolist() == [1, 5]
    assert np.isfinite(found.curves["sum"][0]).sum() == 1
    assert np.isfinite(found.curves["round"][1]).tolist() == [True] * 5 + [False] * 7
    np.testing.assert_array_equal(found.state["sum"][0], found.curves["sum"][0, 0])


def test_no_search_takes_more_rounds_than_it_may():
    assert countdown([1, 30], 2, rounds=3).rounds.tolist() == [2, 3]


def test_classes_draw_starts_of_their_own_and_rounds_in_common():
    found = countdown([3, 3, 5], 3)
    drawn, sums = found.state["drawn"], found.curves["sum"]
    assert drawn[0] == drawn[1] != drawn[2]
    np.testing.assert_allclose(sums[2, :4] / 6, sums[0, :4] / 4, rtol=1e-6)
    assert np.all(np.diff(sums[2, :6]) != 0)
    assert countdown([3], 1, seed=1).state["drawn"] != drawn[0]


def test_only_what_qualifies_is_finite_and_smaller_takes_the_place_of_the_best():
    best = inversion.nothing(jnp.zeros(2))
    trials = [
        (3.0, True), (1.0, False), (jnp.nan, True), (2.0, True), (2.5, True),
        (-jnp.inf, True),
    ]  # fmt: skip
    rounds = []
    for index, (value, qualifies) in enumerate(trials):
        best = inversion.better(
            best,
            jnp.float32(value),
            jnp.full(2, float(index)),
            jnp.int32(index),
            jnp.array(qualifies),
        )
        rounds.append(int(best.round))
    assert rounds == [0, 0, 0, 3, 3, 3]
    assert float(best.value) == 2.0 and best.found.tolist() == [3.0, 3.0]


def test_the_box_and_its_inverse_undo_each_other_and_stay_inside():
    values = jnp.linspace(0.001, 0.999, 101)
    np.testing.assert_allclose(inversion.boxed(inversion.unboxed(values)), values, 2e-4)
    wide = inversion.boxed(jnp.array([-1e9, 0.0, 1e9]))
    assert float(wide[0]) >= 0 and float(wide[1]) == 0.5 and float(wide[2]) <= 1


def test_a_stamp_covers_where_the_mask_is_one_and_nothing_where_it_is_zero():
    images = jnp.full((2, 2, 2, 3), 0.25)
    mask = jnp.array([[0.0, 1.0], [0.5, 0.0]])[..., None]
    found = inversion.stamp(images, inversion.Trigger(mask, jnp.ones((2, 2, 3))))
    expected = [[0.25, 1.0], [0.625, 0.25]]
    np.testing.assert_allclose(found[1, ..., 2], expected)


def test_batches_pass_over_all_images_before_one_comes_again():
    found = np.asarray(inversion.batches(jax.random.key(0), 10, number=7, size=4))
    assert found.shape == (7, 4)
    order = found.reshape(-1)
    for first in (0, 10):
        assert sorted(order[first : first + 10]) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()
    few = np.asarray(inversion.batches(jax.random.key(0), 3, number=1, size=8))
    assert np.bincount(few.reshape(-1)).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
