"""`ban-jax compare`, from flags to files, with detectors that cost next to nothing."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest

from ban_jax import checkpoints, cli
from ban_jax.comparing import runs, writing
from ban_jax.scanning import scan
from ban_jax.zoo import BUNDLED, labelled
from tests.checkpoints import builders
from tests.report import page_parser

ONES = np.ones(10, np.float32)
CHEAP = ["--detectors", "trojan_signatures,weights"]


@pytest.fixture
def zoo(tmp_path):
    """A copy of the bundled zoo that may be changed."""
    folder = tmp_path / "zoo"
    shutil.copytree(BUNDLED, folder, ignore=shutil.ignore_patterns("pictures"))
    return folder


def change(zoo, index, **changes):
    entries = json.loads((zoo / "zoo.json").read_text())
    entries[index] |= changes
    (zoo / "zoo.json").write_text(json.dumps(entries))
    return entries[index]


def compare(zoo, out, *more):
    code = cli.main(["compare", str(zoo), "--out", str(out), *CHEAP, *more])
    return code, json.loads((out / "comparison.json").read_text())


def test_all_files_are_written_and_tell_the_same(zoo, tmp_path, capsys):
    code, told = compare(zoo, tmp_path / "out")
    assert code == 0
    assert [one["name"] for one in told["methods"]] == ["trojan_signatures", "weights"]
    assert (told["models"], told["clean"], told["failed"]) == (12, 4, [])
    for one in told["methods"]:
        assert {row["attack"] for row in one["rows"]} == {"clean", "badnets", "blend"}
        assert one["total"]["flagged"]["total"] == 8
        assert one["seconds"] > 0 and one["false_alarms"]["total"] == 4
    with open(tmp_path / "out" / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first = told["methods"][0]
    whole = next(r for r in rows if r["detector"] == "trojan_signatures")
    assert float(whole["auc"]) == first["total"]["auc"]["value"]
    assert len(rows) == sum(1 + len(one["rows"]) for one in told["methods"])
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "trojan_signatures" in page and page.count("<svg") >= 2
    assert "http://" not in page and "https://" not in page
    page_parser.Page(page)
    printed = capsys.readouterr().out
    heads = [line for line in printed.splitlines() if line.startswith("detector ")]
    assert len(heads) == 1  # one table, when all are through
    lines = [line for line in printed.splitlines() if " of 2: " in line]
    assert re.fullmatch(
        r"1 of 2: trojan_signatures: \d/8 backdoored ones flagged, \d/4 clean ones, "
        r"[\d.e-]+ s per model",
        lines[0],
    )
    assert lines[1].startswith("2 of 2: weights: ") and len(lines) == 2


def test_some_of_the_files_are_judged_alone(zoo, tmp_path):
    _, told = compare(
        zoo, tmp_path / "out", "--include", "resnet18*", "--exclude", "*blend*"
    )
    kept = [p.name for p in zoo.glob("resnet18*.safetensors") if "blend" not in p.name]
    assert told["models"] == len(kept) < 12
    first = told["methods"][0]
    assert {row["architecture"] for row in first["rows"]} == {"resnet18"}
    assert {row["attack"] for row in first["rows"]} == {"clean", "badnets"}
    assert told["flags"]["exclude"] == ["*blend*"]


def test_a_failed_backdoor_is_left_out_and_counted(zoo, tmp_path):
    entries = labelled.entries(str(zoo))
    index = next(i for i, one in enumerate(entries) if one["kind"] == "blend")
    failed = change(zoo, index, failed=True)
    _, told = compare(zoo, tmp_path / "out")
    assert told["models"] == 11 and told["failed"] == [failed["name"]]
    names = {line["model"] for line in told["methods"][0]["candidates"]}
    assert failed["name"] not in names and len(names) == 11


def test_a_file_that_cannot_be_read_is_neither_found_nor_clean(zoo, tmp_path):
    entries = labelled.entries(str(zoo))
    (zoo / entries[0]["file"]).write_bytes(b"nothing")
    _, told = compare(zoo, tmp_path / "out")
    total = told["methods"][0]["total"]
    assert total["inconclusive"] == 1 and total["models"] == 12
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Not judged" in page


def test_a_file_of_several_classifiers_is_not_judged_and_says_why(zoo, tmp_path):
    weights = builders.state_dict(checkpoints.ModelSpec("resnet18", 10, 2))
    whole = {"state_dict": weights, "state_dict_ema": weights | {"linear.bias": ONES}}
    (zoo / "model.pt").write_bytes(builders.nested_file(whole))
    changed = change(zoo, 0, file="model.pt")
    _, told = compare(zoo, tmp_path / "out")
    assert told["methods"][0]["total"]["inconclusive"] == 1
    (line,) = [
        line
        for line in told["methods"][0]["candidates"]
        if line["model"] == changed["name"]
    ]
    assert "holds several classifiers" in json.dumps(line)


def test_a_run_that_is_started_again_measures_nothing_twice(zoo, tmp_path, monkeypatch):
    _, first = compare(zoo, tmp_path / "out")
    measured = []
    whole = scan.scan

    def counted(*args, **more):
        for one in whole(*args, **more):
            measured.append(one.is_new)
            yield one

    monkeypatch.setattr(runs.scan, "scan", counted)
    _, second = compare(zoo, tmp_path / "out")
    assert first == second and len(measured) == 24 and not any(measured)
    compare(zoo, tmp_path / "out", "--no-resume")
    assert all(measured[24:])


def test_time_is_added_up_over_runs(zoo, tmp_path, monkeypatch):
    entries = labelled.entries(str(zoo))
    whole = (zoo / "zoo.json").read_text()
    (zoo / "zoo.json").write_text(json.dumps(entries[:6]))
    compare(zoo, tmp_path / "out")
    times = json.loads((tmp_path / "out" / runs.TIMES).read_text())
    before = {key: one["candidates"] for key, one in times.items()}
    (zoo / "zoo.json").write_text(whole)
    compare(zoo, tmp_path / "out")
    times = json.loads((tmp_path / "out" / runs.TIMES).read_text())
    after = {key: one["candidates"] for key, one in times.items()}
    assert set(before) <= set(after) and sum(after.values()) == 24
    assert sum(before.values()) == 12


def test_time_that_was_spent_before_a_stop_counts(zoo, tmp_path, monkeypatch):
    """Else a run that goes on divides the closer look of all models by those it read."""

    def stopped(*args, **more):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(runs.closer, "look", stopped)
        assert cli.main(["compare", str(zoo), "--out", str(tmp_path / "out"), *CHEAP])
    times = json.loads((tmp_path / "out" / runs.TIMES).read_text())
    (before,) = times.values()
    assert before["candidates"] > 0 < before["device_seconds"]
    compare(zoo, tmp_path / "out")
    times = json.loads((tmp_path / "out" / runs.TIMES).read_text())
    assert sum(one["candidates"] for one in times.values()) == 24


def test_hostile_names_stay_text(zoo, tmp_path):
    change(zoo, 0, name="<script>alert(1)</script>", kind="<b>bad\u202e</b>")
    entries = labelled.entries(str(zoo))
    (zoo / entries[0]["file"]).write_bytes(b"nothing")
    compare(zoo, tmp_path / "out")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "<script>alert" not in page and "<b>bad" not in page and "\u202e" not in page


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--detectors", "weights,nonsense"], "got 'nonsense'"),
        (["--detectors", "directed"], "--detectors must be of"),
        (["--budget", "0"], "--budget must be more than 0 seconds"),
        (["--budget", "inf"], "--budget must be more than 0 seconds"),
        (["--passes", "0"], "--passes must be at least 1"),
        (["--detectors", " ,"], "--detectors must be at least one name"),
        (["--baseline", "trusted"], "invalid choice"),
        (
            ["--passes", "9", "--budget", "1"],
            "--budget and --passes exclude each other",
        ),
        (["--detectors", "ban"], "needs clean images"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_any_work(
    zoo, tmp_path, capsys, flags, told
):
    out = tmp_path / "out"
    assert cli.main(["compare", str(zoo), "--out", str(out), *flags]) == cli.USAGE
    assert told in capsys.readouterr().err
    assert not out.exists() or not [n for n in os.listdir(out) if n.endswith("jsonl")]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1%s}' % ("0" * 400), "7"])
def test_a_kept_table_that_is_none_is_told_of(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"kept\.json: cannot be read"):
        writing.read_rates(str(path))
    with pytest.raises(ValueError, match=r"kept\.json: cannot be read"):
        runs._read(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no such file"),
        ("{", "cannot be read"),
        ("{}", "expected a list"),
        ('[{"file": "a"}]', "model 1 needs 'kind' as text, found None"),
        ("[3]", "model 1 needs 'file' as text"),
        ("[]", "no model in it"),
    ],
)
def test_a_folder_without_truth_is_told_of(tmp_path, capsys, text, told):
    if text is not None:
        (tmp_path / "zoo.json").write_text(text)
    out = str(tmp_path / "out")
    assert cli.main(["compare", str(tmp_path), "--out", out, *CHEAP]) == cli.USAGE
    assert told in capsys.readouterr().err
