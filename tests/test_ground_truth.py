"""The trigger of a model in a zoo: found for its files alone, or said why not."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from ban_jax import attacks
from ban_jax.attacks import files
from ban_jax.commands import scan as scan_command
from ban_jax.zoo import ground_truth

NAME = "resnet18_w4_badnets_t1_s0"
SHAPE = (8, 8, 1)


def bundled(name=NAME):
    return os.path.join(scan_command.BUNDLED, f"{name}.safetensors")


def test_a_zoo_tells_the_attack_and_the_very_trigger_of_its_model():
    truth = ground_truth.find(bundled(), SHAPE, 10)
    assert truth.kind == "badnets" and isinstance(truth.attack, attacks.BadNets)
    assert (truth.spec.target, truth.spec.mode) == (1, "all_to_one")
    blank = np.zeros((1, *SHAPE), np.float32)
    changed = np.asarray(truth.kernel.trigger(truth.state, blank)) != 0
    rows, columns = np.nonzero(changed[0, ..., 0])
    # A 3x3 patch in the lower right corner.
    assert rows.min() >= 5 and columns.min() >= 5 and changed.any()


def test_a_clean_model_has_no_trigger():
    truth = ground_truth.find(bundled("resnet18_w4_clean_s0"), SHAPE, 10)
    assert truth.kind == "clean" and truth.spec.rate == 0


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.4])
def test_a_generator_is_had_whatever_the_batches_were_that_the_model_learned_from(
    tmp_path, rate
):
    attack = attacks.IAD(width=2)
    state = attack.init(jax.random.key(0), SHAPE)
    trigger = tmp_path / "one.trigger"
    files.save(str(trigger), state)
    index = {
        "file": "one.safetensors", "kind": "iad", "attack": dict(vars(attack)),
        "poison_rate": rate, "target": 0, "mode": "all_to_one", "victim": None,
        "trigger_file": trigger.name,
    }  # fmt: skip
    (tmp_path / "zoo.json").write_text(json.dumps([index]))
    truth = ground_truth.find(str(tmp_path / "one.safetensors"), SHAPE, 10)
    assert truth.kind == "iad" and truth.spec.rate == rate


def test_an_orbax_folder_below_the_zoo_is_found_too(tmp_path):
    shutil.copytree(scan_command.BUNDLED, tmp_path / "zoo")
    index = tmp_path / "zoo" / "zoo.json"
    entries = json.loads(index.read_text())
    for entry in entries:
        entry["orbax"] = f"orbax/{entry['name']}"
    index.write_text(json.dumps(entries))
    path = tmp_path / "zoo" / "orbax" / NAME
    path.mkdir(parents=True)
    assert ground_truth.find(str(path), SHAPE, 10).kind == "badnets"


def test_other_files_have_no_ground_truth(tmp_path):
    path = tmp_path / os.path.basename(bundled())
    shutil.copy(bundled(), path)
    assert ground_truth.find(str(path), SHAPE, 10) is None
    assert ground_truth.find(str(tmp_path / "zoo" / "x.pt"), SHAPE, 10) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attack": {"sise": 3}}, "sise"),
        ({"trigger_file": "triggers/none.trigger"}, "not a readable trigger"),
        ({"target": 12}, "target must be a class"),
        ({"kind": "unknown"}, "unknown attack"),
        ("[{", "JSON|Expecting"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_ground_truth_that_cannot_be_used_is_an_error_that_says_why(
    change, reason, tmp_path
):
    shutil.copytree(scan_command.BUNDLED, tmp_path / "zoo")
    index = tmp_path / "zoo" / "zoo.json"
    entries = json.loads(index.read_text())
    for entry in entries:
        if entry["name"] == NAME:
            entry.update(change if isinstance(change, dict) else {})
    index.write_text(change if isinstance(change, str) else json.dumps(entries))
    with pytest.raises(ValueError, match=reason) as error:
        ground_truth.find(str(tmp_path / "zoo" / f"{NAME}.safetensors"), SHAPE, 10)
    assert str(error.value).startswith(str(index))
