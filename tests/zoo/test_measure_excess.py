"""Older zoos get the success they have without trigger; nothing else in them changes."""

import json
import os
import shutil

import pytest

from ban_jax import zoo
from ban_jax.zoo import success
from benchmarks import measure_excess

KEPT = ("resnet18_w4_blend_t3_s0", "resnet18_w4_clean_s0")
MEASURED = ("untriggered", "excess")


@pytest.fixture
def older(tmp_path):
    """A clean and a backdoored model, listed as before excess was measured."""
    folder = tmp_path / "zoo"
    shutil.copytree(zoo.BUNDLED, folder)
    entries = [
        {key: value for key, value in entry.items() if key not in MEASURED}
        for entry in json.loads((folder / "zoo.json").read_text())
        if entry["name"] in KEPT
    ]
    (folder / "zoo.json").write_text(json.dumps(entries))
    return folder


def listed(folder):
    return json.loads((folder / "zoo.json").read_text())


def test_what_the_shipped_zoo_lists_is_measured_again_from_its_files(older):
    before = {entry["name"]: entry for entry in listed(older)}
    text = measure_excess.complete(str(older), None)
    assert text == (older / "summary.txt").read_text() and "excess ASR" in text
    with open(os.path.join(zoo.BUNDLED, "zoo.json")) as file:
        shipped = {entry["name"]: entry for entry in json.load(file)}
    found = {entry["name"]: entry for entry in listed(older)}
    assert set(found) == set(KEPT) and found[KEPT[1]] == before[KEPT[1]]
    # One image may lie on the border for another compiled program.
    for name in MEASURED:
        assert found[KEPT[0]][name] == pytest.approx(shipped[KEPT[0]][name], abs=0.003)
    assert before[KEPT[0]].items() <= found[KEPT[0]].items()


def test_a_model_that_does_not_show_what_is_listed_is_refused(older):
    entries = listed(older)
    entries[0]["asr"] = 0.7
    (older / "zoo.json").write_text(json.dumps(entries))
    with pytest.raises(
        ValueError, match=f"{KEPT[0]}.safetensors: asr is listed as 0.7"
    ):
        measure_excess.complete(str(older), None)
    assert listed(older) == entries


def test_a_backdoor_that_images_have_without_trigger_is_found_to_have_failed():
    entry = {
        "file": "ssdt.safetensors", "kind": "ssdt", "mode": "one_to_one",
        "clean_accuracy": 0.95, "asr": 0.95, "failed": False, "seed": 3,
    }  # fmt: skip
    figures = success.as_json(success.Metrics(0.95, asr=0.94, untriggered=0.80556))
    assert measure_excess.completed(entry, figures, 0.9) == {
        **entry, "untriggered": 0.8056, "excess": 0.1444, "failed": True
    }  # fmt: skip
