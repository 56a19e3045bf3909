"""A zoo's folder: what it refuses, and what a full disk leaves of it."""

import json
import os

import pytest
from safetensors import SafetensorError

from ban_jax.storage import run_folder
from ban_jax.zoo import listing

CONFIG = {"data": "digits", "recipe": {"epochs": 2, "crop": 4}}


def entry(name, **fields):
    defaults = {
        "kind": "blend", "architecture": "resnet18", "failed": False, "seconds": 1.0,
        "clean_accuracy": 0.9, "asr": 1.0, "mode": "all_to_one",
    }  # fmt: skip
    return {"name": name, "file": f"{name}.safetensors", **defaults, **fields}


def write_text(path):
    with open(path, "w", encoding="utf-8") as file:
        file.write("weights")


def folder_of(path, names=()):
    folder = listing.ZooFolder(str(path), CONFIG)
    for name in names:
        folder.write(f"{name}.safetensors", write_text)
        folder.add(entry(name))
    return folder


def listed(path):
    return [model["name"] for model in json.loads((path / "zoo.json").read_text())]


def test_models_are_listed_by_name_and_found_again(tmp_path):
    folder_of(tmp_path, ["b", "a"])
    assert listed(tmp_path) == ["a", "b"]
    again = folder_of(tmp_path)
    assert again.holds("a") and again.holds("b") and not again.holds("c")
    assert [model["name"] for model in again.entries] == ["a", "b"]


def test_a_listed_model_without_its_file_is_not_held(tmp_path):
    folder = folder_of(tmp_path, ["a"])
    (tmp_path / "a.safetensors").unlink()
    assert not folder.holds("a")


def test_a_model_made_again_takes_the_place_of_the_older_one(tmp_path):
    folder = folder_of(tmp_path, ["a", "b"])
    folder.add(entry("a", seconds=7.0))
    assert listed(tmp_path) == ["a", "b"]
    assert folder.entries[0]["seconds"] == 7.0


def test_another_making_is_refused_with_all_differences(tmp_path):
    folder_of(tmp_path, ["a"])
    other = {"data": "cifar10", "recipe": {"epochs": 2, "crop": 0}, "bar": 0.9}
    with pytest.raises(listing.ZooError) as error:
        listing.ZooFolder(str(tmp_path), other)
    message = str(error.value)
    assert str(tmp_path) in message
    assert 'data was "digits", is "cifar10"' in message
    assert "recipe.crop was 4, is 0" in message
    assert "bar was null, is 0.9" in message
    assert "epochs" not in message
    assert listed(tmp_path) == ["a"]


def test_tuples_of_a_config_are_the_lists_they_were_written_as(tmp_path):
    listing.ZooFolder(str(tmp_path), {"arch": ("a", "b")})
    listing.ZooFolder(str(tmp_path), {"arch": ("a", "b")})


def test_foreign_and_broken_folders_are_refused(tmp_path):
    (tmp_path / "zoo.json").write_text('[{"name": "x", "file": "x.pt"}]')
    with pytest.raises(listing.ZooError, match="making is not recorded"):
        listing.ZooFolder(str(tmp_path), {})
    (tmp_path / "zoo.json").write_text("[{")
    with pytest.raises(listing.ZooError, match=r"zoo\.json: not valid JSON"):
        listing.ZooFolder(str(tmp_path), {})
    for told in ("[1, 2]", '{"a": 1}', '[{"name": "x"}]'):
        (tmp_path / "zoo.json").write_text(told)
        with pytest.raises(
            listing.ZooError, match=r"zoo\.json: expected a list of mod"
        ):
            listing.ZooFolder(str(tmp_path), {})
    with pytest.raises(listing.ZooError, match="not a usable folder"):
        listing.ZooFolder(str(tmp_path / "zoo.json"), {})


@pytest.mark.parametrize(
    "error",
    [OSError("disk full"), SafetensorError("disk full"), ValueError("disk full")],
    ids=lambda error: type(error).__name__,
)
def test_a_write_that_fails_names_the_file_and_leaves_the_list(tmp_path, error):
    folder = folder_of(tmp_path, ["a"])
    before = (tmp_path / "zoo.json").read_bytes()

    def failing(path):
        raise error

    with pytest.raises(listing.ZooError) as raised:
        folder.write("b.safetensors", failing)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'b.safetensors'}: could not be written")
    assert "disk full" in message and "the 1 models listed in zoo.json" in message
    assert (tmp_path / "zoo.json").read_bytes() == before
    assert folder_of(tmp_path).holds("a")


def test_a_list_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, ["a"])

    def failing(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(run_folder.os, "replace", failing)
        with pytest.raises(listing.ZooError, match=r"zoo\.json: could not be writ"):
            folder.add(entry("b"))
    assert listed(tmp_path) == ["a"] and not folder.holds("b")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_leftover_folder_gives_way_to_the_model(tmp_path):
    folder = folder_of(tmp_path)
    (tmp_path / "orbax" / "a").mkdir(parents=True)
    (tmp_path / "orbax" / "a" / "half").write_text("")
    folder.write("orbax/a", os.mkdir)
    assert folder.has("orbax/a") and os.listdir(tmp_path / "orbax" / "a") == []


def test_the_summary_is_written_and_returned(tmp_path):
    text = folder_of(tmp_path, ["a", "b"]).summarise()
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8") == text
    assert "blend" in text
