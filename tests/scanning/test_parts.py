"""A file with several classifiers: a line for each, one for the file, in every command."""

import csv
import os
import shutil

import numpy as np
import pytest

from ban_jax import api, checkpoints, cli, records
from ban_jax.commands import outcome, repair
from ban_jax.records import parts
from ban_jax.repairs import writing
from ban_jax.zoo import BUNDLED
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
HARMLESS = builders.state_dict(SPEC)
rng = np.random.default_rng(0)
HARMLESS["linear.weight"] = rng.standard_normal((10, 16)).astype(np.float32)
HARMLESS["linear.bias"] = np.zeros(10, np.float32)
BACKDOORED = {**HARMLESS, "linear.weight": HARMLESS["linear.weight"].copy()}
BACKDOORED["linear.weight"][3] += 20


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    write(path, {"state_dict": HARMLESS, "state_dict_ema": BACKDOORED})
    return path


def write(path, root: object) -> None:
    path.write_bytes(builders.nested_file(root))


def scan(model, *more) -> tuple[int, dict[str, records.Record]]:
    """Scans the model's folder; the exit code and the lines by what follows the name."""
    out = model.parent.parent / "out"
    told = ("scan", model.parent, "--mode", "weights", "--out", out, *more)
    code = cli.main([*map(str, told)])
    return code, lines(out / "results.jsonl", model)


def lines(path, model) -> dict[str, records.Record]:
    found = records.load(path).records
    return {line["path"].removeprefix(str(model)): line for line in found}


def test_each_classifier_has_a_verdict_and_the_file_the_worst(model):
    code, found = scan(model)
    assert code == outcome.FLAGGED
    assert list(found) == ["", "#state_dict", "#state_dict_ema"]
    verdicts = [line["verdict"] for line in found.values()]
    assert verdicts == ["backdoored", "clean", "backdoored"]
    file, clean, backdoored = found.values()
    assert file["parts"] == [clean["path"], backdoored["path"]]
    assert (file["target"], file["score"]) == (3, backdoored["score"])
    assert file["reason"].startswith(
        "the worst of 2 classifiers (state_dict clean, state_dict_ema backdoored): "
    )
    assert {clean["part_of"], backdoored["part_of"]} == {str(model)}
    assert file["part_of"] is None and file["key"] is None


def test_a_file_counts_once_in_what_is_said_of_the_whole_scan(model, capsys):
    scan(model)
    told = capsys.readouterr().out
    assert "1 checkpoint and 1 further classifier inside: 1 backdoored" in told
    page = (model.parent.parent / "out" / "report.html").read_text()
    assert "The checkpoint appears to carry a backdoor." in page


def test_a_part_that_was_not_judged_keeps_the_file_from_being_clean(model):
    odd = {**HARMLESS, "linear.bias": np.ones(43, np.float32)}
    write(model, {"state_dict": HARMLESS, "state_dict_ema": odd})
    code, found = scan(model)
    assert code == outcome.INCONCLUSIVE
    assert found["#state_dict_ema"]["part_of"] == str(model)
    assert found[""]["verdict"] == "inconclusive" != found["#state_dict"]["verdict"]
    assert "bias for 43" in str(found[""]["error"])


def test_a_scan_that_goes_on_measures_no_part_again(model, monkeypatch):
    _, first = scan(model)
    monkeypatch.setattr(api.scanning.chunks.Scan, "measure", None)
    assert scan(model) == (outcome.FLAGGED, first)


def test_parts_of_an_earlier_content_do_not_stay(model):
    scan(model)
    write(model, {"state_dict": HARMLESS})
    code, found = scan(model)
    assert (code, list(found)) == (outcome.CLEAN, [""])
    assert not found[""]["parts"]
    write(model, {"a": HARMLESS, "b": BACKDOORED})
    assert list(scan(model)[1]) == ["", "#a", "#b"]


def test_report_and_csv_and_merge_tell_of_the_same_lines(model, tmp_path):
    _, found = scan(model)
    results = tmp_path / "out" / "results.jsonl"
    again = tmp_path / "again"
    assert cli.main(["report", str(results), "--out", str(again)]) == outcome.FLAGGED
    assert lines(again / "results.jsonl", model) == found
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = {row["path"]: row["verdict"] for row in csv.DictReader(file)}
    assert rows == {line["path"]: line["verdict"] for line in found.values()}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "state_dict_ema" in page
    scan(model, "--shard", "0/1")
    code = cli.main(["merge", str(tmp_path / "out"), "--out", str(tmp_path / "merged")])
    assert code == outcome.FLAGGED
    merged = lines(tmp_path / "merged" / "results.jsonl", model)
    assert {n: x["verdict"] for n, x in merged.items()} == {
        n: x["verdict"] for n, x in found.items()
    }


def test_a_named_part_is_scanned_alone(model, tmp_path):
    told = (f"{model}#state_dict", "--mode", "weights", "--out", tmp_path / "out")
    assert cli.main(["scan", *map(str, told)]) == outcome.CLEAN
    found = lines(tmp_path / "out" / "results.jsonl", model)
    assert list(found) == ["#state_dict"]


def test_repairs_of_a_scan_are_of_the_parts_it_flagged(model, tmp_path):
    scan(model)
    flags = repair.Flags(from_scan=str(tmp_path / "out" / "results.jsonl"))
    assert repair.candidates(flags) == [f"{model}#state_dict_ema"]


def test_repaired_parts_have_names_that_tell_file_and_part(model):
    write(model, {"a": HARMLESS, "clients": [BACKDOORED]})
    parts = [part.candidate for part in checkpoints.read_all(model)]
    names = [writing.name_of(one, "digest") for one in parts]
    assert [name[:-8] for name in names] == ["model-a-", "model-clients-0-"]
    assert len({name[-8:] for name in names}) == 2
    # Repaired otherwise, such as on images of another size, it is another file.
    assert writing.name_of(parts[0], "other") not in names


def test_repaired_files_have_names_that_every_file_system_takes(model):
    name = "ä" * 110 + ".safetensors"
    long = os.path.join(os.path.dirname(model), name)
    shutil.copy(os.path.join(BUNDLED, "resnet18_w4_clean_s0.safetensors"), long)
    (one,) = [part.candidate for part in checkpoints.read_all(long)]
    output = f"{writing.name_of(one, 'digest')}.safetensors.partial"
    assert len(os.fsencode(output)) < 200 and output.startswith("ä" * 50)


def test_the_library_yields_the_file_after_its_parts(model):
    found = list(api.scan(str(model), detector="weights"))
    assert [line["verdict"] for line in found] == ["clean", "backdoored", "backdoored"]
    assert found[-1]["path"] == str(model) and found[-1]["parts"]


def test_the_line_of_a_file_is_no_evidence(model):
    _, found = scan(model)
    assert [line["path"] for line in parts.evidence(found.values())] == [
        found["#state_dict"]["path"],
        found["#state_dict_ema"]["path"],
    ]
