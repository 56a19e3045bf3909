"""Degenerate weights: inconclusive in every mode, before anything is computed."""

import jax
import numpy as np
import pytest

import ban_jax
from ban_jax import checkpoints, detectors, population, records, verdict
from ban_jax.scanning import chunks, fitness
from tests.scanning import files

SOUND = np.random.default_rng(0).normal(0, 0.1, (8, 5)).astype(np.float32)


def with_classifier(kernel):
    """A small network's variables with another last layer."""
    found = files.variables(0)
    shape = found["params"]["linear"]["kernel"].shape
    found["params"]["linear"]["kernel"] = np.broadcast_to(kernel, shape).copy()
    return found


def with_variance(value):
    found = files.variables(0)
    found["batch_stats"]["stem_norm"]["var"][0] = value
    return found


NUMBERED = np.arange(5, dtype=np.float32)
BROKEN = {
    "all zero": np.float32(0),
    "constant": np.float32(0.25),
    "the same for all classes": np.array([[0.1], [0.2], [0.3], [0.4]], np.float32),
    "denormal": NUMBERED * np.float32(1e-41),
    "next to nothing": NUMBERED * np.float32(1e-20),
}


@pytest.fixture(scope="module")
def degenerate(small_network):
    """Networks by what is wrong with them."""
    found = {name: with_classifier(kernel) for name, kernel in BROKEN.items()}
    return {**found, "a negative variance": with_variance(-1e-3)}


def classifier_of(variables):
    return variables["params"]["linear"]["kernel"]


def test_degenerate_weights_are_told_in_one_sentence(degenerate):
    for name, found in degenerate.items():
        reason = fitness.degenerate(found, classifier_of(found))
        if "variance" in name:
            assert reason == "variances are negative in batch_stats/stem_norm/var"
        else:
            assert reason.startswith("the last layer does not tell classes apart"), name
        assert "\n" not in reason


@pytest.mark.parametrize("kernel", [SOUND, jax.numpy.asarray(SOUND, "bfloat16")])
def test_sound_weights_are_fit(kernel):
    assert fitness.degenerate(files.variables(0), kernel) == ""


@pytest.mark.parametrize(
    ("tiny", "huge", "told"),
    [
        (1e-39, 1e5, "1 weights are below 1.2e-38"),
        (1e-39, 10.0, ""),  # as channels that died in training have
        (1e-37, 1e5, ""),
    ],
)
def test_weights_that_count_as_nothing_here_decide_nothing_elsewhere(tiny, huge, told):
    found = files.variables(0)
    found["params"]["stem_norm"]["scale"][:2] = tiny, huge
    found["batch_stats"]["stem_norm"]["var"][0] = 1e9
    reason = fitness.degenerate(found, SOUND)
    assert reason.startswith(told) and bool(reason) == bool(told)


def test_one_class_that_differs_is_enough():
    kernel = np.zeros((8, 5), np.float32)
    kernel[3, 2] = 0.5
    assert fitness.degenerate({}, kernel) == ""


@pytest.mark.parametrize("share, is_fit", [(0.5, False), (1.0, False), (1.5, True)])
def test_weights_must_differ_by_more_than_the_smallest_difference(share, is_fit):
    kernel = np.zeros((8, 5))
    kernel[0, 1] = share * fitness.SMALLEST
    assert (fitness.degenerate({}, kernel) == "") == is_fit


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_a_channel_that_is_always_the_same_has_no_variance_and_is_sound(value):
    found = with_variance(value)
    assert fitness.degenerate(found, classifier_of(found)) == ""


def test_a_weight_below_zero_is_no_negative_variance():
    found = {"params": {"variance": -SOUND, "bias": -SOUND}, "stats": {"mean": -SOUND}}
    assert fitness.degenerate(found, SOUND) == ""


@pytest.mark.parametrize("mode", list(detectors.DETECTORS))
def test_a_file_of_degenerate_weights_is_refused_in_every_mode(
    mode, degenerate, tmp_path
):
    job = records.Job(
        records.Settings(mode=mode, config=detectors.DETECTORS[mode].settings()), None
    )
    for name, found in {**degenerate, "sound": files.variables(0)}.items():
        path = files.save(tmp_path, f"{name}.safetensors", found)
        candidate = checkpoints.read(path)
        reason = chunks.unfit(candidate, job)
        if name == "sound":
            assert reason == ""
            continue
        assert reason.startswith(f"{path}: ")
        judged = verdict.Judge(profiles=None)(job.failure(path, reason, candidate))
        assert judged["verdict"] == "inconclusive" and judged["reason"] == reason


@pytest.mark.parametrize("mode", list(detectors.DETECTORS))
def test_a_model_in_memory_is_inconclusive_and_nothing_is_computed(
    mode, degenerate, monkeypatch
):
    def run(*arguments):
        raise AssertionError("nothing is to be computed")

    monkeypatch.setattr(population, "run", run)
    module, (images, labels) = files.SPEC.create(), files.images(128)
    for name, found in degenerate.items():
        judged = ban_jax.judge(
            module, found, images, labels, detector=mode, profiles=None
        )
        assert judged["verdict"] == "inconclusive", name
        assert judged["reason"] == fitness.degenerate(found, classifier_of(found))
        assert judged["key"] is None and judged["vectors"] == {}
        assert judged["sha256"] == checkpoints.weights_hash(found)
        assert judged["num_classes"] == 5 and judged["score"] is None


def test_the_evidence_of_degenerate_weights_is_a_line_that_says_so(degenerate):
    module, (images, labels) = files.SPEC.create(), files.images(128)
    found = ban_jax.evidence(module, degenerate["constant"], images, labels)
    assert "tell classes apart" in found["error"] and found["vectors"] == {}


def test_a_sound_model_in_memory_is_measured():
    module, (images, labels) = files.SPEC.create(), files.images(128)
    found = ban_jax.evidence(
        module, files.variables(0), images, labels, detector="weights"
    )
    assert found["error"] is None and set(found["vectors"]) == {"last_layer"}


@pytest.mark.parametrize(
    "num_classes, seen, count, fits",
    [
        (1000, 10, 500, False),  # ImageNet's network, CIFAR-10's images
        (200, 10, 128, False),
        (1000, 16, 16, True),  # so few images show no more
        (43, 10, 500, True),  # a choice of the classes
        (1000, 300, 500, True),
        (10, 10, 100, True),
    ],
)
def test_images_of_few_of_many_classes_are_another_data_sets(
    num_classes, seen, count, fits
):
    reason = fitness.other_classes(num_classes, np.arange(count) % seen)
    assert (reason == "") == fits
    if not fits:
        assert f"tells {num_classes} classes apart" in reason
        assert f"show {seen} of them" in reason
