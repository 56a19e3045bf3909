"""The public door: models in memory and files on disk, judged and repaired."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import ban_jax
from ban_jax import detectors, verdict
from ban_jax.detectors import witnesses
from ban_jax.records import record
from ban_jax.training import trainer

FILE = f"{ban_jax.zoo.BUNDLED}/resnet18_w4_badnets_t1_s0.safetensors"
CLASSES = 5
QUICK = {"steps": 1, "mask_steps": 1, "patch_steps": 0}
VECTORS = set(detectors.DETECTORS["ban"].vectors) - {"patch"}
CLOSER = set(detectors.DETECTORS["directed"].vectors)


class Plain(nn.Module):
    """A user's own network, which knows nothing of this package."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class PlainNNX(nnx.Module):
    """The same kind of network for NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.linear = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.linear(nnx.relu(self.bn(self.conv(x))).mean((1, 2)))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.random((256, 6, 6, 1), np.float32), np.arange(256) % CLASSES


@pytest.fixture(scope="module")
def clean():
    return ban_jax.data.load("digits", num=512)


@pytest.fixture(scope="module")
def candidate():
    return ban_jax.checkpoints.read(FILE)


def test_all_that_is_promised_is_there():
    for name in ban_jax.__all__:
        assert getattr(ban_jax, name) is not None, name
    assert set(ban_jax.__all__) <= set(dir(ban_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ban_jax.nothing  # noqa: B018


def test_importing_loads_no_jax():
    code = "import sys, ban_jax; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_users_own_module_is_judged(kind, images):
    if kind == "linen":
        model = Plain()
        variables = model.init(jax.random.key(0), images[0][:1])
    else:
        model, variables = PlainNNX(nnx.Rngs(0)), None
    found = ban_jax.judge(
        model, variables, *images, normalisation=((0.5,), (0.25,)), steps=1
    )
    assert found["verdict"] == "inconclusive" and "near chance" in found["reason"]
    assert found["architecture"] == type(model).__name__
    assert found["normalisation"] == {
        "mean": [0.5],
        "std": [0.25],
        "source": "argument",
    }
    assert len(found["vectors"]["untargeted"]) == CLASSES and found["is_finite"]
    assert found["config"]["steps"] == 1
    # No closer look changes what is inconclusive.
    assert not CLOSER & set(found["vectors"])


def test_evidence_has_all_vectors_and_no_verdict(images):
    variables = Plain().init(jax.random.key(0), images[0][:1])
    found = ban_jax.evidence(Plain(), variables, *images, seed=3, **QUICK)
    mode = detectors.DETECTORS["ban"]
    assert set(found["vectors"]) == VECTORS == set(found["errors"])
    for name in CLOSER:
        assert len(found["vectors"][name]) == CLASSES
        assert None not in found["vectors"][name]
    assert set(found) == set(record.Evidence.__annotations__)
    assert record.parse(found) == found
    further = detectors.DETECTORS["directed"]
    work = sum(
        one.work(settings, CLASSES, 256)
        for one, settings in (
            (mode, mode.settings(**QUICK)),
            (further, further.settings()),
        )
    )
    assert found["forward_equivalents"] == work
    assert found["config"]["directed"]["steps"] == further.settings().steps
    weights = ban_jax.evidence(Plain(), variables, *images, detector="weights")
    assert set(weights["vectors"]) == {"last_layer"}


def test_a_model_in_memory_is_looked_at_closer_where_the_judge_asks(
    images, monkeypatch
):
    variables = Plain().init(jax.random.key(0), images[0][:1])
    told = {"profiles": None, **QUICK}
    question = witnesses.Question((1, 3), ("targeted", "universal"))
    monkeypatch.setattr(verdict.Judge, "asks", lambda self, line: question)
    some = ban_jax.judge(Plain(), variables, *images, **told)
    assert set(some["vectors"]) == VECTORS
    for name in CLOSER:
        said = some["vectors"][name]
        assert [i for i, one in enumerate(said) if one is not None] == [1, 3]
    monkeypatch.setattr(verdict.Judge, "asks", lambda self, line: None)
    none = ban_jax.judge(Plain(), variables, *images, **told)
    assert not CLOSER & set(none["vectors"])
    further = detectors.DETECTORS["directed"]
    more = some["forward_equivalents"] - none["forward_equivalents"]
    assert more == further.work(further.settings(), 2, 256)
    for name in none["vectors"]:
        assert some["vectors"][name] == none["vectors"][name]


def test_the_same_weights_get_the_same_verdict_as_module_state_dict_and_file(
    candidate, clean, monkeypatch
):
    # A closer look costs a minute to compile; `tests.scanning.test_closer` compares it.
    monkeypatch.setattr(verdict.Judge, "asks", lambda self, line: None)
    known = {"profiles": None, "mask_steps": 1}
    module = ban_jax.judge(
        candidate.spec.create(),
        candidate.full_variables(),
        clean.images,
        clean.labels,
        **known,
    )
    assert module["target"] == 1 and module["baseline"] == "within"
    state = ban_jax.checkpoints.to_torch_names(candidate.variables)
    loaded = ban_jax.judge(
        state,
        None,
        clean.images,
        clean.labels,
        normalisation=candidate.normalisation,
        **known,
    )
    (scanned,) = ban_jax.scan(
        FILE, clean.images, clean.labels, dataset="digits", **known
    )
    for other in (loaded, scanned):
        assert other["sha256"] == module["sha256"]
        assert other["verdict"] == module["verdict"]
        assert other["target"] == module["target"]
        assert other["score"] == pytest.approx(module["score"], abs=1e-3)
        for name in ("untargeted", "batch_minus_stored", "last_layer"):
            assert other["vectors"][name] == pytest.approx(
                module["vectors"][name], abs=1e-4
            )
    assert scanned["num_probe"] == module["num_probe"] == 512


def test_scanning_a_folder_yields_judged_records_and_uses_known_ones(clean):
    folder = ban_jax.zoo.BUNDLED
    first = list(ban_jax.scan(folder, detector="weights"))
    assert len(first) == 12 and all(record["verdict"] for record in first)
    crowd = list(ban_jax.scan(folder, detector="weights", baseline="population"))
    assert {record["baseline"] for record in crowd} == {"within"}  # six of a kind
    again = list(ban_jax.scan(folder, detector="weights", known=first))
    assert [r["seconds"] for r in again] == [r["seconds"] for r in first]
    with pytest.raises(ValueError, match="needs clean images"):
        next(ban_jax.scan(folder, detector="targeted"))


def test_unknown_names_list_the_known_ones(images):
    variables = Plain().init(jax.random.key(0), images[0][:1])
    with pytest.raises(ValueError, match="no setting radius; known: .*epsilon"):
        ban_jax.judge(Plain(), variables, *images, radius=1.0)
    with pytest.raises(ValueError, match="unknown detector 'x'; known: ban, "):
        ban_jax.judge(Plain(), variables, *images, detector="x")


@pytest.mark.parametrize("change", [lambda y: y[:-1], lambda y: y[:, None], float])
def test_labels_that_are_not_one_integer_per_image_are_refused(images, change):
    pixels, labels = map(np.asarray, images)
    wrong = labels.astype(float) if change is float else change(labels)
    with pytest.raises(ValueError, match=f"labels must be {len(labels)} integers, one"):
        list(ban_jax.scan(["nowhere"], pixels, wrong))


def test_a_state_dict_is_repaired_under_its_own_names(candidate, clean):
    state = ban_jax.checkpoints.to_torch_names(candidate.variables)
    before = {name: array.copy() for name, array in state.items()}
    repaired, info = ban_jax.repair(
        state,
        None,
        clean.images,
        clean.labels,
        method="finetune",
        normalisation=candidate.normalisation,
        epochs=1,
        batch_size=64,
        budget=1.0,
    )
    assert list(repaired) == list(state)
    assert float(info.accuracy_after) > 0.9
    assert not np.array_equal(repaired["linear.weight"], state["linear.weight"])
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)


def test_two_models_are_trained_side_by_side():
    train = ban_jax.data.load("digits", split="train", num=128)
    test = ban_jax.data.load("digits", num=64)
    found = list(
        ban_jax.train(
            train,
            test,
            architecture="resnet18",
            width=2,
            attack="badnets",
            target=3,
            models=2,
            epochs=1,
            batch_size=64,
        )
    )
    assert [one.plan.seed for one in found] == [0, 1]
    assert all(isinstance(one, trainer.Trained) for one in found)
    assert 0 <= found[0].metrics.asr <= 1
    assert os.path.basename(found[0].plan.name) == "resnet18_w2_badnets_t3_s0"
