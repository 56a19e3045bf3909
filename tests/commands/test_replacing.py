"""`-o` and `--trace`: they replace documents, and refuse all else before the work."""

import json
import os
import shutil

import pytest

from ban_jax import cli, records
from ban_jax.commands import documents, replacing
from tests.report import report_sample
from tests.scanning import files


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A folder with a model, its results whole and as a shard."""
    top = tmp_path_factory.mktemp("replacing")
    (top / "models").mkdir()
    files.save(top / "models", "a.safetensors", files.variables(0))
    for more in ((), ("--shard", "0/1")):
        run("scan", top / "models", "--mode", "weights", "--out", top / "out", *more)
    return top


@pytest.fixture
def here(scanned, tmp_path, monkeypatch):
    """The same, which may be changed: where the command is started."""
    shutil.copytree(scanned, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return cli.main([str(word) for word in words])


def contents(folder):
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


SCAN = ("scan", "models", "--mode", "weights", "--out", "out")
JSON = ("--format", "json")
REPORT = ("report", "out/results.jsonl", "--out", "again")
MERGE = ("merge", "out")
PROFILE = ("profile", "models", "out/results.jsonl", "--mode", "weights")
KEPT = "is of the files that a folder of results keeps"
READ = "is read by this command"
NONE = "is there, and no document"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*SCAN, *JSON, "-o", "out/results.jsonl"), KEPT),
        ((*SCAN, *JSON, "-o", "out/../out/Results.JSONL"), KEPT),
        ((*SCAN, "--format", "csv", "-o", "out/results.csv"), KEPT),
        ((*SCAN, *JSON, "-o", "out/report.html"), KEPT),
        ((*SCAN, *JSON, "-o", "out/passed.jsonl"), KEPT),
        ((*SCAN, *JSON, "-o", "out/trusted.jsonl"), KEPT),
        ((*SCAN, *JSON, "-o", "out/results.3-of-9.jsonl"), KEPT),
        ((*SCAN, *JSON, "-o", "out/plan.0-of-1.json"), KEPT),
        ((*SCAN, *JSON, "-o", "out/.results.jsonl.lock"), KEPT),
        ((*SCAN, *JSON, "-o", "link/results.jsonl"), KEPT),
        ((*SCAN, "--trace", "out/results.jsonl"), KEPT),
        ((*SCAN, "--trace", "out/report.html"), KEPT),
        (("scan", "models", "--out", "new", *JSON, "-o", "out/results.jsonl"), KEPT),
        ((*SCAN, *JSON, "-o", "models/a.safetensors"), NONE),
        ((*SCAN, "--trace", "models/a.safetensors"), NONE),
        ((*SCAN, *JSON, "-o", "models/config.json"), NONE),
        ((*SCAN, *JSON, "-o", "models/old.pt"), READ),
        ((*SCAN, "--calibrate", "note.txt", *JSON, "-o", "note.txt"), READ),
        ((*SCAN, *JSON, "-o", "clean.npz", "--data", "clean.npz"), "clean.npz"),
        ((*SCAN, *JSON, "-o", "ban-jax.toml"), READ),
        (("scan", "models/a.safetensors#net", "-o", "models/a.safetensors"), READ),
        ((*REPORT, *JSON, "-o", "out/results.jsonl"), KEPT),
        ((*REPORT, *JSON, "-o", "out/passed.jsonl"), KEPT),
        ((*REPORT, *JSON, "-o", "again/results.jsonl"), KEPT),
        ((*REPORT, "--trusted", "t.jsonl", *JSON, "-o", "t.jsonl"), READ),
        ((*REPORT, "--profile", "p.json", *JSON, "-o", "p.json"), READ),
        ((*MERGE, *JSON, "-o", "out/results.0-of-1.jsonl"), KEPT),
        ((*MERGE, *JSON, "-o", "out/results.jsonl"), KEPT),
        ((*MERGE, "--out", "again", *JSON, "-o", "out/plan.0-of-1.json"), KEPT),
        ((*PROFILE, "-o", "out/results.jsonl"), KEPT),
        ((*PROFILE, "-o", "models/a.safetensors"), NONE),
        ((*PROFILE, "--null", "t.jsonl", "-o", "t.jsonl"), READ),
    ],
)
def test_what_is_read_or_kept_is_not_replaced(here, capsys, words, told):
    os.symlink("out", "link")
    os.mkdir("again")
    shutil.copy("out/results.jsonl", "t.jsonl")
    (here / "models" / "config.json").write_text('{"architecture": "resnet18"}')
    (here / "models" / "old.pt").write_bytes(b"(dp0\nS'a'\np1\nI1\ns.")
    (here / "clean.npz").write_bytes(b"PK\x03\x04")
    (here / "p.json").write_text('{\n "format": 2}')
    (here / "note.txt").write_text("mine")
    (here / "ban-jax.toml").write_text("[bench]\n")
    before = contents(here)
    assert run(*words) == cli.USAGE
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said
    assert contents(here) == before


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "sarif"])
def test_a_document_among_the_models_is_replaced_by_the_next(here, form):
    words = ("scan", ".", "--mode", "weights", "--out", "out", "--format", form)
    long = documents.render(
        "json" if form == "table" else form,
        [report_sample.judged(f"zoo/{number}.pt") for number in range(99)],
    )
    path = here / f"document.{form}"
    path.write_text("x" * 20_000 if form == "table" else long)
    assert len(path.read_bytes()) > 16_384
    for _ in range(2):
        assert run(*words, "-o", path) in (0, 1, 2)
    assert "a.safetensors" in path.read_text() or form == "sarif"


@pytest.mark.parametrize("name", ["new.json", "out/scan.json", "empty.json", "t.txt"])
def test_a_new_file_an_empty_one_and_text_may_be_written(here, name):
    (here / "empty.json").write_bytes(b"")
    (here / "t.txt").write_text("an older table: \u2503 \u25b2")
    assert run(*SCAN, *JSON, "-o", name) in (0, 1)
    assert json.loads((here / name).read_text())["results"]
    assert records.load(here / "out" / "results.jsonl").records


def test_a_document_may_be_called_results_where_no_scan_keeps_its_own(here):
    for _ in range(2):
        assert run(*SCAN, "--format", "jsonl", "-o", "results.jsonl") in (0, 1)
    assert records.load("results.jsonl").records


def test_a_trace_is_replaced_by_the_next(here):
    for _ in range(2):
        assert run(*SCAN, "--trace", "trace.json") in (0, 1)
    assert json.loads((here / "trace.json").read_text())["traceEvents"]


def test_a_shipped_profile_may_be_replaced_by_a_new_one(here):
    (here / "p.json").write_text('{\n "format": 2,\n "name": "cifar10"}')
    assert replacing._is_document("p.json")
