"""`ban-jax scan` in two passes: who is looked at closer, and what a stop costs."""

import dataclasses
import json
import os

import numpy as np
import pytest

import ban_jax
from ban_jax import cli, records, verdict
from ban_jax.commands import outcome
from ban_jax.detectors import directed, witnesses
from ban_jax.records import record
from ban_jax.scanning import chunks, closer
from tests.scanning import files

QUICK = (
    "--ban.steps", "1", "--ban.mask-steps", "1", "--directed.steps", "1",
    "--directed.pixel-steps", "1", "--directed.pixel-images", "16",
    "--normalisation", "0/1",
)  # fmt: skip
MORE = set(directed.WORDS)
DOUBTFUL = {"1", "3"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Images that all models of `folder` know."""
    path = tmp_path_factory.mktemp("data") / "clean.npz"
    images, _ = files.images()
    _, labels = files.expert(0, images)
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine models that differ a little: enough for a crowd."""
    folder = tmp_path_factory.mktemp("models")
    images, _ = files.images()
    for seed in range(9):
        files.save(folder, f"{seed}.safetensors", files.twin(seed, images))
    return folder


@pytest.fixture
def doubt(monkeypatch):
    """The judge is in doubt about two models, and sure of those that were asked."""

    def asks(self, line):
        answered = MORE <= set(line["vectors"])
        if name_of(line) not in DOUBTFUL or answered:
            return None
        lacking = tuple(n for n in directed.VECTORS if n not in line["vectors"])
        return witnesses.Question((0, 2, 3), lacking)

    monkeypatch.setattr(verdict.Judge, "asks", asks)


@pytest.fixture
def measured(monkeypatch):
    """Which weights are measured in which mode."""
    calls, measure = [], chunks.Scan.measure

    def measuring(self, chunk):
        mode = self._job.settings.mode
        calls.extend((mode, name_of(vars(one))) for one in chunk.candidates)
        return measure(self, chunk)

    monkeypatch.setattr(chunks.Scan, "measure", measuring)
    return calls


def name_of(line):
    return os.path.basename(line["path"]).partition(".")[0]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def scan(folder, clean, out, *more):
    told = ("--data", clean, *QUICK, "--profile", "none", "--out", out)
    return run("scan", folder, *told, *more)


def lines(out, name="results.jsonl"):
    return {name_of(line): line for line in records.load(out / name).records}


def comparable(out):
    return {name: files.comparable(line) for name, line in lines(out).items()}


def interrupted(count, *arguments):
    """A scan that is interrupted when `count` lines are written."""
    written, write = [], records.Writer.write

    def writing(self, line):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(line)
        write(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.Writer, "write", writing)
        return scan(*arguments)


def test_doubtful_ones_get_the_dear_vectors_and_decided_ones_do_not(
    folder, clean, tmp_path, doubt, measured
):
    assert scan(folder, clean, tmp_path) in (outcome.CLEAN, outcome.FLAGGED)
    found = lines(tmp_path)
    assert len(found) == 9
    for name, line in found.items():
        assert (MORE <= set(line["vectors"])) == (name in DOUBTFUL)
        assert bool(MORE & set(line["vectors"])) == (name in DOUBTFUL)
        assert line["config"]["directed"]["pixel_images"] == 16
        assert line["verdict"] != "inconclusive"
    for name in DOUBTFUL:
        for vector in MORE:
            known = [value is not None for value in found[name]["vectors"][vector]]
            assert known == [True, False, True, True, False]
    assert sorted(name for mode, name in measured if mode == "ban") == list("012345678")
    assert {name for mode, name in measured if mode == "directed"} == DOUBTFUL
    assert len(measured) == 9 + 2 * len(MORE)


def test_exhaustive_measures_all_of_all_and_completes_an_earlier_scan(
    folder, clean, tmp_path, doubt, measured
):
    scan(folder, clean, tmp_path)
    del measured[:]
    assert scan(folder, clean, tmp_path, "--exhaustive") in (0, 1)
    for line in lines(tmp_path).values():
        assert all(None not in line["vectors"][vector] for vector in MORE)
    # Those that were asked at some classes only are asked again at all.
    expected = sorted([("directed", name) for name in "012345678"] * len(MORE))
    assert sorted(measured) == expected
    del measured[:]
    before = (tmp_path / "results.jsonl").read_bytes()
    scan(folder, clean, tmp_path)
    assert measured == [] and (tmp_path / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (9, [("directed", "1"), ("directed", "3")] * 2),  # between the passes
        (10, [("directed", "1"), ("directed", "3"), ("directed", "3")]),
        (12, [("directed", "3")]),  # each has one of two vectors, one has both
        (8, [("ban", "8"), *[("directed", "1"), ("directed", "3")] * 2]),
    ],
)
def test_a_scan_that_is_stopped_loses_nothing_and_measures_nothing_twice(
    folder, clean, tmp_path, doubt, measured, written, left
):
    whole, part = tmp_path / "whole", tmp_path / "part"
    scan(folder, clean, whole, "--chunk", 1)
    assert interrupted(written, folder, clean, part, "--chunk", 1) == cli.INTERRUPTED
    told = records.load(part / "results.jsonl").records
    assert len(told) == min(written, 9)
    for line in told:
        assert not set(line) & set(record.Verdict.__annotations__)
    del measured[:]
    scan(folder, clean, part, "--chunk", 1)
    assert sorted(measured) == sorted(left)
    assert comparable(part) == comparable(whole)


def test_chunks_and_order_of_the_files_change_no_verdict(
    folder, clean, tmp_path, doubt
):
    alone, together = tmp_path / "alone", tmp_path / "together"
    scan(folder, clean, alone, "--chunk", 1)
    paths = [folder / name for name in sorted(os.listdir(folder))[::-1]]
    told = ("--data", clean, *QUICK, "--profile", "none", "--chunk", 4)
    run("scan", *paths, *told, "--out", together)
    for name, line in lines(alone).items():
        other = lines(together)[name]
        assert (other["verdict"], other["target"]) == (line["verdict"], line["target"])
        assert other["score"] == pytest.approx(line["score"], abs=1e-2)
        assert set(other["vectors"]) == set(line["vectors"])


def test_a_closer_look_that_fails_leaves_a_note_in_results_and_page(
    folder, clean, tmp_path, doubt, monkeypatch, capsys
):
    look = closer.look

    def vanishing(found, job, asked, **more):
        for path in asked:
            os.rename(path, f"{path}.gone")
        try:
            yield from look(found, job, asked, **more)
        finally:
            for path in asked:
                os.rename(f"{path}.gone", path)

    monkeypatch.setattr(closer, "look", vanishing)
    assert scan(folder, clean, tmp_path) in (outcome.CLEAN, outcome.FLAGGED)
    for name, line in lines(tmp_path).items():
        failed = [note for note in line["notes"] if "looking closer failed" in note]
        assert len(failed) == (name in DOUBTFUL)
        assert not MORE & set(line["vectors"])
    assert "looking closer failed" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    run("report", tmp_path / "results.jsonl", "--out", tmp_path / "again")
    assert "not looked at closer" not in capsys.readouterr().err  # it was tried
    monkeypatch.setattr(closer, "look", look)
    scan(folder, clean, tmp_path)
    for name, line in lines(tmp_path).items():
        assert not any("looking closer failed" in note for note in line["notes"])
        assert (MORE <= set(line["vectors"])) == (name in DOUBTFUL)


def test_models_one_vouches_for_are_measured_whole(folder, clean, tmp_path, doubt):
    scan(folder / "0.safetensors", clean, tmp_path, "--calibrate", folder)
    trusted = lines(tmp_path, "trusted.jsonl")
    assert len(trusted) == 9
    for line in trusted.values():
        assert all(None not in line["vectors"][vector] for vector in MORE)
    (line,) = lines(tmp_path).values()
    assert line["baseline"] == "trusted" and not MORE & set(line["vectors"])


@pytest.fixture
def sharp(monkeypatch):
    """A rule that is in doubt about some of the models, whatever the tuned one is."""
    ban = verdict.detectors.DETECTORS["ban"]
    limits = {kind: 1.5 for kind in ban.rule.thresholds}
    rule = dataclasses.replace(ban.rule, thresholds=limits, suspicious={}, doubt=1.6)
    known = {
        **verdict.detectors.DETECTORS._things,
        "ban": dataclasses.replace(ban, rule=rule),
    }
    monkeypatch.setattr(verdict.detectors.DETECTORS, "_things", known)


@pytest.mark.parametrize("baseline", [None, "population"])
def test_shards_ask_what_the_whole_scan_asks_and_the_merge_is_the_whole(
    folder, clean, tmp_path, sharp, measured, baseline
):
    made, whole, parts = tmp_path / "p.json", tmp_path / "whole", tmp_path / "parts"
    others = tmp_path / "others"
    others.mkdir()
    for seed in range(20, 25):  # what they say of the nine is not what the nine say
        variables = files.twin(seed, files.images()[0])
        files.save(others, f"{seed}.safetensors", variables)
    run("profile", others, "--data", clean, *profile_flags(), "-o", made)
    told = ["--data", clean, *QUICK, "--profile", made]
    told += [] if baseline is None else ["--baseline", baseline]
    del measured[:]
    code = run("scan", folder, *told, "--out", whole)
    asked = {name for mode, name in measured if mode == "directed"}
    assert 0 < len(asked) < 9  # the rule decides some of them
    for index in (1, 0, 2):
        run("scan", folder, *told, "--out", parts, "--shard", f"{index}/3")
    assert run("merge", parts) == code
    assert comparable(parts) == comparable(whole)
    kinds = {line["baseline"] for line in lines(whole).values()}
    assert kinds == {baseline or "profile"}


def profile_flags():
    """`QUICK` without what `profile` does not know."""
    return QUICK[: QUICK.index("--normalisation")]


def test_a_trace_shows_both_passes_and_is_no_profile(folder, clean, tmp_path, doubt):
    trace = tmp_path / "deep" / "trace.json"
    scan(folder, clean, tmp_path / "out", "--trace", trace, "--chunk", 3)
    events = json.loads(trace.read_text())["traceEvents"]
    device = [event for event in events if event["name"] == "device"]
    # Three chunks of three, and of the two in doubt one for each vector.
    assert [one["args"]["candidates"] for one in device] == [3, 3, 3, 2, 2]


def test_a_merge_of_a_shard_that_was_stopped_between_the_passes_is_not_complete(
    folder, clean, tmp_path, doubt, capsys
):
    scan(folder, clean, tmp_path, "--shard", "0/2")
    told = (folder, clean, tmp_path, "--shard", "1/2", "--chunk", 1)
    assert interrupted(4, *told) == cli.INTERRUPTED  # 1, 3, 5, 7: both in doubt
    capsys.readouterr()
    assert run("merge", tmp_path) == outcome.INCONCLUSIVE
    error = capsys.readouterr().err
    assert "2 files were not looked at closer" in error
    assert all(str(folder / f"{name}.safetensors") in error for name in DOUBTFUL)
    again = tmp_path / "again"
    told = ("report", tmp_path / "results.jsonl", "--out", again, "--profile", "none")
    assert run(*told) == outcome.INCONCLUSIVE
    assert "2 files were not looked at closer" in capsys.readouterr().err
    scan(folder, clean, tmp_path, "--shard", "1/2")
    capsys.readouterr()
    assert run("merge", tmp_path) in (outcome.CLEAN, outcome.FLAGGED)
    assert "not looked at closer" not in capsys.readouterr().err


def test_the_library_looks_closer_at_the_same_ones_and_yields_the_others_before(
    folder, clean, doubt, measured
):
    with np.load(clean) as given:
        images, labels = given["images"], given["labels"]
    told = {"profiles": None, "normalisation": ((0.0,), (1.0,)), "steps": 1}
    found = list(ban_jax.scan(str(folder), images, labels, mask_steps=1, **told))
    assert [name_of(line) for line in found][-2:] == sorted(DOUBTFUL)
    assert sorted(name_of(line) for line in found) == list("012345678")
    assert {name for mode, name in measured if mode == "directed"} == DOUBTFUL
    for line in found:
        assert line["baseline"] == "within" and line["verdict"] != "inconclusive"
        assert (MORE <= set(line["vectors"])) == (name_of(line) in DOUBTFUL)
    del measured[:]
    again = ban_jax.scan(str(folder), images, labels, mask_steps=1, known=found, **told)
    assert {line["path"]: line for line in again} == {
        line["path"]: line for line in found
    }
    assert measured == []
    crowd = ban_jax.scan(
        str(folder),
        images,
        labels,
        mask_steps=1,
        known=found,
        baseline="population",
        **told,
    )
    assert {line["baseline"] for line in crowd} == {"population"} and measured == []
