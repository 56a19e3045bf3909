"""The zoo that ships with the package, from files to verdicts, as `make scan` does it."""

import json
import os

from ban_jax import cli, commands, results

NAMES = ("resnet18_w4_clean_s0", "resnet18_w4_badnets_t1_s0", "resnet18_w4_blend_t3_s0")


def test_clean_and_backdoored_models_are_told_apart_and_targets_are_named(tmp_path):
    paths = [os.path.join(commands.BUNDLED, f"{name}.safetensors") for name in NAMES]
    code = cli.main(["scan", *paths, "--data", "digits", "--out", str(tmp_path)])
    records = {
        os.path.basename(record["path"]): record
        for record in results.load(tmp_path / "results.jsonl").records
    }
    judged = [records[f"{name}.safetensors"] for name in NAMES]
    assert code == commands.FLAGGED
    assert [record["verdict"] for record in judged] == [
        "clean",
        "backdoored",
        "backdoored",
    ]
    assert [record["target"] for record in judged[1:]] == [1, 3]
    assert all(record["forward_equivalents"] <= 40_000 for record in judged)


def test_the_ground_truth_names_every_file_and_no_backdoor_failed():
    with open(os.path.join(commands.BUNDLED, "zoo.json")) as file:
        entries = json.load(file)
    files = {f for f in os.listdir(commands.BUNDLED) if f.endswith(".safetensors")}
    assert files == {entry["file"] for entry in entries}
    assert {entry["kind"] for entry in entries} == {"clean", "badnets", "blend"}
    for entry in entries:
        assert entry["clean_accuracy"] >= 0.95 and not entry["failed"]
