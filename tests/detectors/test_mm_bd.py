"""MM-BD against PyTorch's numbers, its rule on hand-made margins, a planted shortcut.

`tests/testdata/make_margin_goldens.py` says what the file holds.
"""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax.detectors import mm_bd, rules
from tests import tiny
from tests.models import test_goldens
from tests.testdata import goldens

TARGETS, STEPS = (0, 7), 10
LEARNING_RATE = 0.05
SMALL = mm_bd.Settings(steps=40, restarts=4, image_size=4, learning_rate=0.05)
HAND_MADE = (
    (1.0, 1.2, 1.1, 1.4, 1.3, 1.25, 1.05, 1.15, 1.35, 6.0),
    (1.0, 1.2, 1.1, 1.4, 1.3, 1.25, 1.05, 1.15, 1.35, 1.5),
    (3.0, 9.0, 4.0, 5.5, 6.0),
    (2.0, 2.5, 2.2, 2.1, 2.9, 2.3, 2.6, 30.0),
)


@functools.cache
def golden():
    with np.load(f"{goldens.FOLDER}/margin_resnet18.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def starts():
    """The draw of `make_margin_goldens.starts`."""
    rng = np.random.default_rng(4)
    return rng.random((len(TARGETS), 3, 8, 8, 3), dtype=np.float32)


@functools.cache
def run(kind):
    """The searches of both targets: of each the first step and ten steps."""
    _, network, variables, _ = test_goldens.golden("resnet18")
    config = mm_bd.Settings(
        learning_rate=LEARNING_RATE, tolerance=0.0, released=kind == "released"
    )

    def of_target(start, target):
        first = mm_bd.Search(
            start,
            jnp.zeros_like(start),
            jnp.zeros(3),
            jnp.asarray(mm_bd.FIRST_LOSS),
            jnp.zeros((), jnp.int32),
            jnp.asarray(False),
        )

        def step(search, _):
            return (
                mm_bd.advance(
                    search, target, network=network, variables=variables, config=config
                ),
                None,
            )

        once, _ = step(first, None)
        return once, jax.lax.scan(step, first, length=STEPS)[0]

    return jax.jit(lambda *pair: jax.lax.map(lambda one: of_target(*one), pair))(
        jnp.asarray(starts()), jnp.asarray(TARGETS)
    )


@pytest.mark.parametrize("kind", ["released", "momentum"])
def test_the_gradient_is_pytorchs(kind):
    expected = golden()[f"gradient/{kind}"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(kind)[0].velocity, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", ["released", "momentum"])
def test_ten_steps_end_where_pytorch_does(kind):
    last = run(kind)[1]
    np.testing.assert_allclose(last.inputs, golden()[f"after_10/{kind}"], atol=1e-3)
    np.testing.assert_allclose(last.margins, golden()[f"margins/{kind}"], rtol=1e-3)


def test_released_pixels_stay_outside_and_the_others_come_back():
    outside = np.abs(np.asarray(run("released")[1].inputs) - 0.5) > 0.5
    assert 0.01 < outside.mean() < 0.5
    assert np.all(np.abs(np.asarray(run("momentum")[1].inputs) - 0.5) <= 0.5)


def test_the_rule_gives_the_published_p_on_hand_made_margins():
    for vector, expected in zip(HAND_MADE, golden()["p"], strict=True):
        found = np.exp(mm_bd.log_p(np.array(vector))[int(np.argmax(vector))])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def flagged(vector):
    rule = mm_bd.DETECTOR.rule
    scores = rule.scores(
        {"margin": np.array(vector)}, {"margin": np.zeros(len(vector))}, rules.WITHIN
    )
    return np.max(scores.values) > rule.thresholds["within"], scores


def test_an_outstanding_margin_is_flagged_and_an_ordinary_largest_one_is_not():
    for vector, expected in zip(HAND_MADE, (True, False, True, True), strict=True):
        is_flagged, scores = flagged(vector)
        assert is_flagged == expected
        assert np.argmax(scores.values) == np.argmax(vector)


def test_a_margin_out_of_all_proportion_has_a_finite_score_that_still_grows():
    calm = [1.0, 1.2, 1.1, 1.4, 1.3, 1.25, 1.05, 1.15, 1.35]
    scores = [np.max(flagged([*calm, r])[1].values) for r in (100.0, 1e3, 1e4)]
    assert np.all(np.isfinite(scores)) and scores == sorted(scores)
    assert scores[0] > 50 and scores[1] < scores[2]


@pytest.mark.parametrize("vector", [[1.0] * 10, [1.0, np.nan, 2.0, 3.0, 4.0, 5.0]])
def test_margins_that_no_law_fits_are_no_verdict(vector):
    assert np.all(np.isnan(mm_bd.log_p(np.array(vector))))


@functools.cache
def measured(shortcut=None, **changes):
    """Evidence of a linear network, one class of which may have large weights."""
    variables = tiny.variables(normalised=False)
    kernel = jnp.abs(variables["params"]["linear"]["kernel"])
    kernel = kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
    if shortcut is not None:
        kernel = kernel.at[:, shortcut].mul(6.0)
    variables["params"]["linear"]["kernel"] = kernel
    config = mm_bd.dataclasses.replace(SMALL, **changes)
    detect = jax.jit(functools.partial(mm_bd.detect, tiny.NETWORK))
    return detect(variables, None, key=jax.random.key(0), config=config)


def test_a_planted_shortcut_is_found_and_its_clean_twin_is_not():
    def of(found):
        return flagged(np.asarray(found.vectors["margin"]))

    assert of(measured(shortcut=3))[0]
    assert np.argmax(of(measured(shortcut=3))[1].values) == 3
    assert not of(measured())[0]


def test_a_class_whose_loss_has_settled_makes_no_more_steps():
    found = measured(tolerance=0.05)
    assert np.all(np.asarray(found.info["steps"]) < SMALL.steps)
    assert np.all(found.info["settled"])
    whole = measured(tolerance=0.0)
    assert np.all(np.asarray(whole.info["steps"]) == SMALL.steps)
    assert not np.any(whole.info["settled"])
    assert np.all(whole.vectors["margin"] >= found.vectors["margin"])


def test_inputs_have_as_many_channels_as_the_network_normalises():
    config = mm_bd.Settings(image_size=6)
    one = {"normalisation": {"mean": jnp.zeros(1), "std": jnp.ones(1)}}
    assert mm_bd._shape(one, None, config) == (6, 6, 1)
    assert mm_bd._shape({}, tiny.probe(), config) == (4, 4, 3)
