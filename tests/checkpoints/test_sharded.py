"""Sets of files are put together by their index; one alone says which part it is."""

import json
import os

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
STATE = builders.state_dict(SPEC)
NAMES = list(STATE)
HALVES = (NAMES[:50], NAMES[50:])
STEMS = {".safetensors": "model", ".bin": "pytorch_model"}


def write(path, state: dict) -> None:
    if path.suffix == ".bin":
        path.write_bytes(builders.torch_file(state))
    else:
        safetensors_numpy.save_file(state, path)


@pytest.fixture(params=list(STEMS))
def shards(tmp_path, request):
    """The files of a set, the index last."""
    suffix, stem = request.param, STEMS[request.param]
    files = [tmp_path / f"{stem}-0000{i}-of-00002{suffix}" for i in (1, 2)]
    for file, names in zip(files, HALVES, strict=True):
        write(file, {name: STATE[name] for name in names})
    placed = {
        name: file.name
        for file, names in zip(files, HALVES, strict=True)
        for name in names
    }
    index = tmp_path / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return [*files, index]


def error(path) -> str:
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def changed(index, change) -> None:
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def test_each_file_of_a_set_and_its_index_are_read_as_the_whole(shards):
    whole = checkpoints.read_state_dict(STATE).sha256
    for number, path in enumerate(shards):
        found = checkpoints.read(path)
        assert found.sha256 == whole
        told = "the index of a set" if number == 2 else f"part {number + 1} of 2 of "
        assert found.notes[0].startswith(told)


def test_constants_beside_the_set_are_those_of_the_whole(shards):
    config = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (shards[0].parent / "config.json").write_text(json.dumps(config))
    assert checkpoints.read(shards[0]).normalisation_source == "config.json"


def test_a_variant_has_an_index_of_its_own_name(shards):
    first, second, index = shards
    stem, suffix = first.name.partition("-")[0], first.suffix
    content = index.read_text().replace(f"{stem}-", f"{stem}.fp16-")
    index.unlink()
    (first.parent / f"{stem}{suffix}.index.fp16.json").write_text(content)
    moved = [
        path.rename(str(path).replace(f"{stem}-", f"{stem}.fp16-"))
        for path in (first, second)
    ]
    assert (
        checkpoints.read(moved[1]).sha256 == checkpoints.read_state_dict(STATE).sha256
    )


def test_a_shard_alone_says_which_part_of_what_it_is(shards):
    first, second, index = shards
    index.unlink()
    whole = index.name.removesuffix(".index.json")
    assert f"part 2 of 2 of {whole}: no {index.name} lies beside it" in error(second)
    write(first, STATE)  # which holds a classifier nevertheless
    assert "part 1 of 2" in checkpoints.read(first).notes[0]


def test_a_set_with_a_file_missing_is_not_read(shards):
    first, second, index = shards
    second.unlink()
    message = error(first)
    assert "1 of the 2 files" in message and second.name in message
    assert "part 1 of 2" in message
    assert "the index of a set" in error(index)


def test_files_hold_what_the_index_says_and_nothing_else(shards):
    """A program loads each file whole: a tensor hidden in one would replace another."""
    first, second, _ = shards
    hidden = {name: STATE[name] for name in HALVES[0]}
    write(first, {**hidden, "linear.weight": STATE["linear.weight"] + 1})
    assert "does not hold what the index says of it: 'linear.weight'" in error(second)
    del hidden["conv1.weight"]
    write(first, hidden)
    assert "does not hold what the index says of it: 'conv1.weight'" in error(second)


@pytest.mark.parametrize(
    "elsewhere", ["../model.pt", "/etc/passwd", ".hidden", "a/b.bin", 5, None, ["a"]]
)
def test_an_index_leads_nowhere_else(shards, elsewhere):
    changed(shards[2], lambda mapped: mapped.update({"conv1.weight": elsewhere}))
    assert "no file beside it" in error(shards[0])


def test_a_file_that_the_index_does_not_list_is_no_part(shards):
    first, _, index = shards
    other = first.with_name(first.name.replace("00001-of", "00009-of"))
    os.rename(first, other)
    assert f"{index.name} does not list it" in error(other)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', "[" * 9999]
)
def test_an_index_that_is_none_is_said(shards, content):
    shards[2].write_text(content)
    assert shards[2].name in error(shards[0])


def test_a_shard_that_is_damaged_is_named(shards):
    first, second, _ = shards
    second.write_bytes(second.read_bytes()[:-1000])
    assert f"'{second.name}'" in error(first)


def test_calls_of_every_shard_are_those_of_the_set(shards):
    if shards[0].suffix != ".bin":
        pytest.skip("safetensors files call nothing")
    call = builders.symbol("os", "system") + b"(" + builders.text("true") + b"tR0"
    body = builders.state_pickle({name: STATE[name] for name in HALVES[1]})
    storages = {str(i): STATE[name].tobytes() for i, name in enumerate(HALVES[1])}
    pickle = body[:2] + call + body[2:]
    shards[1].write_bytes(builders.torch_zip(pickle, storages))
    assert checkpoints.read(shards[0]).calls == ("os.system",)


def test_other_names_are_no_sets(tmp_path):
    path = tmp_path / "model-1-of-2.pt"
    path.write_bytes(builders.torch_file(STATE))
    found = checkpoints.read(path)
    assert (
        found.notes == ()
        and np.isfinite(found.variables["params"]["conv1"]["kernel"]).all()
    )
