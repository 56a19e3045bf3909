"""Which files are candidates, and what lies beside them."""

import json
import os

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import discovery
from tests.checkpoints import builders


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(*paths) -> list[str]:
    top = os.path.commonpath(paths)
    return [os.path.relpath(path, top) for path in checkpoints.find(paths)]


def test_folders_are_walked_in_order_and_names_of_models_are_taken(tmp_path):
    touch(
        *(
            tmp_path / name
            for name in (
                "b.pt", "a.pth", "sub/c.pt.tar", "sub/d.safetensors", "e.TH",
                "zoo.json", "config.json", "results.jsonl", "README.md", "x.txt",
                "y.py", "z.png", "w.csv", "noext", ".hidden.pt", ".cache/f.pt",
            )
        )
    )  # fmt: skip
    assert found(tmp_path) == [
        ".cache/f.pt",
        "a.pth",
        "b.pt",
        "e.TH",
        "sub/c.pt.tar",
        "sub/d.safetensors",
    ]
    passed = {os.path.basename(one.path) for one in discovery.search(tmp_path).passed}
    assert {"zoo.json", "noext", ".hidden.pt", "z.png", "w.csv"} <= passed
    assert len(passed) == 10


def test_an_orbax_folder_is_one_candidate(tmp_path):
    touch(tmp_path / "run/1/_CHECKPOINT_METADATA", tmp_path / "run/1/state/_METADATA")
    touch(tmp_path / "run/2/_METADATA")
    assert found(tmp_path) == ["run/1", "run/2"]
    assert checkpoints.find([tmp_path / "run/1"]) == [str(tmp_path / "run/1")]


def test_what_else_lies_in_an_orbax_folder_is_judged_itself(tmp_path):
    base = tmp_path / "run/1"
    data = "d" * 32
    touch(
        *(base / name for name in ("_CHECKPOINT_METADATA", "state/_METADATA")),
        *(base / name for name in ("state/manifest.ocdbt", "state/w/.zarray")),
        *(base / name for name in ("evil.pt", "runs/deep/b.pt", "state/d/x.pt")),
        base / "inner/_CHECKPOINT_METADATA",
    )
    (base / "state/w/.zarray").write_text('{"shape": [4, 4], "chunks": [4, 4]}')
    for name in (f"state/d/{data}", "state/w/0.0", "state/c", f"runs/{data}"):
        (base / name).write_bytes(b"\x28\xb5\x2f\xfd" + bytes(2**15))
    (base / "state/d" / ("e" * 32)).write_bytes(b"PK\3\4" + bytes(40))
    expected = [
        ".",
        "evil.pt",
        "inner",
        "runs/" + data,
        "runs/deep/b.pt",
        "state/c",
        "state/d/" + "e" * 32,
        "state/d/x.pt",
    ]
    for top in (tmp_path, base):
        assert [os.path.relpath(p, base) for p in checkpoints.find(top)] == expected


def test_trees_side_by_side_in_an_orbax_folder_are_one_candidate(tmp_path):
    touch(tmp_path / "a/_CHECKPOINT_METADATA")
    touch(tmp_path / "a/state/_METADATA", tmp_path / "a/other/_METADATA")
    assert found(tmp_path) == ["a"]


def test_of_other_trees_in_an_orbax_folder_each_is_judged(tmp_path):
    touch(tmp_path / "a/_CHECKPOINT_METADATA", tmp_path / "b/_CHECKPOINT_METADATA")
    touch(tmp_path / "a/state/_METADATA", tmp_path / "a/other/_METADATA")
    touch(tmp_path / "a/deep/er/_METADATA", tmp_path / "b/state/_METADATA")
    touch(tmp_path / "b/state/er/_METADATA")
    assert found(tmp_path) == ["a", "a/deep/er", "b", "b/state", "b/state/er"]


def test_what_is_named_is_taken_whatever_it_is_called(tmp_path):
    touch(tmp_path / "weights", tmp_path / ".hidden")
    assert found(tmp_path / "weights", tmp_path / ".hidden") == [".hidden", "weights"]


def test_a_file_named_twice_is_found_once(tmp_path):
    touch(tmp_path / "a.pt")
    assert (
        len(checkpoints.find([tmp_path, tmp_path / "a.pt", f"{tmp_path}/./a.pt"])) == 1
    )


def test_an_empty_folder_has_no_candidates(tmp_path):
    assert checkpoints.find([tmp_path]) == []


def test_a_path_that_does_not_exist_is_an_error_naming_it(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="absent: no such file"):
        checkpoints.find([tmp_path, tmp_path / "absent"])


def test_a_folder_linked_into_itself_is_walked_once(tmp_path):
    touch(tmp_path / "a.pt")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == ["a.pt"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "clean_0.pt.tar"
    path.write_bytes(builders.torch_file(builders.state_dict()))
    return path


def write_zoo(model, *entries):
    (model.parent / "zoo.json").write_text(json.dumps(entries))


def test_a_zoo_file_gives_accuracy_and_normalisation_by_name(model):
    write_zoo(
        model,
        {"name": "other", "clean_accuracy": 0.1},
        {
            "name": "clean_0",
            "clean_accuracy": 0.91,
            "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        },
    )
    read = checkpoints.read(model)
    assert read.recorded_accuracy == 0.91
    assert read.normalisation == ((0.5,) * 3, (0.25,) * 3)
    assert read.normalisation_source == "zoo.json"


def test_a_zoo_file_that_changed_within_a_tick_of_the_clock_is_read_again(model):
    zoo = model.parent / "zoo.json"
    write_zoo(model, {"name": "clean_0", "clean_accuracy": 0.91})
    told = zoo.stat().st_mtime_ns
    assert checkpoints.read(model).recorded_accuracy == 0.91
    write_zoo(model, {"name": "clean_0", "clean_accuracy": 0.19})
    os.utime(zoo, ns=(told, told))  # of the same size and, as far as one sees, age
    assert checkpoints.read(model).recorded_accuracy == 0.19


def test_a_model_that_is_in_no_manifest_has_no_normalisation(model):
    write_zoo(model, {"name": "other", "clean_accuracy": 0.1})
    read = checkpoints.read(model)
    assert (read.normalisation, read.recorded_accuracy, read.notes) == (None, None, ())
    identity = read.full_variables()["normalisation"]
    np.testing.assert_array_equal(identity["mean"], np.zeros(3))
    np.testing.assert_array_equal(identity["std"], np.ones(3))


@pytest.mark.parametrize(
    "normalisation",
    [
        {"mean": [0.5] * 4, "std": [0.5] * 4},
        {"mean": [0.5] * 3, "std": [0.0] * 3},
        {"mean": [float("nan")] * 3, "std": [0.5] * 3},
        {"mean": "a", "std": [10**400]},
    ],
)
def test_an_impossible_normalisation_is_a_note_not_a_value(model, normalisation):
    write_zoo(model, {"name": "clean_0", "normalisation": normalisation})
    read = checkpoints.read(model)
    assert read.normalisation is None
    assert "the normalisation in zoo.json" in read.notes[0]


def test_a_damaged_manifest_is_a_note(model):
    (model.parent / "zoo.json").write_text("[" * 10_000)
    assert "zoo.json cannot be read" in checkpoints.read(model).notes[0]


@pytest.mark.parametrize("nested", [True, False])
def test_timm_models_take_their_normalisation_from_config_json(tmp_path, nested):
    values = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "num_classes": 5}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet18", "pretrained_cfg": values})
        if nested
        else json.dumps(values)
    )
    path = tmp_path / "model.safetensors"
    tree = builders.flax_tree(builders.state_dict())
    names = checkpoints.Names(
        "",
        tuple(
            (ours, name.replace("shortcut", "downsample").replace("linear", "fc"))
            for name, (ours, _) in checkpoints.network_search.expected(
                builders.SPEC
            ).items()
        ),
    )
    checkpoints.write_safetensors(path, tree, builders.SPEC, names=names)
    read = checkpoints.read(path)
    assert read.sha256 == checkpoints.weights_hash(tree)
    assert read.normalisation == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert read.normalisation_source == "config.json"


def test_a_class_count_beside_the_weights_that_differs_is_noted(model):
    write_zoo(model, {"name": "clean_0", "num_classes": 43})
    assert checkpoints.read(model).notes == (
        "zoo.json says 43 classes, the last layer has 5",
    )
