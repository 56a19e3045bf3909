"""BTI-DBF and BTI-DBF* find a planted backdoor and clear its twin; their rule by hand."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors
from ban_jax.detectors import bti_dbf, bti_dbf_star, decoupling, rules, transforms
from ban_jax.models import unet
from ban_jax.types import Probe
from tests.detectors import planted

TINY = {
    "width": 4,
    "pretrain_epochs": 10,
    "mask_epochs": 10,
    "generator_epochs": 10,
    "batches": 10,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "mask_learning_rate": 0.1,
    "crop": 0,
    "flip": False,
}
NAMES = ("bti_dbf", "bti_dbf_star")


@pytest.fixture(autouse=True)
def one_halving(monkeypatch):
    """A U-Net of one halving finds it too, and compiles in half the time."""
    shallow = functools.partial(unet.levels_of, most=1)
    monkeypatch.setattr(unet, "levels_of", shallow)


@functools.partial(jax.jit, static_argnums=0)
def detect(name, variables, probe, config):
    return detectors.DETECTORS[name].detect(
        planted.NETWORK,
        variables,
        probe,
        key=jax.random.key(0),
        config=config,
    )


@functools.cache
def found(name, released, backdoored):
    config = detectors.DETECTORS[name].settings(**TINY, released=released)
    variables = planted.variables(backdoored=backdoored)
    return jax.device_get(detect(name, variables, planted.probe(), config))


def scores(name, evidence):
    rule = detectors.DETECTORS[name].rule
    return rule.scores(evidence.vectors, evidence.errors, rules.WITHIN)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_backdoor_is_found_and_its_clean_twin_is_not(name, released):
    limit = detectors.DETECTORS[name].rule.thresholds["within"]
    bad = found(name, released, True)
    judged = scores(name, bad)
    assert bool(bad.is_finite) and not judged.reason
    assert np.argmax(judged.values) == planted.TARGET
    assert np.max(judged.values) > limit
    clean = found(name, released, False)
    judged = scores(name, clean)
    assert bool(clean.is_finite) and not judged.reason
    assert np.max(judged.values) < 0.5 < limit
    assert float(clean.clean_accuracy) == 1.0


def test_a_class_gets_no_vote_of_its_own_images_but_in_the_released_code():
    predictions, labels = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 2])
    share, error = bti_dbf.shares(predictions, labels, 3, False)
    # Class 0: one of the three images of others; class 1: one of the two; class 2: none.
    np.testing.assert_allclose(share, [1 / 3, 1 / 2, 0], atol=1e-6)
    np.testing.assert_allclose(error, [np.sqrt(2 / 27), np.sqrt(1 / 8), 0], atol=1e-6)
    share, _ = bti_dbf.shares(predictions, labels, 3, True)
    np.testing.assert_allclose(share, [1 / 2, 1 / 2, 0], atol=1e-6)


def judged(share, change):
    vectors = {"share": np.array(share), "change": np.array(change)}
    errors = {name: np.zeros_like(vector) for name, vector in vectors.items()}
    return bti_dbf.RULE.scores(vectors, errors, rules.WITHIN)


def test_the_score_is_the_largest_share_whatever_the_change():
    found = judged([0.05, 0.91, 0.0], [0.9, 1.0, 1.4])
    assert found.values.max() == 0.91 > bti_dbf.RULE.thresholds["within"]
    assert not found.reason and not found.are_z


def test_images_changed_far_beyond_the_bound_allow_no_verdict():
    found = judged([0.0, 1.0, 0.0], [2.0, 2.5, 2.0])
    assert "2.2 times its bound" in found.reason


def test_classes_without_an_image_say_nothing_of_the_change():
    variables, config = planted.variables(backdoored=False), bti_dbf.Settings(**TINY)
    whole = planted.probe()
    few = Probe(whole.images, jnp.where(whole.labels == 3, 0, whole.labels))
    evidence = jax.device_get(detect("bti_dbf", variables, few, config))
    change = evidence.vectors["change"]
    assert np.flatnonzero(np.isnan(change)).tolist() == [3]
    assert bool(evidence.is_finite) and np.all(np.isfinite(evidence.errors["change"]))
    for picture in evidence.images.values():
        assert [bool(np.all(one == 0.5)) for one in picture] == [False] * 3 + [True]
    found = judged([0.0, 1.0, 0.0], [np.nan, 2.5, np.nan])
    assert "2.5 times its bound" in found.reason
    assert not judged([0.0, 1.0, 0.0], [np.nan] * 3).reason


def test_against_other_models_the_share_alone_counts():
    vectors = {"share": np.array([0.1, 0.3]), "change": np.array([1.0, 1.0])}
    errors = {name: np.zeros(2) for name in vectors}
    centre = {"share": np.zeros(2), "change": np.full(2, -50.0)}
    crowd = rules.Baseline("trusted", centre, {"share": 0.1, "change": 0.1}, 9)
    found = bti_dbf.RULE.scores(vectors, errors, crowd)
    np.testing.assert_allclose(found.values, [1.0, 3.0])


def test_a_loss_that_is_not_finite_is_told():
    config = bti_dbf.Settings(**TINY)
    wild = dataclasses.replace(config, learning_rate=1e30)
    variables = planted.variables(backdoored=True)
    assert not bool(detect("bti_dbf", variables, planted.probe(), wild).is_finite)


def test_drifting_statistics_are_those_of_later_stages_in_the_released_code_alone():
    seen = []

    def features(variables, images, mode):
        seen.append(mode)
        return planted.features(variables, images, mode)

    network = planted.NETWORK._replace(features=features)
    clean = transforms.clean_of(planted.variables(backdoored=False), planted.probe())
    for released in (False, True):
        config = bti_dbf.Settings(**TINY, released=released)
        jax.eval_shape(
            lambda key, config=config: decoupling.decouple(network, clean, key, config),
            jax.random.key(0),
        )
        assert ("update" in seen) == released


def test_the_work_is_that_of_the_documented_budget():
    # 80 epochs of 20 batches, three passes of the candidate and three of the U-Net each.
    expected = 80 * 20 * 128 * 6 + 512 + 3 * 512
    assert bti_dbf.work(bti_dbf.Settings(), 10, 512) == expected
    released = bti_dbf_star.Settings(released=True)
    assert bti_dbf.work(released, 10, 512) == expected - 512 + 20 * 20 * 128


def test_parts_are_as_large_as_they_may_be_and_keep_the_order():
    sizes = []

    def double(images):
        sizes.append(len(images))
        return 2 * images, -images[:, 0]

    images = jnp.arange(24.0).reshape(12, 2)
    twice, first = transforms.in_parts(double, images, size=5)
    assert set(sizes) == {4}
    np.testing.assert_array_equal(twice, 2 * images)
    np.testing.assert_array_equal(first, -images[:, 0])


def test_a_prime_number_of_images_is_no_reason_for_small_parts():
    sizes = []

    def double(images):
        sizes.append(len(images))
        return 2 * images, images - jnp.min(images, axis=0, keepdims=True)

    images = jnp.arange(46.0).reshape(23, 2)
    twice, above = transforms.in_parts(double, images, size=10)
    assert set(sizes) == {8}
    np.testing.assert_array_equal(twice, 2 * images)
    parts = [images[start : start + 8] for start in (0, 8, 16)]
    np.testing.assert_array_equal(
        above, np.concatenate([part - part[:1] for part in parts])
    )


def test_the_next_class_lends_an_image_to_one_that_has_none():
    labels = jnp.array([3, 1, 3, 4, 1])
    assert transforms.first_of_each(labels, 5).tolist() == [1, 1, 0, 0, 3]
    assert transforms.first_of_each(labels, 6).tolist() == [1, 1, 0, 0, 3, 1]


def test_scaled_images_come_back_as_they_were():
    constants = {"mean": jnp.array([0.1, 0.2, 0.3]), "std": jnp.array([0.5, 0.25, 0.2])}
    clean = transforms.clean_of({"normalisation": constants}, planted.probe())
    images = planted.probe().images.reshape(-1, 8, 8, 3)
    np.testing.assert_allclose(clean.scale.pixels(clean.images), images, atol=1e-6)
    assert float(jnp.abs(clean.images - images).max()) > 1
    np.testing.assert_array_equal(clean.variables["normalisation"]["std"], 1)
