"""Mode `ban` against a second implementation, loop by loop, and a planted shortcut."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import mask as masks
from ban_jax import perturb
from ban_jax.detectors import ban, evidence, rules
from ban_jax.types import Probe
from tests import tiny

CONFIG = ban.Settings(
    epsilon=0.4, radii=(0.5, 1.0), start=0.3, steps=2, restarts=2, mask_steps=3
)
NAMES = ("untargeted", "untargeted_masked")
KEY = jax.random.key(0)


@jax.jit
def detect(variables, probe, config):
    return ban.detect(tiny.NETWORK, variables, probe, key=KEY, config=config)


@jax.jit
def noisy(variables, images, labels, key, radius, config):
    return perturb.perturb_params(
        evidence.logits_of(tiny.NETWORK, "batch"),
        variables,
        images,
        labels,
        key=key,
        epsilon=radius,
        steps=config.steps,
        start=config.start,
    )[0]


@jax.jit
def features_of(variables, images):
    return tiny.features(variables, images, "batch")[0]


@jax.jit
def found_mask(variables, features, labels, key, config):
    return masks.optimize_mask(
        lambda variables, x: tiny.head(variables, x, "batch")[0],
        variables,
        features,
        labels,
        key=key,
        l1_weight=config.l1_weight,
        learning_rate=config.mask_learning_rate,
        steps=config.mask_steps,
    )[0]


def softmax(variables, features):
    return np.asarray(jax.nn.softmax(tiny.head(variables, features, "batch")[0]))


def by_hand(variables, probe, config):
    """Vectors and errors by loops: a radius, a restart, a class after the other."""
    count = len(probe.images)
    mask_key, noise_key = jax.random.split(KEY)
    clean = [features_of(variables, images) for images in probe.images]
    mask = found_mask(
        variables, jnp.concatenate(clean), probe.labels.ravel(), mask_key, config
    )
    through = {"untargeted": 1.0, "untargeted_masked": np.asarray(1 - mask)[None]}
    rises = {name: [] for name in NAMES}
    squares = {name: [] for name in NAMES}
    histograms = []
    for share in config.radii:
        for restart in range(config.restarts):
            search = restart % count
            model = noisy(
                variables,
                probe.images[search],
                probe.labels[search],
                jax.random.fold_in(noise_key, restart),
                share * config.epsilon,
                config,
            )
            counted = [t for t in range(count) if t != search]
            labels = np.concatenate([probe.labels[t] for t in counted])
            after = [features_of(model, probe.images[t]) for t in counted]
            for name, view in through.items():
                rise = np.concatenate(
                    [
                        softmax(model, moved * view)
                        - softmax(variables, clean[t] * view)
                        for t, moved in zip(counted, after, strict=True)
                    ]
                )
                of_others = [rise[labels != c, c] for c in range(tiny.CLASSES)]
                rises[name].append([each.mean() for each in of_others])
                squares[name].append([each.var() / len(each) for each in of_others])
            if share == config.radii[-1]:
                logits = tiny.head(model, jnp.concatenate(after), "batch")[0]
                answers = np.argmax(logits, axis=1)
                histograms.append(np.bincount(answers, minlength=tiny.CLASSES))
    shape = (len(config.radii), config.restarts, tiny.CLASSES)
    curves = {
        name: np.reshape(values, shape).mean(axis=1) for name, values in rises.items()
    }
    errors = {
        name: np.sqrt(np.reshape(values, shape).mean(axis=1)).mean(0)
        for name, values in squares.items()
    }
    histogram = np.mean(histograms, axis=0)
    return curves, errors, histogram / histogram.sum()


@functools.cache
def both():
    variables, probe = tiny.variables(), tiny.probe(3)
    found = jax.device_get(detect(variables, probe, CONFIG))
    return found, by_hand(variables, probe, CONFIG)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_the_rise_of_each_class_over_restarts_and_radii(name):
    found, (curves, _, _) = both()
    np.testing.assert_allclose(found.info["curves"][name], curves[name], atol=1e-5)
    np.testing.assert_allclose(found.vectors[name], curves[name].mean(0), atol=1e-5)
    assert np.abs(curves[name]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_the_images_and_not_the_distance_of_the_radii(name):
    found, (curves, errors, _) = both()
    np.testing.assert_allclose(found.errors[name], errors[name], atol=1e-5)
    assert errors[name].min() > 0
    # What the spread over radii and restarts together gave, once.
    spread = curves[name].std(axis=0) / len(CONFIG.radii) ** 0.5
    assert not np.allclose(errors[name], spread, atol=1e-3)


def test_the_histogram_is_that_under_the_strongest_noise():
    found, (_, _, histogram) = both()
    np.testing.assert_allclose(found.info["histogram"], histogram, atol=1e-6)


def test_the_error_of_one_restart_at_one_radius_is_not_zero():
    once = dataclasses.replace(CONFIG, radii=(1.0,), restarts=1)
    probe = Probe(*(leaf[:2] for leaf in tiny.probe(3)))
    found = detect(tiny.variables(), probe, once)
    assert all(float(jnp.min(found.errors[name])) > 0 for name in NAMES)


def test_without_noise_nothing_rises_by_a_single_bit():
    found = detect(
        tiny.variables(), tiny.probe(3), dataclasses.replace(CONFIG, epsilon=0.0)
    )
    for name in NAMES:
        np.testing.assert_array_equal(found.vectors[name], 0.0)
        np.testing.assert_array_equal(found.errors[name], 0.0)


def test_noise_gathers_mistakes_in_the_class_of_a_planted_shortcut():
    """One channel is all but silent on clean images, and only class 3 listens to it."""
    found = detect(planted(), tiny.probe(3), CONFIG).vectors["untargeted"]
    assert int(np.argmax(found)) == 3
    assert float(found[3]) > 3 * np.delete(np.asarray(found), 3).max()
    z, _ = rules.z_values(found, "untargeted", rules.WITHIN)
    assert z[3] > 4


def planted(channel=0, target=3):
    variables = tiny.variables()
    params = variables["params"]
    params["bn"]["bias"] = params["bn"]["bias"].at[channel].set(-2.0)
    params["bn"]["scale"] = params["bn"]["scale"].at[channel].set(1.0)
    kernel = params["linear"]["kernel"] * 0.3
    params["linear"]["kernel"] = kernel.at[channel].set(0.0).at[channel, target].set(60)
    return variables
