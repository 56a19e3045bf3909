"""Searches towards classes against loops by hand, and two planted shortcuts."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors, perturb, types, universal
from ban_jax.detectors import ban, directed, evidence, targeted
from tests import tiny

CONFIG = directed.Settings(steps=2, pixel_epsilon=0.1, pixel_steps=3, pixel_images=6)
KEY = jax.random.key(0)


@jax.jit
def detect(variables, probe, config, classes=None):
    return directed.detect(
        tiny.NETWORK, variables, probe, key=KEY, config=config, classes=classes
    )


def of_others(logits, labels, target):
    """Mean probability of a class over images of others, and its error, in NumPy."""
    top = np.asarray(logits, float) - np.max(logits, axis=1, keepdims=True)
    share = np.exp(top[:, target]) / np.exp(top).sum(axis=1)
    share = share[np.asarray(labels) != target]
    return share.mean(), share.std() / len(share) ** 0.5


def by_hand(variables, probe, config):
    """Shares and errors `[K]` of noise and of pixels, a class after the other."""
    found = {"targeted": [], "universal": []}
    second = min(1, len(probe.images) - 1)
    images, labels = probe.images[0], probe.labels[0]
    fresh, others = probe.images[second], probe.labels[second]
    few = config.pixel_images

    @jax.jit
    def searched(target):
        wanted = jnp.full(len(images), target)
        noisy, _ = perturb.perturb_params(
            tiny.apply,
            variables,
            images,
            wanted,
            key=KEY,
            epsilon=config.epsilon,
            steps=config.steps,
            start=0.0,
            towards=True,
            weights=(labels != target).astype(jnp.float32),
        )
        change, _ = universal.perturb_images(
            lambda variables, x: tiny.apply(variables, x, "stored"),
            variables,
            images[:few],
            wanted[:few],
            epsilon=config.pixel_epsilon,
            steps=config.pixel_steps,
            weights=(labels[:few] != target).astype(jnp.float32),
        )
        moved = jnp.clip(fresh + change[None], 0, 1)
        return tiny.apply(noisy, fresh), tiny.apply(variables, moved, "stored")

    for target in range(tiny.CLASSES):
        for logits, said in zip(searched(target), found.values(), strict=True):
            said.append(of_others(logits, others, target))
    return {name: np.transpose(said) for name, said in found.items()}


@pytest.mark.parametrize("minibatches", [1, 2, 3])
def test_it_searches_on_the_first_minibatch_and_counts_on_the_second(minibatches):
    variables, probe = tiny.variables(), tiny.probe(minibatches)
    found = detect(variables, probe, CONFIG)
    for name, (share, error) in by_hand(variables, probe, CONFIG).items():
        np.testing.assert_allclose(found.vectors[name], share, atol=1e-5)
        np.testing.assert_allclose(found.errors[name], error, atol=1e-5)
        assert error.min() > 0 and np.ptp(share) > 0.01


def test_noise_is_that_of_mode_targeted_where_settings_are_the_same():
    variables, probe = tiny.variables(), tiny.probe(2)
    other = targeted.Settings(epsilon=CONFIG.epsilon, steps=2, radii=(1.0,))
    mode = jax.jit(functools.partial(targeted.detect, tiny.NETWORK))
    twin = mode(variables, probe, key=KEY, config=other)
    found = detect(variables, probe, CONFIG)
    for part in ("vectors", "errors"):
        np.testing.assert_allclose(
            getattr(found, part)["targeted"], getattr(twin, part)["targeted"], atol=1e-6
        )


def test_without_a_radius_noise_gives_what_batch_statistics_give():
    variables, probe = tiny.variables(), tiny.probe(1)
    none = dataclasses.replace(CONFIG, epsilon=0.0, pixel_epsilon=0.0)
    found = detect(variables, probe, none)
    plain = jax.jit(functools.partial(evidence.forward, tiny.NETWORK))(variables, probe)
    for name, without in (("targeted", "batch"), ("universal", "stored")):
        np.testing.assert_allclose(found.vectors[name], plain.vectors[without], 1e-5)
        np.testing.assert_allclose(found.errors[name], plain.errors[without], 1e-4)


def test_of_images_no_more_are_searched_on_than_asked_for():
    """The first is of class 0: alone it leads nobody there, and elsewhere it does."""
    variables, probe = tiny.variables(), tiny.probe(2)
    one = dataclasses.replace(CONFIG, pixel_images=1)
    found = detect(variables, probe, one).vectors["universal"]
    still = dataclasses.replace(one, pixel_epsilon=0.0)
    without = detect(variables, probe, still).vectors["universal"]
    moved = np.abs(np.asarray(found) - without) > 1e-6
    assert moved.tolist() == [False, True, True, True, True]
    other = types.Probe(probe.images.at[0, 1:].set(0.5), probe.labels)
    chex.assert_trees_all_equal(
        detect(variables, other, one).vectors["universal"], found
    )


def test_classes_that_are_not_asked_for_are_not_measured_and_cost_nothing():
    found = detect(tiny.variables(), tiny.probe(2), CONFIG, jnp.array([4, 0]))
    for name in directed.WORDS:
        known = np.isfinite(found.vectors[name])
        assert known.tolist() == [True, False, False, False, True]
        assert np.all(np.asarray(found.errors[name])[1:4] == 0)
    assert bool(found.is_finite)
    both, one = (directed.work(CONFIG, count, 256) for count in (2, 1))
    assert both == 2 * one == 2 * (2 * 2 * 128 + 2 * 3 * 6 + 2 * 128)
    # Fewer images than a minibatch, fewer than the search would take.
    assert directed.work(CONFIG, 1, 4) == 2 * 2 * 4 + 2 * 3 * 4 + 2 * 4


def test_a_class_that_every_image_has_does_not_count_and_is_finite():
    probe = tiny.probe(2)
    same = types.Probe(probe.images, jnp.full_like(probe.labels, 3))
    found = detect(tiny.variables(), same, CONFIG)
    for name in directed.WORDS:
        assert float(found.vectors[name][3]) == 0.0
        assert np.all(np.isfinite(found.vectors[name]))


def test_noise_reaches_the_class_of_a_planted_channel():
    """One channel is all but silent on clean images, and only class 3 listens to it."""
    variables = tiny.variables()
    params = variables["params"]
    params["bn"]["bias"] = params["bn"]["bias"].at[0].set(-2.0)
    params["bn"]["scale"] = params["bn"]["scale"].at[0].set(1.0)
    kernel = params["linear"]["kernel"] * 0.3
    params["linear"]["kernel"] = kernel.at[0].set(0.0).at[0, 3].set(60.0)
    found = detect(variables, tiny.probe(2), CONFIG).vectors
    assert int(np.argmax(found["targeted"])) == 3


def test_a_change_of_all_images_reaches_the_class_of_a_planted_colour():
    """Class 2 listens to how much redder than green pixels are; clean ones are grey."""
    variables = tiny.variables()
    params = variables["params"]
    params["linear"]["kernel"] = params["linear"]["kernel"] * 0.1
    stem = params["stem"]["kernel"].at[:, 0].set(jnp.array([8.0, -8.0, 0.0]))
    params["stem"]["kernel"] = stem
    params["bn"]["bias"] = params["bn"]["bias"].at[0].set(-1.0)
    kernel = params["linear"]["kernel"]
    params["linear"]["kernel"] = kernel.at[0].set(0.0).at[0, 2].set(40.0)
    grey = jnp.broadcast_to(tiny.probe(2).images[..., :1], tiny.probe(2).images.shape)
    probe = types.Probe(grey, tiny.probe(2).labels)
    found = detect(variables, probe, CONFIG).vectors["universal"]
    assert int(np.argmax(found)) == 2
    assert float(found[2]) > 0.9 and np.delete(np.asarray(found), 2).max() < 0.6
    small = dataclasses.replace(CONFIG, pixel_epsilon=0.001)
    assert float(detect(variables, probe, small).vectors["universal"][2]) < 0.6


def test_a_network_without_normalisation_is_searched_all_the_same():
    found = detect(tiny.variables(normalised=False), tiny.probe(2), CONFIG)
    assert bool(found.is_finite)
    for name in directed.WORDS:
        assert np.ptp(found.vectors[name]) > 0.01


def test_each_vector_can_be_had_without_the_other_and_costs_its_own():
    variables, probe = tiny.variables(), tiny.probe(2)
    both = detect(variables, probe, CONFIG)
    work = []
    for name in directed.VECTORS:
        alone = directed.detect(
            tiny.NETWORK, variables, probe, key=KEY, config=CONFIG, vectors=(name,)
        )
        assert set(alone.vectors) == set(alone.errors) == {name}
        np.testing.assert_allclose(alone.vectors[name], both.vectors[name], atol=1e-5)
        work.append(directed.work(CONFIG, 10, 512, (name,)))
    assert sum(work) == directed.work(CONFIG, 10, 512) and min(work) > 0


TOLD = ("steps", "num_images")
OVERFLOWING = {
    "ban": ban.Settings(steps=1, mask_steps=1, patch_steps=0),
    "targeted": targeted.Settings(steps=1),
    "directed": directed.Settings(steps=1, pixel_steps=1, pixel_images=8),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_what_overflows_under_the_change_alone_is_not_finite(name):
    """On counted images alone, of which no clean logit does."""
    variables, probe = tiny.variables(), tiny.probe(2)
    # Normalised among dark images, a bright one is far from all that is searched on.
    dark = probe.images.at[1].multiply(0.01)
    probe = probe._replace(images=dark.at[1, 0].set(1.0))

    def pooled(features):
        return jnp.max(jnp.abs(jnp.mean(features, axis=(1, 2))))

    most = max(
        float(pooled(tiny.features(variables, images, mode)[0]))
        for images in probe.images
        for mode in ("stored", "batch")
    )

    def head(variables, features, mode):
        logits, variables = tiny.head(variables, features, mode)
        too_large = jax.lax.stop_gradient(pooled(features)) > 1.001 * most
        return jnp.where(too_large, jnp.nan, logits), variables

    network = tiny.NETWORK._replace(head=head)
    assert bool(evidence.forward(network, variables, probe).is_finite)
    found = jax.jit(detectors.DETECTORS[name].detect, static_argnums=0)(
        network, variables, probe, key=KEY, config=OVERFLOWING[name]
    )
    assert not bool(found.is_finite)


@pytest.mark.parametrize(("minibatches", "few"), [(1, 5), (2, 5), (1, 8), (2, 20)])
def test_a_patch_counts_what_it_adds_on_images_it_was_not_searched_on(minibatches, few):
    shape = (minibatches, 12, 10, 10, 3)
    images = jax.random.uniform(jax.random.key(3), shape)
    images *= jnp.linspace(0.3, 1.0, 12).reshape(1, 12, 1, 1, 1)
    labels = jnp.arange(minibatches * 12).reshape(minibatches, 12) % tiny.CLASSES
    variables, classes = tiny.variables(), jnp.array([2])
    reached, found = jax.jit(directed.patches, static_argnums=0, static_argnames=TOLD)(
        tiny.NETWORK,
        variables,
        types.Probe(images, labels),
        classes,
        steps=2,
        num_images=few,
    )
    half = min(few, 6)  # of a single minibatch
    counted = slice(half, 2 * half) if minibatches == 1 else slice(few)
    fresh, others = images[-1, counted], labels[-1, counted]
    side = found.change.shape[0]
    row, column = found.corner
    change = np.zeros((10, 10, 3))
    change[row : row + side, column : column + side] = found.change
    stamped = np.clip(np.asarray(fresh) + change, 0, 1)
    before, after = (
        jax.nn.softmax(tiny.apply(variables, np.float32(x), "stored"))
        for x in (fresh, stamped)
    )
    gains = np.asarray(after - before)[np.asarray(others) != 2, 2]
    assert reached.share[2] == pytest.approx(gains.mean(), abs=1e-6)
    assert reached.error[2] == pytest.approx(gains.std() / len(gains) ** 0.5, abs=1e-6)
    assert np.isnan(reached.share[0]) and int(found.target) == 2
