"""A closer look at candidates, from files to merged lines: a small network's."""

import dataclasses
import json
import os
import types

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, population, records
from ban_jax.data import normalisation
from ban_jax.data import probe as probes
from ban_jax.detectors import ban, directed, weights, witnesses
from ban_jax.records import record
from ban_jax.scanning import chunks, closer, examination, in_memory, scan
from tests.scanning import files

CONFIG = ban.Settings(steps=1, mask_steps=1, patch_steps=0)
FURTHER = directed.Settings(steps=1, pixel_steps=1, pixel_images=16)
MORE = set(directed.WORDS)


@pytest.fixture(scope="module")
def probe():
    return probes.minibatches(*files.images())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in range(3):
        files.save(folder, f"{seed}.safetensors", files.variables(seed))
    return folder


def job(probe, **changes):
    fixed = {
        "config": CONFIG,
        "further": FURTHER,
        "normalisation": ((0.0,), (1.0,)),
    }
    return records.Job(records.Settings(**{**fixed, **changes}), probe)


def first_look(folder, one):
    return [line for line, _ in scan.scan(checkpoints.find([str(folder)]), one)]


def question(classes):
    return witnesses.Question(classes, directed.VECTORS)


def asker(*names, classes=(0, 1, 2, 3, 4)):
    """Asks of the files of these names, at these classes."""
    return types.SimpleNamespace(
        asks=lambda line: (
            question(classes) if os.path.basename(line["path"])[:-12] in names else None
        )
    )


def look(found, one, asks):
    """The lines that are looked at closer, by name."""
    asked = closer.questions(found, one, asks)
    return {
        os.path.basename(line["path"])[:-12]: line
        for line in closer.look(found, one, asked)
    }


def known_classes(line, name):
    return [i for i, value in enumerate(line["vectors"][name]) if value is not None]


@pytest.fixture
def measured(monkeypatch):
    """The number of candidates of each chunk, and the mode it is measured in."""
    calls, measure = [], chunks.Scan.measure

    def measuring(self, chunk):
        calls.append((self._job.settings.mode, len(chunk.candidates)))
        return measure(self, chunk)

    monkeypatch.setattr(chunks.Scan, "measure", measuring)
    return calls


def test_only_those_in_doubt_are_looked_at_and_only_at_the_classes_asked(
    folder, probe, measured
):
    one = job(probe)
    found = first_look(folder, one)
    assert measured and all(not MORE & set(line["vectors"]) for line in found)
    del measured[:]
    more = look(found, one, asker("0", "2", classes=(1, 4)))
    assert set(more) == {"0", "2"} and {mode for mode, _ in measured} == {"directed"}
    assert sum(count for _, count in measured) == 2 * len(MORE)
    before = {os.path.basename(line["path"])[:-12]: line for line in found}
    for name, line in more.items():
        assert set(line["vectors"]) == set(before[name]["vectors"]) | MORE
        assert all(known_classes(line, vector) == [1, 4] for vector in MORE)
        work = directed.work(FURTHER, 2, 256)
        told = line["forward_equivalents"] - before[name]["forward_equivalents"]
        assert told == work
        assert line["seconds"] > before[name]["seconds"]
        changed = {"vectors", "errors", "forward_equivalents", "seconds", "seal"}
        unchanged = set(line) - changed
        assert all(line[field] == before[name][field] for field in unchanged)
        for vector, values in before[name]["vectors"].items():
            assert line["vectors"][vector] == values
        assert record.parse(json.loads(records.encode(line))) == records.finite(line)


def test_classes_asked_of_some_and_others_of_others_are_not_mixed_up(folder, probe):
    """Chunk size and order change nothing, and each gets what it gets alone."""
    one = job(probe)
    found = first_look(folder, one)
    asked = {"0": (1, 4), "1": (0, 1, 2, 3, 4), "2": (2, 3)}
    asks = types.SimpleNamespace(
        asks=lambda line: question(asked[os.path.basename(line["path"])[:-12]])
    )
    alone = {
        name: look(found, one, asker(name, classes=classes))[name]
        for name, classes in asked.items()
    }
    for chunk in (1, 3):
        other = dataclasses.replace(
            one, settings=dataclasses.replace(one.settings, chunk=chunk)
        )
        together = look(found[::-1], other, asks)
        assert set(together) == set(asked)
        for name, line in together.items():
            for vector in MORE:
                assert known_classes(line, vector) == list(asked[name])
                np.testing.assert_allclose(
                    np.array(line["vectors"][vector], float),
                    np.array(alone[name]["vectors"][vector], float),
                    atol=1e-5,
                )


def test_without_a_judge_all_is_measured_that_was_not(folder, probe):
    one = job(probe)
    found = first_look(folder, one)
    failed = one.failure("no/such/file", "it is not there")
    part = look(found, one, asker("1", classes=(0, 2)))["1"]
    whole = look(found, one, asker("2"))["2"]
    lines = [found[0], part, whole, failed]
    everything = question((0, 1, 2, 3, 4))
    assert closer.questions(lines, one, None) == {
        found[0]["path"]: everything,
        part["path"]: everything,
    }


def test_a_mode_without_a_closer_look_is_asked_nothing(folder):
    one = records.Job(records.Settings(mode="weights", config=weights.Settings()), None)
    found = [one.failure("a", "no")]
    assert closer.questions(found, one, None) == {}
    assert closer.questions(found, one, asker("0")) == {}
    assert list(closer.look(found, one, {})) == []
    with pytest.raises(ValueError, match="no closer look than weights"):
        one.closer({}, found, ())


def test_pixel_constants_are_not_tried_again(tmp_path, probe, monkeypatch):
    variables, labels = files.expert(0, files.images()[0], mean=0.5, std=0.5)
    files.save(tmp_path, "0.safetensors", variables)
    relabelled = probe._replace(labels=labels.reshape(probe.labels.shape))
    one = job(relabelled, normalisation=None)
    (before,) = first_look(tmp_path, one)
    assert before["normalisation"]["source"] == "tried: half"
    tried = examination.tried_work(relabelled, len(normalisation.options("", 1)))
    assert before["forward_equivalents"] == tried + ban.work(CONFIG, 5, 256)

    def choosing(*_, **__):
        raise AssertionError("constants are tried again")

    monkeypatch.setattr(examination, "choose", choosing)
    (line,) = look([before], one, asker("0")).values()
    assert line["normalisation"] == before["normalisation"]
    told = line["forward_equivalents"] - before["forward_equivalents"]
    assert told == directed.work(FURTHER, 5, 256)
    # What it gives is what the right constants give from the beginning.
    given = job(relabelled, normalisation=((0.5,), (0.5,)))
    (other,) = look(first_look(tmp_path, given), given, asker("0")).values()
    for vector in MORE:
        assert line["vectors"][vector] == other["vectors"][vector]


def test_equal_weights_under_several_paths_are_measured_once_and_all_get_it(
    tmp_path, probe, measured
):
    for name in "abc":
        files.save(tmp_path, f"{name}.safetensors", files.variables(0))
    one = job(probe)
    found = first_look(tmp_path, one)
    more = look(found, one, asker("a", "b", "c", classes=(0, 3)))
    assert measured == [("ban", 1), ("directed", 1), ("directed", 1)]
    assert set(more) == set("abc")
    for name, line in more.items():
        assert os.path.basename(line["path"]) == f"{name}.safetensors"
        assert all(known_classes(line, vector) == [0, 3] for vector in MORE)
        assert line["vectors"] == more["a"]["vectors"]


def test_equal_weights_with_other_pixel_constants_keep_their_own(tmp_path, probe):
    constants = {"a": 0.0, "b": 0.5}
    for name, mean in constants.items():
        told = {"mean": [mean], "std": [1.0]}
        found = files.variables(0)
        files.save(tmp_path, f"{name}.safetensors", found, normalisation=told)
    one = job(probe, normalisation=None)
    more = look(first_look(tmp_path, one), one, asker("a", "b"))
    for name, mean in constants.items():
        assert more[name]["normalisation"]["mean"] == [mean]
        alone = job(probe, normalisation=((mean,), (1.0,)))
        lines = [line for line in first_look(tmp_path, alone) if name in line["path"]]
        lines = [
            line for line in lines if line["path"].endswith(f"/{name}.safetensors")
        ]
        other = look(lines, alone, asker(name))[name]
        assert other["vectors"]["universal"] == more[name]["vectors"]["universal"]
    assert more["a"]["vectors"]["universal"] != more["b"]["vectors"]["universal"]


def test_a_file_that_vanished_or_changed_in_between_leaves_the_line_with_a_note(
    tmp_path, probe
):
    for name in "abc":
        found = files.variables(ord(name))
        files.save(tmp_path, f"{name}.safetensors", found)
    one = job(probe)
    found = first_look(tmp_path, one)
    os.unlink(tmp_path / "a.safetensors")
    files.save(tmp_path, "b.safetensors", files.variables(99))
    more = look(found, one, asker("a", "b", "c"))
    before = {os.path.basename(line["path"])[:-12]: line for line in found}
    for name, reason in (("a", "a.safetensors"), ("b", "other weights than before")):
        (note,) = more[name]["notes"]
        assert note.startswith("looking closer failed: ") and reason in note
        assert {**more[name], "notes": []} == before[name]
    assert MORE <= set(more["c"]["vectors"]) and more["c"]["notes"] == []
    # Started again: the same failure is told once, and forgotten when it is mended.
    again = look([more["a"]], one, asker("a"))["a"]
    assert again["notes"] == more["a"]["notes"]
    files.save(tmp_path, "a.safetensors", files.variables(ord("a")))
    mended = look([more["a"]], one, asker("a"))["a"]
    assert mended["notes"] == [] and MORE <= set(mended["vectors"])


def test_a_file_that_holds_several_classifiers_by_now_leaves_the_line_with_a_note(
    folder, probe
):
    one = job(probe)
    found = first_look(folder, one)[:1]

    def parts(paths, job, clock=None):
        for name in ("model", "model_ema"):
            line = job.failure(f"{paths[0]}#{name}", "")
            yield scan.Measured(line, is_new=True)

    asked = closer.questions(found, one, asker("0"))
    (line,) = closer.look(found, one, asked, measure=parts)
    told = "looking closer failed: the file holds other classifiers than before"
    assert line["notes"] == [told] and line["path"] == found[0]["path"]


def test_a_device_that_fails_at_the_closer_look_leaves_the_line_with_a_note(
    folder, probe, monkeypatch
):
    one = job(probe)
    found = first_look(folder, one)

    def failing(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone\nand more")

    monkeypatch.setattr(population, "for_each", failing)
    more = look(found, one, asker("0", "1"))
    assert set(more) == {"0", "1"}
    for line in more.values():
        told = "looking closer failed: the device failed: INTERNAL: the device is gone"
        assert line["notes"] == [told]
        assert not MORE & set(line["vectors"]) and line["error"] is None


def test_a_model_in_memory_and_its_file_get_the_same_closer_look(folder, probe):
    one = job(probe)
    found = first_look(folder, one)[0]
    line = look([found], one, asker("0", classes=(1, 3)))["0"]
    candidate = checkpoints.read(found["path"])
    pixels, labels = files.images()
    subject, settings = in_memory.subject_of(
        files.SPEC.create(),
        candidate.full_variables(((0.0,), (1.0,))),
        pixels,
        labels,
        "ban",
        None,
        0,
        "",
        CONFIG,
    )
    settings = dataclasses.replace(settings, further=FURTHER)
    before = in_memory.measure(subject, settings)
    more = in_memory.look_closer(subject, settings, before, question((1, 3)))
    assert more["sha256"] == found["sha256"] and more["num_classes"] == 5
    told = more["forward_equivalents"] - before["forward_equivalents"]
    assert told == directed.work(FURTHER, 2, 256)
    for vector in MORE:
        assert known_classes(more, vector) == [1, 3]
        np.testing.assert_allclose(
            np.array(more["vectors"][vector], float),
            np.array(line["vectors"][vector], float),
            atol=1e-5,
        )
