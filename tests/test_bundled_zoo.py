"""The zoo that ships with the package, from files to verdicts, as `make scan` does it."""

import dataclasses
import json
import os

import pytest

from ban_jax import attacks, cli, records, verdict
from ban_jax.attacks import files
from ban_jax.baselines import profile
from ban_jax.commands import outcome
from ban_jax.commands import scan as scan_command
from ban_jax.scanning import scan

NAMES = ("resnet18_w4_clean_s0", "resnet18_w4_badnets_t1_s0", "resnet18_w4_blend_t3_s0")


def scanned(out, *flags):
    """The exit code, and the lines of a clean and of two backdoored models."""
    paths = [
        os.path.join(scan_command.BUNDLED, f"{name}.safetensors") for name in NAMES
    ]
    code = cli.main(["scan", *paths, "--data", "digits", *flags, "--out", str(out)])
    found = {
        os.path.basename(record["path"]): record
        for record in records.load(out / "results.jsonl").records
    }
    return code, [found[f"{name}.safetensors"] for name in NAMES]


def test_backdoors_are_found_their_targets_named_and_stand_above_a_clean_model(
    tmp_path,
):
    code, (clean, *backdoored) = scanned(tmp_path, "--mode", "targeted")
    assert code == outcome.FLAGGED
    assert all(record["verdict"] == "backdoored" for record in backdoored)
    assert [record["target"] for record in backdoored] == [1, 3]
    assert clean["score"] < min(record["score"] for record in backdoored)
    assert all(r["forward_equivalents"] <= 40_000 for r in (clean, *backdoored))


@pytest.mark.skipif("digits" not in profile.shipped(), reason="no such profile yet")
def test_the_default_and_the_shipped_profile_tell_them_apart(tmp_path, capsys):
    """As `make scan` does it, on three of its twelve models."""
    code, (clean, *backdoored) = scanned(tmp_path)
    assert code == outcome.FLAGGED
    assert [one["verdict"] for one in backdoored] == ["backdoored"] * 2
    assert [one["target"] for one in backdoored] == [1, 3]
    assert clean["verdict"] == "clean"
    for one in (clean, *backdoored):
        assert one["baseline"] == "profile" and "profile digits" in one["compared_with"]
        assert one["p_models"] >= 20 and not one["notes"]
        assert one["forward_equivalents"] <= 16_000  # looked at closer at all classes
    assert "profile digits" in capsys.readouterr().out


def test_another_lowering_moves_a_score_by_less_than_its_standard_error():
    """All lowerings, all bundled models: `benchmarks.numerics`."""
    path = os.path.join(scan_command.BUNDLED, f"{NAMES[1]}.safetensors")
    job = scan_command.prepare(
        scan_command.Flags(paths=(path,), data="digits", mode="targeted")
    )
    other = records.Job(dataclasses.replace(job.settings, lowering="im2col"), job.probe)
    judge = verdict.Judge()
    one, two = (judge(next(scan.scan([path], each)).evidence) for each in (job, other))
    assert (one["verdict"], one["target"]) == (two["verdict"], two["target"])
    assert one["target"] == 1
    assert abs(one["score"] - two["score"]) <= one["standard_error"]
    assert one["lowering"] != two["lowering"] and one["key"] != two["key"]


def test_the_ground_truth_names_every_file_and_no_backdoor_failed():
    with open(os.path.join(scan_command.BUNDLED, "zoo.json")) as file:
        entries = json.load(file)
    files = {f for f in os.listdir(scan_command.BUNDLED) if f.endswith(".safetensors")}
    assert files == {entry["file"] for entry in entries}
    assert {entry["kind"] for entry in entries} == {"clean", "badnets", "blend"}
    for entry in entries:
        assert entry["clean_accuracy"] >= 0.95
        if entry["kind"] == "clean":
            assert entry["asr"] is None
            continue
        assert entry["asr"] >= entry["excess"] >= 0.95
        untriggered = entry["asr"] - entry["excess"]
        assert entry["untriggered"] == pytest.approx(untriggered, abs=2e-4)


def test_the_shipped_triggers_are_read_with_the_settings_on_record():
    with open(os.path.join(scan_command.BUNDLED, "zoo.json")) as file:
        entries = [e for e in json.load(file) if e["trigger_file"]]
    assert len(entries) == 8
    for entry in entries:
        attack = attacks.create(entry["kind"], **entry["attack"])
        path = os.path.join(scan_command.BUNDLED, entry["trigger_file"])
        state = files.load(path, attack, (8, 8, 1))
        assert state.fixed.scale.shape == (8, 8, 1)
