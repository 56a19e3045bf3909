"""Large images pass a few at a time, with the same answers and less memory."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import models, perturb
from ban_jax.detectors import evidence, slices
from ban_jax.models import cut
from tests import tiny

PLACES = 4 * 4
"""Of an image of `tiny.probe`."""
APART = tiny.NETWORK._replace(images_apart=True)


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of two of those images."""
    monkeypatch.setattr(slices, "PIXELS", 2 * PLACES)


@pytest.mark.parametrize(
    "images, side, size",
    [(128, 224, 16), (128, 32, 128), (128, 90, 128), (128, 96, 64), (3, 4096, 1)],
)
def test_slices_hold_as_many_images_as_their_size_allows(images, side, size):
    assert slices.length(images, side, side) == size


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_each_image_keeps_its_answer_and_its_place(small_slices, count):
    images = jax.random.uniform(jax.random.key(0), (count, 4, 4, 3))
    seen = []

    def function(images):
        seen.append(len(images))
        return jnp.sum(images, (1, 2))

    found = slices.in_slices(function, images)
    np.testing.assert_allclose(found, jnp.sum(images, (1, 2)), rtol=1e-6)
    assert max(seen) <= 2


@pytest.mark.parametrize("mode", ["stored", "batch"])
def test_searches_find_the_same_noise_in_slices(monkeypatch, mode):
    variables = tiny.variables()
    if mode == "batch":  # each image by itself, where there are no statistics
        variables = tiny.variables(normalised=False) | {"batch_stats": {}}
    probe = tiny.probe(1, 7)

    def gradient():
        def loss(params):
            apply_fn = evidence.logits_of(APART, mode)
            logits = apply_fn(variables | {"params": params}, probe.images[0])
            return perturb.cross_entropy(logits, probe.labels[0])

        return jax.value_and_grad(loss)(variables["params"])

    whole = gradient()
    monkeypatch.setattr(slices, "PIXELS", 2 * PLACES)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), gradient(), whole
    )


def test_images_that_share_statistics_stay_together(small_slices):
    variables, probe = tiny.variables(), tiny.probe()
    apply_fn = evidence.logits_of(APART, "batch")
    found = apply_fn(variables, probe.images[0])
    np.testing.assert_array_equal(found, tiny.apply(variables, probe.images[0]))
    apart = [tiny.apply(variables, part) for part in jnp.split(probe.images[0], 4)]
    assert not np.allclose(found, jnp.concatenate(apart), atol=1e-3)


def test_networks_that_do_not_promise_it_see_their_minibatch_whole(small_slices):
    """A module of the user's own may look at other images where nobody knows."""

    def features(variables, images, mode):
        found, variables = tiny.features(variables, images, mode)
        return found - jnp.mean(found, 0, keepdims=True), variables

    network = tiny.NETWORK._replace(features=features)
    variables, images = tiny.variables(), tiny.probe().images[0]
    for mode in ("stored", "batch"):
        whole, _ = network.logits(variables, images, mode)
        found = evidence.logits_of(network, mode)(variables, images)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    promised = evidence.logits_of(network._replace(images_apart=True), "stored")
    whole, _ = network.logits(variables, images, "stored")
    assert not np.allclose(promised(variables, images), whole, atol=1e-3)


def test_architectures_promise_it_and_adapted_modules_do_not():
    module = models.create("vit", num_classes=3, width=8)
    assert models.network(module).images_apart
    assert not cut.network(cut.Cut(print, print, print, "last", 3)).images_apart


def test_the_way_back_keeps_one_slice(monkeypatch):
    """Of eight, in a network of many layers."""
    weights = jnp.full((16, 3, 3), 0.3)

    def needed():
        def loss(weights, images):
            def network(images):
                for weight in weights:
                    images = jnp.tanh(images @ weight)
                return jnp.mean(images, (1, 2))

            return jnp.sum(slices.in_slices(network, images))

        images = jnp.zeros((8, 32, 32, 3))
        compiled = jax.jit(jax.grad(loss)).lower(weights, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = needed()
    monkeypatch.setattr(slices, "PIXELS", 32 * 32)
    assert needed() < whole / 4
