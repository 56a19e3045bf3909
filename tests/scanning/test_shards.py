"""A scan in parts, and its parts put together: `weights` mode, so nothing compiles."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ban_jax import checkpoints, cli, records
from ban_jax.commands import outcome
from ban_jax.scanning import shards
from tests.records import lines as made
from tests.scanning import files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine models of one kind, enough for a population, and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(9):
        files.save(folder, f"m{number}.safetensors", files.variables(number))
    (folder / "torn.safetensors").write_bytes(b"\x10\x00")
    return folder


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def scan(folder, out, *more):
    return run("scan", folder, "--mode", "weights", "--out", out, *more)


def lines(out):
    return [*map(files.comparable, records.load(out / "results.jsonl").records)]


@pytest.mark.parametrize("baseline", ["within", "population"])
def test_merged_shards_equal_a_scan_in_one_piece(folder, tmp_path, baseline):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code = scan(folder, whole, "--baseline", baseline)
    for index in (2, 0, 1):
        scan(folder, parts, "--baseline", baseline, "--shard", f"{index}/3")
    assert run("merge", parts) == code
    assert lines(parts) == lines(whole)
    assert (parts / "report.html").exists() and (parts / "results.csv").exists()
    assert run("merge", parts, "--out", tmp_path / "again") == code
    assert lines(tmp_path / "again") == lines(whole)


def test_what_is_missing_is_said_and_never_clean(folder, tmp_path, capsys):
    out = tmp_path / "out"
    scan(folder, out, "--threshold", "1e9", "--shard", "0/2")
    capsys.readouterr()
    assert run("merge", out) == 2
    told = capsys.readouterr().err
    assert "no results of shard 1/2" in told and "5 files were not scanned" in told
    paths = checkpoints.find([str(folder)])
    assert all(path in told for path in paths[1::2])
    assert [record["path"] for record in lines(out)] == paths[0::2]


def test_a_torn_shard_is_merged_and_its_restart_completes_it(folder, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    code = scan(folder, whole)
    scan(folder, out, "--shard", "0/2")
    scan(folder, out, "--shard", "1/2")
    part = out / "results.1-of-2.jsonl"
    text = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(text[:2]) + text[2][:30])
    assert run("merge", out) == 2
    assert "3 files were not scanned" in capsys.readouterr().err
    scan(folder, out, "--shard", "1/2")
    assert run("merge", out) == code
    assert lines(out) == lines(whole)


def test_shards_on_two_disks_are_merged_from_both(folder, tmp_path):
    whole, one, two = tmp_path / "whole", tmp_path / "one", tmp_path / "two"
    code = scan(folder, whole)
    scan(folder, one, "--shard", "0/2")
    scan(folder, two, "--shard", "1/2")
    sources = one / "results.0-of-2.jsonl", two
    assert run("merge", *sources, "--out", tmp_path / "merged") == code
    assert lines(tmp_path / "merged") == lines(whole)


def test_more_shards_than_files_leave_some_with_nothing_to_do(folder, tmp_path):
    out = tmp_path / "out"
    assert scan(folder / "m0.safetensors", out, "--shard", "1/2") == 0
    assert (out / "results.1-of-2.jsonl").read_bytes() == b""


def test_parts_of_different_scans_are_not_merged(folder, tmp_path, capsys):
    out = tmp_path / "out"
    scan(folder, out, "--shard", "0/2")
    scan(folder, out, "--shard", "1/2", "--seed", "1")
    assert run("merge", out) == 4
    assert "different settings" in capsys.readouterr().err
    scan(folder, out, "--shard", "1/3")
    assert run("merge", out) == 4
    assert "2 and 3 shards" in capsys.readouterr().err


def test_a_merge_without_plans_does_not_claim_to_be_complete(folder, tmp_path, capsys):
    out = tmp_path / "out"
    scan(folder, out, "--threshold", "1e9", "--shard", "0/1")
    os.unlink(out / "plan.0-of-1.json")
    assert run("merge", out) == 2
    assert "what is missing is unknown" in capsys.readouterr().err


def test_a_line_with_evidence_goes_before_one_of_a_failure(tmp_path):
    good, failed = made.evidence("a"), made.evidence("a", key=None, error="no")
    for name, line in (("one", good), ("two", failed)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.0-of-1.jsonl").write_bytes(records.encode(line))
    for order in (("one", "two"), ("two", "one")):
        gathered = shards.gather([str(tmp_path / name) for name in order])
        assert gathered.records == [good]


def test_of_two_lines_that_which_tells_more_is_taken(tmp_path):
    poor = made.evidence("a")
    rich = {
        **poor,
        "vectors": {**poor["vectors"], "targeted": [0.1] * 5},
        "errors": {**poor["errors"], "targeted": [0.0] * 5},
    }
    for name, line in (("one", rich), ("two", poor)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.0-of-1.jsonl").write_bytes(records.encode(line))
    for order in (("one", "two"), ("two", "one")):
        (found,) = shards.gather([str(tmp_path / name) for name in order]).records
        assert "targeted" in found["vectors"]


def test_lines_of_settings_before_a_restart_are_missing_not_merged(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    scan(folder, out, "--threshold", "1e9", "--shard", "0/1")
    name = out / "plan.0-of-1.json"
    plan = json.loads(name.read_text())
    name.write_text(json.dumps(plan | {"config_hash": "of a restart"}))
    gathered = shards.gather([str(out)])
    assert gathered.records == [] and gathered.missing == plan["paths"]
    capsys.readouterr()
    assert run("merge", out) == outcome.INCONCLUSIVE
    assert "10 files were not scanned" in capsys.readouterr().err


@pytest.mark.parametrize("after", ["another model", "a torn file", "nothing"])
def test_old_lines_of_files_that_went_to_another_shard_are_not_merged(
    folder, tmp_path, after
):
    """A file came in front of them: each is the other shard's now."""
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    for name in "abc":
        files.save(models, f"{name}.safetensors", files.variables(ord(name)))
    for index in (0, 1):
        scan(models, out, "--shard", f"{index}/2")
    (old,) = [one for one in gathered(out) if one["path"].endswith("b.safetensors")]
    os.unlink(models / "b.safetensors")
    files.save(models, "0.safetensors", files.variables(1))
    if after == "another model":
        files.save(models, "b.safetensors", files.variables(2))
    elif after == "a torn file":
        (models / "b.safetensors").write_bytes(b"\x10\x00")
    else:
        files.save(models, "bb.safetensors", files.variables(3))
    for index in (0, 1):
        scan(models, out, "--shard", f"{index}/2")
    whole = tmp_path / "whole"
    code = scan(models, whole)
    assert run("merge", out) == code
    assert lines(out) == lines(whole)
    assert old["sha256"] not in {one["sha256"] for one in gathered(out)}


def gathered(out):
    return shards.gather([str(out)]).records


def test_shards_that_were_told_to_judge_differently_are_not_merged_unasked(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    for index, threshold in enumerate(("100", "1")):
        scan(folder, out, "--shard", f"{index}/2", "--threshold", threshold)
    capsys.readouterr()
    assert run("merge", out) == cli.USAGE
    assert "--threshold must be given here" in capsys.readouterr().err
    assert run("merge", out, "--threshold", "100") == outcome.INCONCLUSIVE
    judged = records.load(out / "results.jsonl").records
    assert {one["threshold"] for one in judged if not one["error"]} == {100.0}


def test_trusted_models_that_cannot_be_used_are_named(folder, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.pt").write_bytes(b"nothing")
    good = files.save(bad, "good.safetensors", files.variables(77))
    out = tmp_path / "out"
    scan(folder, out, "--calibrate", bad)
    told = capsys.readouterr().err
    assert f"note: {bad / 'x.pt'} is left out of --calibrate: " in told
    assert str(good) not in told
    (note, *_) = next(
        one["notes"]
        for one in records.load(out / "results.jsonl").records
        if not one["error"]
    )
    assert "the trusted baseline needs at least 2 models" in note


def test_a_merge_of_nothing_that_was_judged_is_no_clean_one(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    np.savez(models / "x.npz", a=np.float32(1), b=np.float32(2))
    assert scan(models, tmp_path / "whole") == outcome.NOTHING
    results = tmp_path / "whole" / "results.jsonl"
    page = tmp_path / "page"
    assert run("report", results, "--out", page) == outcome.NOTHING
    scan(models, tmp_path / "parts", "--shard", "0/1")
    assert run("merge", tmp_path / "parts") == outcome.NOTHING
    results.write_text("")
    assert run("report", results, "--out", page) == outcome.NOTHING


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "1/0", "0/2 ", "0/100001"])
def test_a_shard_that_is_none_is_refused(text, folder, tmp_path, capsys):
    assert scan(folder, tmp_path, f"--shard={text}") == 4
    assert "--shard must be i/n" in capsys.readouterr().err


def test_merging_something_else_is_refused(tmp_path, capsys):
    assert run("merge", tmp_path) == 4
    assert "no results of a shard" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text("")
    assert run("merge", tmp_path / "results.jsonl") == 4
    (tmp_path / "results.0-of-1.jsonl").write_text("")
    (tmp_path / "plan.0-of-1.json").write_text(json.dumps({"paths": 3}))
    assert run("merge", tmp_path) == 4
    assert "plan.0-of-1.json: not the plan of a shard" in capsys.readouterr().err


def test_a_name_of_more_shards_than_there_can_be_is_no_shard(tmp_path, capsys):
    for name in ("results.0-of-999999999999.jsonl", "results.3-of-3.jsonl"):
        (tmp_path / name).write_text("")
        assert run("merge", tmp_path) == run("merge", tmp_path / name) == 4
        assert "named like results.0-of-4.jsonl" in capsys.readouterr().err


def test_shards_that_are_absent_are_counted_where_they_are_many(tmp_path, capsys):
    (tmp_path / "results.0-of-100.jsonl").write_text("")
    assert run("merge", tmp_path) == 2
    assert "19/100, 20/100 and 79 more\n" in capsys.readouterr().err


def test_a_pipe_among_results_is_not_waited_at(folder, tmp_path, capsys):
    out = tmp_path / "out"
    scan(folder, out, "--shard", "0/2")
    for name in ("plan.0-of-2.json", "passed.0-of-2.jsonl"):
        os.unlink(out / name)
        os.mkfifo(out / name)
    for name in ("trusted.0-of-2.jsonl", "results.1-of-2.jsonl"):
        os.mkfifo(out / name)
    assert run("merge", out) == 2
    assert "no results of shard 1/2" in capsys.readouterr().err


DEEP = "[" * 500 + "]" * 500
"""Read without complaint; what walks through it by recursion comes to an end."""


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("flags", "5"),
        ("flags", f'{{"a": {DEEP}}}'),
        ("more", DEEP),
        ("class_names", "7"),
        ("class_names", "[7]"),
        ("baseline", '"x"'),
        ("paths", "[{}]"),
        ("config_hash", "[]"),
        ("profile", "[null]"),
        ("threshold", "1e999"),
        ("threshold", "true"),
        ("shard", "null"),
    ],
)
def test_a_plan_with_a_strange_field_is_refused_by_its_name(
    tmp_path, capsys, field, content
):
    plan = {"shard": "0/1", "paths": [], "config_hash": "a", field: "CONTENT"}
    written = json.dumps(plan).replace('"CONTENT"', content)
    (tmp_path / "results.0-of-1.jsonl").write_text("")
    (tmp_path / "plan.0-of-1.json").write_text(written)
    assert run("merge", tmp_path) == cli.USAGE
    told = capsys.readouterr().err
    assert "plan.0-of-1.json: not the plan of a shard (the field " + field in told
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "recursion"),
        ("{", "Expecting"),
        ("7", "expected an object, found a int"),
        ('{"paths": []}', "the field shard"),
        ('{"threshold": NaN}', "NaN is not valid in JSON"),
        ('{"threshold": 1%s}' % ("0" * 5000), "a whole number of 5,001 digits"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path, capsys, content, message):
    (tmp_path / "results.0-of-1.jsonl").write_text("")
    (tmp_path / "plan.0-of-1.json").write_text(content)
    assert run("merge", tmp_path) == cli.USAGE
    told = capsys.readouterr().err
    assert "plan.0-of-1.json: not the plan of a shard" in told and message in told


@given(st.lists(st.text(), unique=True), st.integers(1, 9))
def test_every_file_belongs_to_one_shard_and_all_have_as_many(paths, count):
    parts = [shards.Shard(index, count).of(sorted(paths)) for index in range(count)]
    assert sorted(sum(parts, [])) == sorted(paths)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(0, 99), st.integers(1, 99))
def test_a_shards_name_is_read_back(index, count):
    if index >= count:
        with pytest.raises(ValueError, match="--shard must be i/n"):
            shards.parse(f"{index}/{count}")
        return
    shard = shards.parse(f"{index}/{count}")
    assert shard == shards.Shard(index, count) and str(shard) == f"{index}/{count}"
    match = shards.NAME.fullmatch(shard.name("results.jsonl"))
    assert (int(match[1]), int(match[2])) == (index, count)
