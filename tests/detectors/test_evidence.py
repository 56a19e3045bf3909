"""Class vectors against numbers derived by hand, and what every detector promises."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import config, detectors, perturb, types
from ban_jax.detectors import evidence
from tests import tiny

CONFIG = config.BanConfig(steps=2, mask_steps=3, radii=(0.5, 1.0))


def measure(mode, variables=None, probe=None, config=CONFIG):
    detect = detectors.DETECTORS[mode].detect
    probe = probe or tiny.probe()
    return jax.jit(
        lambda variables, probe: detect(
            tiny.NETWORK, variables, probe, key=jax.random.key(0), config=config
        )
    )(variables or tiny.variables(), probe)


def test_images_of_the_class_itself_do_not_count():
    values = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    mean, error = evidence.share_of_others(values, jnp.array([0, 1, 1]))
    # Class 0: images 1 and 2 give (0.2 + 0.4) / 2; class 1: image 0 gives 0.1.
    np.testing.assert_allclose(mean, [0.3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(error, [0.1 / 2**0.5, 0.0], atol=1e-6)


def test_a_class_that_every_image_has_counts_nothing():
    mean, _ = evidence.share_of_others(jnp.array([[0.9, 0.1]]), jnp.array([0]))
    np.testing.assert_allclose(mean, [0.0, 0.1], rtol=1e-6)


def test_the_histogram_is_the_share_of_each_prediction():
    logits = jnp.array([[[0.0, 1.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 1.0]]])
    np.testing.assert_allclose(evidence.histogram(logits), [0.25, 0.75])


def test_the_last_layer_is_the_mean_weight_per_class():
    variables = tiny.variables()
    np.testing.assert_allclose(
        evidence.last_layer(tiny.NETWORK, variables),
        np.mean(variables["params"]["linear"]["kernel"], axis=0),
        rtol=1e-6,
    )


@pytest.mark.parametrize("mode", ["targeted", "ban"])
def test_evidence_has_a_finite_vector_over_the_classes_and_histograms_that_sum_to_one(
    mode,
):
    found = measure(mode)
    assert set(found.vectors) == set(found.errors)
    assert {"stored", "batch", "batch_minus_stored", "last_layer"} < set(found.vectors)
    for vector in found.vectors.values():
        assert vector.shape == (tiny.CLASSES,) and bool(jnp.all(jnp.isfinite(vector)))
    for curve in found.curves.values():
        assert curve.shape == (2, tiny.CLASSES)
    for histogram in (found.histogram, found.histogram_without_noise):
        assert float(jnp.sum(histogram)) == pytest.approx(1.0, abs=1e-5)
    assert bool(found.is_finite)


@pytest.mark.parametrize("mode", ["targeted", "ban"])
def test_a_nan_weight_is_a_flag(mode):
    variables = tiny.variables()
    variables["params"]["linear"]["kernel"] *= jnp.nan
    assert not bool(measure(mode, variables).is_finite)


def test_noise_towards_a_class_gives_it_more_probability_than_it_had():
    found = measure("targeted")
    assert np.all(found.vectors["targeted"] > found.vectors["batch"])
    assert np.all(found.curves["targeted"][1] > found.curves["targeted"][0])


def test_weaker_noise_is_counted_on_one_minibatch_and_the_strongest_on_all_others():
    probe = tiny.probe(minibatches=4)
    curve = measure("targeted", probe=probe).curves["targeted"]

    def only(counted):
        """The curve where noise found on the first minibatch is counted on one other."""
        chosen = jnp.array([0, counted])
        fewer = types.Probe(probe.images[chosen], probe.labels[chosen])
        return measure("targeted", probe=fewer).curves["targeted"]

    each = [only(counted) for counted in (1, 2, 3)]
    np.testing.assert_allclose(curve[0], each[0][0], rtol=1e-5)
    others = [np.sum(np.asarray(probe.labels[1:]) != c, axis=1) for c in range(5)]
    expected = np.average([one[1] for one in each], axis=0, weights=np.array(others).T)
    np.testing.assert_allclose(curve[1], expected, rtol=1e-5)


def test_a_class_with_a_planted_shortcut_is_the_easiest_to_reach():
    """One channel is all but silent on clean images, and only class 3 listens to it."""
    variables = tiny.variables()
    params = variables["params"]
    params["bn"]["bias"] = params["bn"]["bias"].at[0].set(-2.0)
    params["bn"]["scale"] = params["bn"]["scale"].at[0].set(1.0)
    kernel = params["linear"]["kernel"] * 0.3
    params["linear"]["kernel"] = kernel.at[0].set(0.0).at[0, 3].set(60.0)
    found = measure("targeted", variables).vectors
    rise = np.asarray(found["targeted"] - found["batch"])
    assert int(np.argmax(rise)) == 3 and rise[3] > 3 * np.delete(rise, 3).max()


def test_the_error_of_mode_ban_is_that_of_its_images_not_the_distance_of_its_radii():
    one = dataclasses.replace(CONFIG, radii=(1.0,))
    probe = tiny.probe(minibatches=2)
    alone = measure("ban", probe=probe, config=one)
    assert float(jnp.min(alone.errors["untargeted"])) > 0.0  # one restart, one radius
    # Of two equal radii the spread is zero, and the error is that of one.
    twice = measure(
        "ban", probe=probe, config=dataclasses.replace(one, radii=(1.0, 1.0))
    )
    np.testing.assert_allclose(
        twice.errors["untargeted"], alone.errors["untargeted"], rtol=1e-4
    )
    # By hand: the spread of the rise of each image of another class, over their root.
    noise_key = jax.random.split(jax.random.key(0))[1]
    noisy, _ = perturb.perturb_params(
        evidence.logits_of(tiny.NETWORK, "batch"),
        tiny.variables(),
        probe.images[0],
        probe.labels[0],
        key=jax.random.fold_in(noise_key, 0),
        epsilon=one.epsilon,
        steps=one.steps,
        start=one.start,
    )
    rise = jax.nn.softmax(tiny.apply(noisy, probe.images[1])) - jax.nn.softmax(
        tiny.apply(tiny.variables(), probe.images[1])
    )
    for target in range(tiny.CLASSES):
        others = np.asarray(rise[probe.labels[1] != target, target])
        assert float(alone.vectors["untargeted"][target]) == pytest.approx(
            others.mean(), abs=1e-5
        )
        assert float(alone.errors["untargeted"][target]) == pytest.approx(
            others.std() / len(others) ** 0.5, abs=1e-5
        )


def test_the_probes_labels_decide_accuracy():
    probe = tiny.probe()
    logits = tiny.apply(tiny.variables(), probe.images.reshape(-1, 4, 4, 3), "stored")
    labels = jnp.argmax(logits, axis=-1).reshape(probe.labels.shape)
    right = measure("targeted", probe=probe._replace(labels=labels))
    wrong = measure(
        "targeted", probe=probe._replace(labels=(labels + 1) % tiny.CLASSES)
    )
    assert float(right.clean_accuracy) == 1.0 and float(wrong.clean_accuracy) == 0.0


def test_weights_mode_needs_no_images():
    found = detectors.DETECTORS["weights"].detect(tiny.NETWORK, tiny.variables())
    assert set(found.vectors) == {"last_layer"}
    assert np.isnan(found.clean_accuracy)
