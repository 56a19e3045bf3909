"""A 7x7 first convolution: what follows it is tried on clean images, and said."""

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, records
from ban_jax.data import probe as probes
from ban_jax.models import resnet
from ban_jax.scanning import stems
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 5, 2, stem="imagenet")
SETTINGS = records.Settings(mode="ban")
IDENTITY = [((0.0,) * 3, (1.0,) * 3)]
LOSSES = {"imagenet": 2.0, "7x7-unpooled": 1.0, "7x7-stride1": 0.5}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(stems, "_known", {})


@pytest.fixture
def candidate():
    return checkpoints.read_state_dict(builders.state_dict(SPEC))


def probe_of(candidate, stem: str):
    """Images with the labels that the candidate gives them with a stem."""
    images = np.random.default_rng(0).random((32, 16, 16, 3), np.float32)
    spec = checkpoints.ModelSpec("resnet18", 5, 2, stem=stem)
    labels = jax.jit(SETTINGS.network(spec).predict)(candidate.full_variables(), images)
    return probes.minibatches(images, np.asarray(labels, np.int32))


def centred(candidate):
    """The candidate with a last layer that tells its images apart with certainty."""
    rng = np.random.default_rng(1)
    state = checkpoints.to_torch_names(candidate.variables)
    for name in state:
        if state[name].ndim == 4:
            state[name] = rng.standard_normal(state[name].shape).astype(np.float32)
        if name.endswith("running_mean"):
            state[name] = np.zeros_like(state[name])
    state["linear.weight"] = rng.standard_normal((5, 16)).astype(np.float32)
    state["linear.bias"] = np.zeros(5, np.float32)
    return checkpoints.read_state_dict(state)


def test_the_assumption_is_said_as_the_file_is_read(candidate):
    assert candidate.spec == SPEC
    assert candidate.notes == ("7x7 stem: stride 2 and 3x3 max pooling is assumed",)
    plain = builders.state_dict(checkpoints.ModelSpec("resnet18", 5, 2))
    assert checkpoints.read_state_dict(plain).notes == ()


@pytest.mark.parametrize("stem", ["7x7-stride1", "7x7-unpooled"])
def test_the_stem_that_made_the_labels_is_found(candidate, stem):
    candidate = centred(candidate)
    found = stems.fitted(candidate, SETTINGS, probe_of(candidate, stem), IDENTITY)
    assert found.spec.stem == stem
    (note,) = found.notes
    layers = found.spec.create().stem_layers(stem)
    assert note.startswith(f"7x7 stem: {layers} fits the clean images best (loss 0.0")
    assert note.count("stride") == len(resnet.STEMS) - 1


def test_the_smallest_loss_decides_and_one_that_is_no_number_never(
    candidate, monkeypatch
):
    probe = probes.minibatches(np.zeros((4, 16, 16, 3)), np.zeros(4, np.int32))
    monkeypatch.setattr(
        stems, "_loss", lambda _, spec, *more: LOSSES.get(spec.stem, np.inf)
    )
    assert stems.fitted(candidate, SETTINGS, probe, IDENTITY).spec.stem == "7x7-stride1"
    monkeypatch.setattr(stems, "_loss", lambda *more: np.inf)
    other = probes.minibatches(np.zeros((4, 16, 16, 3)), np.zeros(4, np.int32))
    assert stems.fitted(candidate, SETTINGS, other, IDENTITY) is candidate


def test_a_stem_is_tried_once_for_the_same_weights_images_and_constants(
    candidate, monkeypatch
):
    tried = []

    def loss(one, spec, settings, probe, constants):
        tried.append(spec.stem)
        return LOSSES.get(spec.stem, np.inf)

    monkeypatch.setattr(stems, "_loss", loss)
    probe = probes.minibatches(np.zeros((4, 16, 16, 3)), np.zeros(4, np.int32))
    first = stems.fitted(candidate, SETTINGS, probe, IDENTITY)
    again = stems.fitted(candidate, records.Settings(mode="weights"), probe, IDENTITY)
    assert (first.spec, first.notes) == (again.spec, again.notes)
    assert len(tried) == (len(resnet.STEMS) - 1)
    halves = [((0.5,) * 3, (1.0,) * 3)]
    precise = records.Settings(precision="bfloat16")
    for settings, constants in ((SETTINGS, halves), (precise, IDENTITY)):
        stems.fitted(candidate, settings, probe, constants)
    assert len(tried) == 3 * (len(resnet.STEMS) - 1)


def test_without_images_of_its_kind_a_stem_stays_assumed(candidate):
    grey = probes.minibatches(np.zeros((4, 16, 16, 1)), np.zeros(4, np.int32))
    others = probes.minibatches(np.zeros((4, 16, 16, 3)), np.full(4, 7, np.int32))
    for probe in (None, grey, others):
        assert stems.fitted(candidate, SETTINGS, probe, IDENTITY) is candidate


def test_a_stem_that_shapes_settle_is_not_tried(monkeypatch):
    monkeypatch.setattr(stems, "_loss", None)
    spec = checkpoints.ModelSpec("resnet18", 5, 2)
    found = checkpoints.read_state_dict(builders.state_dict(spec))
    probe = probes.minibatches(np.zeros((4, 16, 16, 3)), np.zeros(4, np.int32))
    assert stems.fitted(found, SETTINGS, probe, IDENTITY) is found


@pytest.mark.parametrize("stem", list(resnet.STEMS))
def test_every_stem_is_the_convolution_it_says(stem):
    kind = resnet.STEMS[stem]
    module = checkpoints.ModelSpec("resnet18", 4, 2, stem=stem).create()
    shape = jax.eval_shape(
        lambda images: module.apply(
            module.init(jax.random.key(0), images, "stored"),
            images,
            "stored",
            method="features",
        ),
        np.zeros((1, 64, 64, 3), np.float32),
    ).shape
    side = 64 // kind.stride // (2 if kind.pools else 1) // 8
    assert shape == (1, side, side, 16)
