"""The scan from files to evidence: checkpoint files of a small network."""

import dataclasses
import json
import os
import threading
import weakref

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, population, records, verdict
from ban_jax.data import probe as probes
from ban_jax.detectors import targeted
from ban_jax.records import record
from ban_jax.scanning import chunks, scan
from tests.scanning import files

CONFIG = targeted.Settings(steps=1, radii=(1.0,))


@pytest.fixture(scope="module")
def probe():
    return probes.minibatches(*files.images())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in range(4):
        files.save(folder, f"model_{seed}.safetensors", files.variables(seed))
    return folder


def job(probe, **changes):
    constants = ((0.0,), (1.0,))
    fixed = {"mode": "targeted", "config": CONFIG, "normalisation": constants}
    return records.Job(records.Settings(**{**fixed, **changes}), probe)


def by_name(found):
    return {os.path.basename(line["path"]): line for line, _ in found}


def evidence(folder, probe, **changes):
    paths = checkpoints.find([str(folder)])
    return by_name(scan.scan(paths, job(probe, **changes)))


def test_chunk_size_and_order_change_nothing(folder, probe):
    alone = evidence(folder, probe, chunk=1)
    assert len(alone) == 4 and all(line["error"] is None for line in alone.values())
    together = evidence(folder, probe, chunk=3)
    paths = checkpoints.find([str(folder)])[::-1]
    backwards = by_name(scan.scan(paths, job(probe, chunk=1)))
    for name, line in alone.items():
        assert files.comparable(backwards[name]) == files.comparable(line)
        np.testing.assert_allclose(
            together[name]["vectors"]["targeted"],
            line["vectors"]["targeted"],
            atol=1e-5,
        )


def test_a_line_is_evidence_that_json_holds_and_says_what_was_spent(folder, probe):
    line = evidence(folder, probe)["model_0.safetensors"]
    assert set(line) == set(record.Evidence.__annotations__)
    assert json.loads(records.encode(line)) == records.finite(line)
    assert record.parse(json.loads(records.encode(line))) == records.finite(line)
    # 2 x 256 without noise; per class 1 step of 2 x 128 and 128 fresh images.
    assert line["forward_equivalents"] == 2 * 256 + 5 * (2 * 128 + 128)


@pytest.fixture
def counted(monkeypatch):
    """The number of candidates of each chunk that is measured."""
    calls, measure = [], chunks.Scan.measure
    monkeypatch.setattr(
        chunks.Scan,
        "measure",
        lambda self, chunk: calls.append(len(chunk.candidates)) or measure(self, chunk),
    )
    return calls


def test_a_known_line_is_used_again_and_a_copy_gets_a_line_of_its_own(
    probe, tmp_path, counted
):
    for name in "ab":
        files.save(tmp_path, f"{name}.safetensors", files.variables(0))
    first = evidence(tmp_path, probe)
    assert counted == [1]
    assert first["a.safetensors"]["vectors"] == first["b.safetensors"]["vectors"]
    paths = checkpoints.find([str(tmp_path)])
    again = list(scan.scan(paths, job(probe), known=first.values()))
    assert counted == [1]
    assert [one.is_new for one in again] == [False, False]
    assert by_name(again) == first
    other = scan.scan(paths, job(probe, seed=1), known=first.values())
    assert all(one.is_new for one in other) and counted == [1, 1]


def test_of_equal_weights_the_line_that_knows_most_is_used_again(
    probe, tmp_path, counted
):
    for name in "ab":
        files.save(tmp_path, f"{name}.safetensors", files.variables(0))
    first = evidence(tmp_path, probe)
    looked = first["a.safetensors"]
    more = {**looked["vectors"], "targeted": [0.5] * 5}
    rich = records.seal.sealed({**looked, "vectors": more})
    known = [rich, first["b.safetensors"]]
    paths = checkpoints.find([str(tmp_path)])
    again = by_name(scan.scan(paths, job(probe), known=known))
    assert counted == [1]
    assert all("targeted" in line["vectors"] for line in again.values())


def test_a_verdict_that_was_drawn_before_is_not_taken_for_evidence(probe, tmp_path):
    files.save(tmp_path, "a.safetensors", files.variables(0))
    (first,) = evidence(tmp_path, probe).values()
    files.save(tmp_path, "b.safetensors", files.variables(0))
    paths = checkpoints.find([str(tmp_path)])
    judged = verdict.Judge()(first)
    again = list(scan.scan(paths, job(probe), known=[judged]))
    assert {os.path.basename(line["path"]): new for line, new in again} == {
        "a.safetensors": False,
        "b.safetensors": True,
    }
    for line, _ in again:
        assert {**first, "path": line["path"]} == line


def test_one_bad_file_is_inconclusive_and_the_others_are_measured(probe, tmp_path):
    files.save(tmp_path, "good.safetensors", files.variables(0))
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    broken = files.variables(1)
    kernel = broken["params"]["linear"]["kernel"]
    broken["params"]["linear"]["kernel"] = np.full_like(kernel, np.nan)
    files.save(tmp_path, "nan.safetensors", broken)
    found = evidence(tmp_path, probe)
    assert found["good.safetensors"]["error"] is None
    for name, words in (("torn", "torn.safetensors"), ("nan", "linear/kernel")):
        line = found[f"{name}.safetensors"]
        assert words in line["error"]
        assert verdict.Judge()(line)["verdict"] == "inconclusive"


def test_when_the_device_fails_every_copy_gets_a_line_that_says_so(
    probe, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        files.save(tmp_path, f"{name}.safetensors", files.variables(0))

    def failing(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone\nand more")

    monkeypatch.setattr(population, "for_each", failing)
    found = evidence(tmp_path, probe)
    assert len(found) == 2
    for line in found.values():
        assert line["error"] == "the device failed: INTERNAL: the device is gone"
        assert verdict.Judge()(line)["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    "shape, labels, words",
    [
        ((8, 8, 3), 5, "1 channels, the clean images have 3"),
        ((8, 8, 1), 7, "tells 5 classes apart, the clean images have 7"),
    ],
)
def test_images_that_do_not_fit_are_named(folder, shape, labels, words):
    unfit = probes.minibatches(
        np.zeros((128, *shape), np.float32), np.arange(128) % labels
    )
    for line in evidence(folder, unfit).values():
        assert words in line["error"]
        assert verdict.Judge()(line)["verdict"] == "inconclusive"


def test_near_chance_accuracy_is_inconclusive(folder, probe):
    judged = verdict.Judge()(evidence(folder, probe)["model_0.safetensors"])
    assert judged["verdict"] == "inconclusive"
    assert "normalisation or the order of the classes" in judged["reason"]


def test_the_normalisation_that_fits_best_is_found_and_recorded(tmp_path, probe):
    """A model that sees only -0.5..0.5 pixels fits labels made under that constant."""
    variables, labels = files.expert(0, files.images()[0], mean=0.5, std=0.5)
    files.save(tmp_path, "model.safetensors", variables)
    relabelled = probe._replace(labels=labels.reshape(probe.labels.shape))
    (line,) = evidence(tmp_path, relabelled, normalisation=None).values()
    assert line["normalisation"]["source"] == "tried: half"
    assert line["clean_accuracy"] == 1.0


def test_the_next_chunk_is_stacked_while_the_device_computes(
    folder, probe, monkeypatch
):
    second, calls = threading.Event(), []
    prepare = chunks.Scan.prepare

    def preparing(self, *arguments, **more):
        calls.append("prepare")
        if len(calls) == 2:
            second.set()
        return prepare(self, *arguments, **more)

    def waiting(self, chunk):
        assert second.wait(60), "the second chunk waited for the first"
        return [as_measured(candidate) for candidate in chunk.candidates]

    monkeypatch.setattr(chunks.Scan, "prepare", preparing)
    monkeypatch.setattr(chunks.Scan, "measure", waiting)
    assert len(evidence(folder, probe, chunk=2)) == 4


def as_measured(candidate):
    return record.empty(candidate.path, key=candidate.sha256)


@pytest.mark.parametrize("kinds", [1, 30])
def test_a_long_scan_holds_no_more_weights_than_a_short_one(
    folder, probe, monkeypatch, kinds
):
    """Two chunks of 2 with the device, 4 more being filled, 9 files read ahead."""
    sample = checkpoints.read(checkpoints.find([str(folder)])[0])
    alive, most = weakref.WeakSet(), []

    def reading(path, architecture):
        found = dataclasses.replace(
            sample,
            path=path,
            sha256=f"{int(path):064x}",
            spec=dataclasses.replace(files.SPEC, width=2 + int(path) % kinds),
        )
        alive.add(found)
        return [checkpoints.Part(path, found)]

    def measuring(self, chunk):
        most.append(len(alive))
        return [as_measured(candidate) for candidate in chunk.candidates]

    monkeypatch.setattr(checkpoints, "read_all", reading)
    monkeypatch.setattr(chunks.Scan, "measure", measuring)
    paths = [f"{number:03}" for number in range(120)]
    found = [line["path"] for line, _ in scan.scan(paths, job(probe, chunk=2))]
    assert sorted(found) == paths
    assert max(most) <= 2 * 2 + 4 * 2 + 9 + 2
