"""The scan from files to lines: real checkpoint files of a tiny ResNet18."""

import dataclasses
import functools
import json
import os
import threading
import weakref

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, cli, config, models, population, records
from ban_jax.data import probe as probes
from ban_jax.scanning import chunks, loop

SPEC = checkpoints.ModelSpec("resnet18", num_classes=5, width=2, in_channels=1)
CONFIG = config.BanConfig(steps=1, radii=(1.0,))


@functools.cache
def initialise():
    """Compiled as a whole, which is far quicker than operation by operation."""
    return jax.jit(SPEC.create().init)


def random_variables(seed):
    variables = initialise()(jax.random.key(seed), np.zeros((1, 8, 8, 1), np.float32))
    variables = jax.tree.map(np.asarray, dict(variables))
    del variables["normalisation"]
    return variables


def save(folder, name, variables, **metadata):
    path = os.path.join(folder, name)
    checkpoints.write_safetensors(path, variables, SPEC, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.random((256, 8, 8, 1), np.float32)
    return pixels, np.arange(256, dtype=np.int32) % 5


@pytest.fixture(scope="module")
def probe(images):
    return probes.minibatches(*images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in range(4):
        save(folder, f"model_{seed}.safetensors", random_variables(seed))
    return folder


def settings(**changes):
    fixed = ((0.0,), (1.0,))
    return records.Settings(config=CONFIG, normalisation=fixed, **changes)


def lines(folder, probe, **changes):
    found = loop.scan(checkpoints.find([str(folder)]), probe, settings(**changes))
    return {os.path.basename(record["path"]): record for record, _ in found}


def comparable(record):
    return {name: value for name, value in record.items() if name != "seconds"}


def test_chunk_size_and_order_change_nothing(folder, probe):
    alone = lines(folder, probe, chunk=1)
    assert len(alone) == 4 and all(record["error"] is None for record in alone.values())
    together = lines(folder, probe, chunk=3)
    paths = checkpoints.find([str(folder)])[::-1]
    backwards = {
        os.path.basename(record["path"]): record
        for record, _ in loop.scan(paths, probe, settings(chunk=1))
    }
    for name, record in alone.items():
        assert comparable(backwards[name]) == comparable(record)
        assert together[name]["score"] == pytest.approx(record["score"], abs=1e-4)


def test_every_record_is_valid_json_and_says_what_was_spent(folder, probe):
    record = lines(folder, probe)["model_0.safetensors"]
    assert json.loads(records.encode(record)) == records.finite(record)
    # 2 x 256 without noise; per class 1 step of 2 x 128 and 128 fresh images.
    assert record["forward_equivalents"] == 2 * 256 + 5 * (2 * 128 + 128)


def counted(monkeypatch):
    """The number of candidates of each chunk that is measured."""
    calls, measure = [], chunks.Engine.measure
    monkeypatch.setattr(
        chunks.Engine,
        "measure",
        lambda self, chunk: calls.append(len(chunk.candidates)) or measure(self, chunk),
    )
    return calls


def test_a_known_line_is_used_again_and_a_copy_gets_a_line_of_its_own(
    folder, probe, tmp_path, monkeypatch
):
    save(tmp_path, "a.safetensors", random_variables(0))
    save(tmp_path, "b.safetensors", random_variables(0))
    calls = counted(monkeypatch)
    first = lines(tmp_path, probe)
    assert calls == [1]
    assert first["a.safetensors"]["score"] == first["b.safetensors"]["score"]
    paths = checkpoints.find([str(tmp_path)])
    again = list(loop.scan(paths, probe, settings(), known=first.values()))
    assert calls == [1]
    assert [new for _, new in again] == [False, False]
    assert {r["path"]: r for r, _ in again} == {r["path"]: r for r in first.values()}
    other = loop.scan(paths, probe, settings(seed=1), known=first.values())
    assert all(new for _, new in other) and calls == [1, 1]


def test_one_bad_file_is_inconclusive_and_the_others_are_judged(
    folder, probe, tmp_path
):
    save(tmp_path, "good.safetensors", random_variables(0))
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    broken = random_variables(1)
    broken["params"]["linear"]["kernel"] = np.full((16, 5), np.nan, np.float32)
    save(tmp_path, "nan.safetensors", broken)
    found = lines(tmp_path, probe)
    assert found["good.safetensors"]["error"] is None
    for name, words in (("torn", "torn.safetensors"), ("nan", "linear/kernel")):
        record = found[f"{name}.safetensors"]
        assert record["verdict"] == "inconclusive" and words in record["error"]


def test_when_the_device_fails_every_copy_gets_a_line_that_says_so(
    probe, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        save(tmp_path, f"{name}.safetensors", random_variables(0))

    def failing(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone\nand more")

    monkeypatch.setattr(population, "for_each", failing)
    found = lines(tmp_path, probe)
    assert len(found) == 2
    for record in found.values():
        assert record["verdict"] == "inconclusive"
        assert record["error"] == "the device failed: INTERNAL: the device is gone"


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
    for record in lines(folder, unfit).values():
        assert record["verdict"] == "inconclusive" and words in record["error"]


def test_near_chance_accuracy_is_inconclusive(folder, probe):
    record = lines(folder, probe)["model_0.safetensors"]
    assert record["verdict"] == "inconclusive"
    assert "normalisation or the order of the classes" in record["reason"]


def test_the_normalisation_that_fits_best_is_found_and_recorded(tmp_path, probe):
    """A model that sees only -0.5..0.5 pixels fits labels made under that constant."""
    variables = random_variables(0)
    save(tmp_path, "model.safetensors", variables)
    network = models.network(SPEC.create())
    half = {
        "mean": np.array([0.5], np.float32),
        "std": np.array([0.5], np.float32),
    }
    images = probe.images.reshape(-1, 8, 8, 1)
    variables = {**variables, "normalisation": half}
    features, _ = network.features(variables, images, "stored")
    logits, _ = network.head(variables, features, "stored")
    labels = np.asarray(logits).argmax(axis=-1).astype(np.int32)
    relabelled = probe._replace(labels=labels.reshape(probe.labels.shape))
    (found,) = loop.scan(
        checkpoints.find([str(tmp_path)]), relabelled, records.Settings(config=CONFIG)
    )
    assert found[0]["normalisation"]["source"] == "tried: half"
    assert found[0]["clean_accuracy"] == 1.0


def test_the_next_chunk_is_stacked_while_the_device_computes(
    folder, probe, monkeypatch
):
    second, calls = threading.Event(), []
    prepare = chunks.Engine.prepare

    def preparing(self, *arguments, **more):
        calls.append("prepare")
        if len(calls) == 2:
            second.set()
        return prepare(self, *arguments, **more)

    def waiting(self, chunk):
        assert second.wait(60), "the second chunk waited for the first"
        return [as_measured(candidate) for candidate in chunk.candidates]

    monkeypatch.setattr(chunks.Engine, "prepare", preparing)
    monkeypatch.setattr(chunks.Engine, "measure", waiting)
    assert len(lines(folder, probe, chunk=2)) == 4


def as_measured(candidate):
    return records.identity(candidate, settings(), "digest")


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
            spec=dataclasses.replace(SPEC, width=2 + int(path) % kinds),
        )
        alive.add(found)
        return found

    def measuring(self, chunk):
        most.append(len(alive))
        return [as_measured(candidate) for candidate in chunk.candidates]

    monkeypatch.setattr(checkpoints, "read", reading)
    monkeypatch.setattr(chunks.Engine, "measure", measuring)
    paths = [f"{number:03}" for number in range(120)]
    found = [record["path"] for record, _ in loop.scan(paths, probe, settings(chunk=2))]
    assert sorted(found) == paths
    assert max(most) <= 2 * 2 + 4 * 2 + 9 + 2


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def npz(tmp_path, images):
    path = tmp_path / "clean.npz"
    np.savez(path, images=images[0], labels=images[1])
    return path


def test_the_command_writes_lines_a_table_and_a_page(folder, npz, tmp_path, capsys):
    out = tmp_path / "out"
    code = run("scan", folder, "--mode", "weights", "--out", out)
    assert code in (0, 1)
    assert {"results.jsonl", "results.csv", "report.html"} <= set(os.listdir(out))
    assert len(records.load(out / "results.jsonl").records) == 4
    assert "4 checkpoints" in capsys.readouterr().out


def test_a_torn_last_line_is_redone_and_the_file_ends_as_if_undisturbed(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    run("scan", folder, "--mode", "weights", "--out", out)
    whole = records.load(out / "results.jsonl").records
    text = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(text[: len(text) - 40])
    run("scan", folder, "--mode", "weights", "--out", out)
    again = records.load(out / "results.jsonl").records
    assert [comparable(r) for r in again] == [comparable(r) for r in whole]
    assert "cut short" in capsys.readouterr().err


def test_report_draws_verdicts_again_without_the_models(folder, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    run("scan", folder, "--mode", "weights", "--out", out)
    code = run("report", out / "results.jsonl", "--threshold", "-100", "--out", again)
    assert code == cli_code("FLAGGED")
    judged = records.load(again / "results.jsonl").records
    assert {record["verdict"] for record in judged} == {"backdoored"}
    assert {record["threshold_source"] for record in judged} == {"flag"}


def cli_code(name):
    from ban_jax import commands

    return getattr(commands, name)


def test_exit_codes_tell_what_happened(folder, tmp_path, npz, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ("--out", tmp_path / "out")
    assert run("scan", empty, "--mode", "weights", *out) == 3
    assert run("scan", tmp_path / "nowhere", "--mode", "weights", *out) == 4
    assert run("scan", folder, "--mode", "ban", *out) == 4  # no images
    assert run("scan", folder, "--no-such-flag") == 4
    assert run("scan", folder, "--mode", "weights", "--epsilon", "-1", *out) == 4
    assert run("scan", folder, "--mode", "weights", "--threshold", "1e9", *out) == 0
    assert run("scan", folder, "--mode", "weights", "--threshold", "-9", *out) == 1
    (tmp_path / "file").write_text("x")
    blocked = tmp_path / "file" / "out"
    assert run("scan", folder, "--mode", "weights", "--out", blocked) == 4
    assert "file" in capsys.readouterr().err


def test_an_interrupted_scan_keeps_its_lines_and_goes_on(folder, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", ("--mode", "weights", "--chunk", 1)
    write, written = records.Writer.write, []

    def interrupted(self, record):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(record)
        write(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(records.Writer, "write", interrupted)
        assert run("scan", folder, "--out", out, *arguments) == 130
    assert len(records.load(out / "results.jsonl").records) == 2
    calls = counted(monkeypatch)
    assert run("scan", folder, "--out", out, *arguments) in (0, 1)
    assert calls == [1, 1]
    assert len(records.load(out / "results.jsonl").records) == 4
