"""A scan in parts, and its parts put together: `weights` mode, so nothing compiles."""

import json
import os

import jax
import numpy as np
import pytest

from ban_jax import checkpoints, cli, records
from ban_jax.scanning import shards

SPEC = checkpoints.ModelSpec("resnet18", num_classes=5, width=2, in_channels=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine models of one kind, enough for a population, and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    abstract = dict(checkpoints_abstract())
    for number in range(9):
        rng = np.random.default_rng(number)
        variables = jax.tree.map(
            lambda leaf, rng=rng: rng.random(leaf.shape, np.float32), abstract
        )
        checkpoints.write_safetensors(
            folder / f"m{number}.safetensors", variables, SPEC
        )
    (folder / "torn.safetensors").write_bytes(b"\x10\x00")
    return folder


def checkpoints_abstract():
    from ban_jax import models

    abstract = dict(models.abstract_variables(SPEC.create()))
    del abstract["normalisation"]
    return abstract


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def scan(folder, out, *more):
    return run("scan", folder, "--mode", "weights", "--out", out, *more)


def lines(out):
    found = records.load(out / "results.jsonl").records
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in found
    ]


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
    good = {"path": "a", "key": "k", "vectors": {}}
    for name, record in (("one", good), ("two", {"path": "a", "key": None})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.0-of-1.jsonl").write_bytes(records.encode(record))
    for order in (("one", "two"), ("two", "one")):
        gathered = shards.gather([str(tmp_path / name) for name in order])
        assert gathered.records == [good]


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "1/0", "0/2 "])
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


def test_every_file_belongs_to_one_shard():
    paths = [f"{number:03}" for number in range(11)]
    parts = [shards.Shard(index, 4).of(paths) for index in range(4)]
    assert sorted(sum(parts, [])) == paths
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
