"""`--format`, `-o`, `--quiet`: what other programs read, and nothing else there."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

import ban_jax
from ban_jax import cli, records
from ban_jax.checkpoints import Found, Passed
from ban_jax.commands import choosing, documents, outcome
from tests.report import report_sample
from tests.scanning import files


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with results of a scan: a clean model, and a file that cannot be read."""
    top = tmp_path_factory.mktemp("documents")
    models = top / "models"
    models.mkdir()
    files.save(models, "good.safetensors", files.variables(0))
    (models / "broken.safetensors").write_bytes(b"no such thing")
    (models / "notes.txt").write_text("hello")
    run("scan", models, "--mode", "weights", "--out", top / "out", "--quiet")
    return top / "out"


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def report(results, tmp_path, *more):
    return run("report", results / "results.jsonl", "--out", tmp_path / "again", *more)


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ban-jax {ban_jax.__version__}\n"


def test_standard_output_carries_the_json_document_alone(results, tmp_path, capsys):
    code = report(results, tmp_path, "--format", "json")
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert code == outcome.INCONCLUSIVE
    assert document["schema_version"] == records.SCHEMA_VERSION
    assert document["summary"]["inconclusive"] == 1
    names = {os.path.basename(one["path"]): one for one in document["results"]}
    assert set(names) == {"good.safetensors", "broken.safetensors"}
    assert names["broken.safetensors"]["error"]
    assert [os.path.basename(one["path"]) for one in document["skipped"]] == [
        "notes.txt"
    ]
    assert "Report:" in told.err  # what a person reads is not lost


def test_a_scan_writes_the_same_document_as_a_report_of_it(results, tmp_path, capsys):
    models = results.parent / "models"
    scanned = tmp_path / "scanned.jsonl"
    more = ("--format", "jsonl", "-o", scanned)
    run("scan", models, "--mode", "weights", "--out", results, *more)
    capsys.readouterr()
    report(results, tmp_path, "--format", "jsonl")
    assert scanned.read_text() == capsys.readouterr().out
    assert scanned.read_bytes() == (results / "results.jsonl").read_bytes()


@pytest.fixture(scope="module")
def shards(results, tmp_path_factory):
    """A folder with the results of both halves of the same scan."""
    out = tmp_path_factory.mktemp("shards")
    for shard in ("0/2", "1/2"):
        more = ("--shard", shard, "--out", out, "--quiet")
        run("scan", results.parent / "models", "--mode", "weights", *more)
    return out


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "sarif"])
def test_a_merge_writes_the_document_of_all_shards(shards, tmp_path, capsys, form):
    asked = ("--out", tmp_path / "merged", "--format", form)
    assert run("merge", shards, *asked) == outcome.INCONCLUSIVE
    told = capsys.readouterr().out
    assert "broken.safetensors" in told
    assert "good.safetensors" in told or form == "sarif"  # clean: no result
    report(tmp_path / "merged", tmp_path, "--format", form)
    assert capsys.readouterr().out == told
    run("merge", shards, *asked, "--quiet", "-o", tmp_path / "document")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "document").read_text() == told


def test_a_refused_merge_leaves_no_folder(shards, tmp_path, capsys):
    out = tmp_path / "merged"
    asked = ("--out", out, "-o", tmp_path / "none" / "document")
    assert run("merge", shards, *asked) == cli.USAGE
    assert "--output must be in a folder that exists" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("merge", tmp_path / "empty", "--out", out) == cli.USAGE
    assert not out.exists()


def test_the_csv_document_is_results_csv(results, tmp_path, capsys):
    report(results, tmp_path, "--format", "csv")
    told = capsys.readouterr().out
    assert told == (tmp_path / "again" / "results.csv").read_text()
    assert len(list(csv.DictReader(io.StringIO(told)))) == 2


def test_the_table_can_go_to_a_file(results, tmp_path, capsys):
    report(results, tmp_path, "-o", tmp_path / "table.txt")
    table = (tmp_path / "table.txt").read_text()
    assert "broken.safetensors" in table and "2 checkpoints" in table
    assert "broken.safetensors" not in capsys.readouterr().out


def test_quiet_leaves_the_exit_code_and_the_document(results, tmp_path, capsys):
    assert report(results, tmp_path, "-q") == outcome.INCONCLUSIVE
    assert capsys.readouterr().out == ""
    report(results, tmp_path, "-q", "--format", "json")
    assert json.loads(capsys.readouterr().out)["results"]
    models = results.parent / "models"
    run("scan", models, "--mode", "weights", "--out", tmp_path / "new", "-q")
    told = capsys.readouterr()
    assert told.out == "" and "Scanning" not in told.err


def test_a_document_for_a_folder_is_refused_and_nothing_is_made(
    results, tmp_path, capsys
):
    assert report(results, tmp_path, "-o", tmp_path) == cli.USAGE
    assert "--output must be a file" in capsys.readouterr().err
    assert report(results, tmp_path, "-o", tmp_path / "none" / "x") == cli.USAGE
    assert "in a folder that exists" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_refused_scan_leaves_no_folder(results, tmp_path):
    models = results.parent / "models"
    out = tmp_path / "deep" / "out"
    assert run("scan", models, "--out", out, "--data", tmp_path / "no") == cli.USAGE
    assert run("scan", tmp_path / "no", "--out", out) == cli.USAGE
    assert os.listdir(tmp_path) == []


def test_no_checkpoint_is_an_empty_document(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    code = run("scan", tmp_path, "--format", "sarif", "--out", tmp_path / "out")
    assert code == outcome.NOTHING
    (run_of,) = json.loads(capsys.readouterr().out)["runs"]
    assert run_of["results"] == []
    (note,) = run_of["invocations"][0]["toolExecutionNotifications"]
    assert "text" in note["message"]["text"]


def test_a_document_holds_hostile_names_as_ascii(tmp_path):
    record = report_sample.judged("zoo/\x1b[2J\udcff.pt")
    for form in ("json", "sarif"):
        told = documents.render(form, [record])
        assert told.isascii() and "\x1b" not in told
        json.loads(told)


PATHS = ["a/optim/x.pt", "a/runs/y.pt", "a/runs/deep/z.onnx"]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ((), (), PATHS),
        (("*.pt",), (), PATHS[:2]),
        ((), ("optim",), PATHS[1:]),
        (("runs/*",), ("*.onnx",), PATHS[1:2]),
        (("*.pt", "*.onnx"), ("y.*",), [PATHS[0], PATHS[2]]),
        (("uns/*",), (), []),
    ],
)
def test_globs_choose_what_is_judged_and_the_rest_is_told_of(include, exclude, left):
    before = Found(PATHS, [Passed("a/notes.txt", "text")], [])
    found = choosing.chosen(before, include, exclude)
    assert found.paths == left
    assert {one.path for one in found.passed} == {"a/notes.txt", *PATHS} - {*left}


def test_a_scan_leaves_out_what_is_excluded_and_says_so(results, tmp_path, capsys):
    models = results.parent / "models"
    more = ("--exclude", "broken*", models, "--format", "json")
    run("scan", "--mode", "weights", "--out", tmp_path / "out", *more)
    document = json.loads(capsys.readouterr().out)
    assert len(document["results"]) == 1
    reasons = {one["reason"] for one in document["skipped"]}
    assert "left out by --exclude broken*" in reasons


PIPED = """
import sys
from ban_jax import cli
sys.argv = ["ban-jax", *sys.argv[1:]]
cli.entry()
"""


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_is_no_file_for_a_document(kind, results, tmp_path, capsys):
    path = tmp_path / "there"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/null")
    words = ["report", str(results / "results.jsonl"), "-o", str(path)]
    assert cli.main([*words, "--out", str(tmp_path / "o")]) == cli.USAGE
    told = f"--output must be a file, or - for standard output.*pipe {path}"
    assert re.search(told, capsys.readouterr().err)
    assert path.is_fifo() or path.is_symlink()


@pytest.mark.parametrize(
    "more", [("--format", "json", "-q"), ("--help",), ()], ids=["json", "help", "table"]
)
def test_a_broken_pipe_ends_in_silence(more, results, tmp_path):
    arguments = ["report", str(results / "results.jsonl"), "--out", str(tmp_path / "o")]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", PIPED, *arguments, *more],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (cli.UNREAD, "")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_was_closed_is_nobodys(closed, results, tmp_path):
    arguments = ["report", str(results / "results.jsonl"), "--out", str(tmp_path / "o")]
    number = {"stdout": 1, "stderr": 2}[closed]
    command = shlex.join([sys.executable, "-c", PIPED, *arguments])
    ended = subprocess.run(
        f"{command} {number}>&-", shell=True, capture_output=True, text=True
    )
    assert ended.returncode in (0, 1, 2) and "Error" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("more", [[], ["--format", "json"], ["--help"]])
def test_a_full_disk_behind_standard_output_is_said(more, results, tmp_path):
    arguments = ["report", str(results / "results.jsonl"), "--out", str(tmp_path / "o")]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PIPED, *arguments, *more],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == cli.INTERNAL and "Traceback" not in ended.stderr
    assert "standard output: no space left to write to" in ended.stderr


def test_a_scan_tells_when_it_compiles_and_how_long_it_took_without(
    results, tmp_path, capsys
):
    models = results.parent / "models"
    run("scan", models, "--mode", "weights", "--out", tmp_path / "new", "--no-resume")
    told = capsys.readouterr()
    assert told.err.count("compiling small/2 ...") == 1
    assert "seconds, " in told.err and " without compiling" in told.err
    assert "compiling" not in told.out
