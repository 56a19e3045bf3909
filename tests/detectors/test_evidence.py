"""Class vectors against numbers derived by hand. What every detector promises:
`test_contract.py`; mode `ban`: `test_ban.py`."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors, types
from ban_jax.detectors import ban, evidence, targeted
from tests import tiny

CONFIGS = {
    "targeted": targeted.Settings(steps=2),
    "ban": ban.Settings(steps=2, mask_steps=3, radii=(0.5, 1.0)),
}


@functools.partial(jax.jit, static_argnums=0)
def compiled(mode, variables, probe):
    return detectors.DETECTORS[mode].detect(
        tiny.NETWORK, variables, probe, key=jax.random.key(0), config=CONFIGS[mode]
    )


def measure(mode="targeted", variables=None, probe=None):
    return compiled(mode, variables or tiny.variables(), probe or tiny.probe())


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


@pytest.mark.parametrize("mode", CONFIGS)
def test_curves_have_a_row_per_radius_and_histograms_sum_to_one(mode):
    found = measure(mode)
    assert {"stored", "batch", "batch_minus_stored", "last_layer"} < set(found.vectors)
    for curve in found.info["curves"].values():
        assert curve.shape == (2, tiny.CLASSES)
    for name in ("histogram", "histogram_without_noise"):
        assert float(jnp.sum(found.info[name])) == pytest.approx(1.0, abs=1e-5)


def test_batch_minus_stored_is_the_difference_of_the_two():
    found = measure().vectors
    np.testing.assert_allclose(
        found["batch_minus_stored"], found["batch"] - found["stored"], atol=1e-6
    )


def test_noise_towards_a_class_gives_it_more_probability_than_it_had():
    found = measure()
    assert np.all(found.vectors["targeted"] > found.vectors["batch"])
    assert np.all(
        found.info["curves"]["targeted"][1] > found.info["curves"]["targeted"][0]
    )


def test_weaker_noise_is_counted_on_one_minibatch_and_the_strongest_on_all_others():
    probe = tiny.probe(minibatches=4)
    curve = measure(probe=probe).info["curves"]["targeted"]

    def only(counted):
        """The curve where noise found on the first minibatch is counted on one other."""
        chosen = jnp.array([0, counted])
        fewer = types.Probe(probe.images[chosen], probe.labels[chosen])
        return measure(probe=fewer).info["curves"]["targeted"]

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
    found = measure(variables=variables).vectors
    rise = np.asarray(found["targeted"] - found["batch"])
    assert int(np.argmax(rise)) == 3 and rise[3] > 3 * np.delete(rise, 3).max()


def test_the_probes_labels_decide_accuracy():
    probe = tiny.probe()
    logits = tiny.apply(tiny.variables(), probe.images.reshape(-1, 4, 4, 3), "stored")
    labels = jnp.argmax(logits, axis=-1).reshape(probe.labels.shape)
    right = measure(probe=probe._replace(labels=labels))
    wrong = measure(
        "targeted", probe=probe._replace(labels=(labels + 1) % tiny.CLASSES)
    )
    assert float(right.clean_accuracy) == 1.0 and float(wrong.clean_accuracy) == 0.0


def test_weights_mode_needs_no_images():
    found = detectors.DETECTORS["weights"].detect(tiny.NETWORK, tiny.variables())
    assert set(found.vectors) == {"last_layer"}
    assert np.isnan(found.clean_accuracy)
