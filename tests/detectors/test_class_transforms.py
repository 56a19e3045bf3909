"""FeatureRE and UNICORN find a planted backdoor and clear its twin; what they share."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors
from ban_jax.detectors import class_transforms as shared
from ban_jax.detectors import (
    feature_re,
    hyperplane,
    rules,
    spaces,
    transforms,
    unicorn,
)
from ban_jax.types import Probe
from tests.detectors import planted

TINY = {
    "feature_re": feature_re.Settings(
        width=4,
        warm_epochs=20,
        epochs=60,
        images_per_class=4,
        learning_rate=5e-3,
        mask_size=0.1,
    ),
    "unicorn": unicorn.Settings(
        width=4,
        pretrain_epochs=20,
        epochs=30,
        trigger_steps=3,
        images_per_class=4,
        learning_rate=5e-3,
        structure_bound=0.5,
    ),
}


STARTS = 3
"""Searches of UNICORN that are taken together: of so short a one rounding decides which
classes it reaches."""


@functools.partial(jax.jit, static_argnums=0)
def detect(name, variables, probe, config, seed):
    return detectors.DETECTORS[name].detect(
        planted.NETWORK, variables, probe, key=jax.random.key(seed), config=config
    )


def found(name, backdoored, seed=0):
    variables = planted.variables(backdoored=backdoored)
    return jax.device_get(detect(name, variables, planted.probe(), TINY[name], seed))


def scores(name, evidence):
    rule = detectors.DETECTORS[name].rule
    return rule.scores(evidence.vectors, evidence.errors, rules.WITHIN)


def test_feature_re_finds_a_planted_backdoor_and_clears_its_clean_twin():
    limit = feature_re.DETECTOR.rule.thresholds["within"]
    bad = found("feature_re", True)
    judged = scores("feature_re", bad)
    assert bool(bad.is_finite) and not judged.reason
    assert judged.values[planted.TARGET] == np.max(judged.values) > limit
    assert np.sum(judged.values > limit) == 1
    clean = found("feature_re", False)
    judged = scores("feature_re", clean)
    assert bool(clean.is_finite)
    # At this size the clean twin may well be led nowhere at all.
    assert not judged.reason or "no class was reached" in judged.reason
    assert np.max(judged.values) < limit


def test_unicorn_reaches_a_planted_backdoor_where_it_does_not_reach_the_clean_twin():
    reached = {True: [], False: []}
    for seed in range(STARTS):
        for backdoored, values in reached.items():
            evidence = found("unicorn", backdoored, seed)
            assert bool(evidence.is_finite)
            values.append(evidence.vectors["inverted"][planted.TARGET])
    assert np.max(reached[True]) > unicorn.DETECTOR.rule.thresholds["within"]
    assert np.mean(reached[True]) > 0.3 + np.mean(reached[False])


@pytest.mark.parametrize("name", TINY)
def test_without_an_image_of_a_class_there_is_no_verdict(name):
    whole = planted.probe()
    few = Probe(whole.images, jnp.where(whole.labels == 3, 0, whole.labels))
    variables = planted.variables(backdoored=True)
    evidence = jax.device_get(detect(name, variables, few, TINY[name], 0))
    assert scores(name, evidence).reason == "there is no clean image of class 3"
    assert bool(evidence.is_finite)


def test_of_many_classes_without_an_image_a_few_are_named():
    rule = unicorn.DETECTOR.rule
    vectors = {"inverted": np.full(1000, np.nan), "reached": np.ones(1000)}
    vectors["inverted"][[0, 4]] = 0.5
    errors = {name: np.zeros(1000) for name in vectors}
    reason = rule.scores(vectors, errors, rules.WITHIN).reason
    assert reason == "there is no clean image of class 1, 2, 3, 5, 6 and 993 more"


@pytest.mark.parametrize("name", TINY)
def test_a_search_that_reaches_nothing_allows_no_verdict(name):
    first, second, *more = detectors.DETECTORS[name].rule.vectors
    vectors = {name: np.ones(4) for name in (first, second, *more)}
    vectors[second] = np.array([0.0, 0.04, 0.02, 0.0])
    errors = {name: np.zeros(4) for name in vectors}
    judged = detectors.DETECTORS[name].rule.scores(vectors, errors, rules.WITHIN)
    assert "4% of the clean images were led to one at most" in judged.reason


def test_the_value_of_an_epoch_by_hand():
    config = feature_re.Settings()  # 245 of 8192 entries, 0.15, 1.0
    seen = {
        name: jnp.array(value)
        for name, value in {
            "cosine": 0.2,
            "success": 0.97,
            "image": 0.18,
            "spread": 0.4,
            "mask": 294.0,
        }.items()
    }
    # 0.2 - 0.97 + 0.03 / 0.15 + 49 / 245 + 0
    assert float(hyperplane.value_of(seen, 8192, config)) == pytest.approx(-0.37)


def test_the_line_of_feature_re_is_a_value_below_minus_three_quarters():
    rule = feature_re.DETECTOR.rule
    errors = {"hyperplane": np.zeros(3), "reached": np.zeros(3)}
    for value, flagged in ((0.76, True), (0.74, False)):
        vectors = {"hyperplane": np.array([0.1, value, -3.0]), "reached": np.ones(3)}
        judged = rule.scores(vectors, errors, rules.WITHIN)
        assert (judged.values.max() > rule.thresholds["within"]) == flagged
        assert int(np.argmax(judged.values)) == 1


def test_the_few_are_the_first_of_each_class_and_others_exclude_the_target():
    labels = jnp.array([0, 1, 0, 0, 2, 1, 1, 1])
    few = shared.few_of_each(labels, 3, 2)
    assert few.which[:2].tolist() == [[0, 2], [1, 5]] and int(few.which[2, 0]) == 4
    assert few.there.tolist() == [[True, True], [True, True], [True, False]]
    images = jnp.arange(8.0).reshape(8, 1, 1, 1)
    scale = transforms.Scale(jnp.zeros(1), jnp.ones(1))
    clean = transforms.Clean({}, images, labels, scale)
    batches = shared.others(clean, few, jnp.array(1), 3, whole=True)
    assert batches.images.shape == (2, 2, 1, 1, 1)
    held = batches.images[batches.weights > 0].ravel().tolist()
    assert sorted(held) == [0, 2, 4]
    batches = shared.others(clean, few, jnp.array(1), 3, whole=False)
    assert batches.images.ravel().tolist() == [4, 0]  # one of each, classes in turn
    rows = shared.lent(jax.random.key(0), few, 200)
    assert set(rows.tolist()) == {0, 1, 2, 4, 5}


@pytest.mark.parametrize("whole", [True, False])
def test_success_is_counted_on_images_that_no_search_saw(whole):
    labels = jnp.arange(60) % 3
    few = shared.few_of_each(labels, 3, 4)
    scale = transforms.Scale(jnp.zeros(1), jnp.ones(1))
    clean = transforms.Clean({}, jnp.zeros((60, 1, 1, 1)), labels, scale)
    # Batches of 5 take two images of each of two other classes, all four where they may.
    seen = 3 * (4 if whole else 2)
    weights = shared.fresh(clean, few, jnp.array(1), 5, whole=whole)
    expected = (labels != 1) & (jnp.arange(60) >= seen)
    assert weights.tolist() == expected.tolist()


@pytest.mark.parametrize("number", [12, 26])
def test_where_too_few_images_are_unseen_all_of_other_classes_count(number):
    """Counted on none, a class that every image is led to would pass for unreached."""
    labels = jnp.arange(number) % 2
    few = shared.few_of_each(labels, 2, 6)
    scale = transforms.Scale(jnp.zeros(1), jnp.ones(1))
    clean = transforms.Clean({}, jnp.zeros((number, 1, 1, 1)), labels, scale)
    weights = shared.fresh(clean, few, jnp.array(1), 64, whole=False)
    assert weights.tolist() == (labels == 0).tolist()


def test_an_image_that_weighs_nothing_changes_no_statistic():
    features = jax.random.normal(jax.random.key(0), (5, 2, 2, 3))
    spare = jnp.concatenate([features, 1e3 * jnp.ones((1, 2, 2, 3))])
    weights, all_of_them = jnp.array([1.0] * 5 + [0.0]), jnp.ones(5)
    mask = jax.random.uniform(jax.random.key(1), (2, 2, 3))
    np.testing.assert_allclose(
        shared.spread(spare, mask, weights),
        np.sum(mask * np.std(features, axis=0, ddof=1)) / np.sum(mask),
        rtol=1e-5,
    )
    logits = spare.reshape(6, -1)
    for statistic in (shared.cross_entropy, shared.success):
        np.testing.assert_allclose(
            statistic(logits, 2, weights),
            statistic(logits[:5], 2, all_of_them),
            rtol=1e-5,
        )


def test_a_feature_that_is_the_same_everywhere_has_no_slope():
    slope = jax.grad(lambda x: shared.spread(x, jnp.ones((1, 1, 1)), jnp.ones(3)))
    assert np.all(np.asarray(slope(jnp.zeros((3, 1, 1, 1)))) == 0)


def test_the_line_of_unicorn_is_a_success_of_nine_tenths_within_the_bounds():
    rule = unicorn.DETECTOR.rule
    names = ("inverted", "reached")
    for score, flagged in ((0.92, True), (0.88, False)):
        vectors = {name: np.array([0.2, score, 0.0]) for name in names}
        errors = {name: np.zeros(3) for name in names}
        judged = rule.scores(vectors, errors, rules.WITHIN)
        assert (judged.values.max() > rule.thresholds["within"]) == flagged
        assert not judged.reason and int(np.argmax(judged.values)) == 1


def test_lent_features_are_those_of_images_that_weigh_something():
    config = unicorn.Settings(trigger_steps=3)
    weights = jnp.array([[1.0, 0.0, 1.0, 1.0, 0.0]])
    orders = spaces.draw_orders(jax.random.key(0), weights, config)
    assert orders.nets.shape == (1, 5) and orders.trigger.shape == (1, 3, 5)
    drawn = np.concatenate([orders.trigger[0], orders.mask[0], orders.nets])
    for order in drawn:
        assert sorted(order[[0, 2, 3]]) == [0, 2, 3]  # a shuffle of those that count
    assert len({tuple(order) for order in drawn}) > 1


def test_work_is_linear_in_the_classes_and_all_of_the_images_only_as_released():
    assert shared.plan(10, 10, 256, whole=False) == (10, 1, 90)
    assert shared.plan(10, 10, 256, whole=True) == (10, 1, 90)
    assert shared.plan(43, 10, 256, whole=False) == (6, 1, 252)
    assert shared.plan(43, 10, 256, whole=True) == (10, 2, 210)
    assert shared.plan(1000, 10, 256, whole=False) == (1, 1, 256)
    for module in (feature_re, unicorn):
        few, many = (module.work(module.Settings(), k, 2000) for k in (100, 1000))
        assert many <= 10 * few * 256 / 198 * 1.01  # 2 images of 99 classes, 256 of 999


def test_the_work_of_feature_re_is_that_of_its_epochs():
    # 90 images; 5 passes in each of 100 warm epochs, 7 in each of 400.
    expected = 10 * (90 * (100 * 5 + 400 * 7) + 2 * 512) + 2 * 512
    assert feature_re.work(feature_re.Settings(), 10, 512) == expected
