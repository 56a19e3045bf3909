"""A set is what its index says, whatever its files are called and wherever they lie."""

import json
import zipfile

import flax.serialization
import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints
from ban_jax.checkpoints import discovery
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
CLEAN, OTHER = builders.state_dict(SPEC), builders.state_dict(SPEC, seed=1)
LAST = "linear.weight"
INDEX = "model.safetensors.index.json"
TWO = tuple(f"model-0000{number}-of-00002.safetensors" for number in (1, 2))


def write(folder, files: dict[str, dict], placed: dict[str, str], index=INDEX) -> None:
    for name, state in files.items():
        safetensors_numpy.save_file(state, folder / name)
    (folder / index).write_text(json.dumps({"weight_map": placed}))


def halves(first: str, second: str) -> tuple[dict[str, dict], dict[str, str]]:
    """The files of a set, and its index."""
    names = list(OTHER)
    placed = {name: first if names.index(name) < 50 else second for name in names}
    files = {
        file: {name: OTHER[name] for name in names if placed[name] == file}
        for file in (first, second)
    }
    return files, placed


def over(first: str, second: str) -> tuple[dict[str, dict], dict[str, str]]:
    """A whole network, and another last layer that the index puts in its place."""
    placed = {**dict.fromkeys(CLEAN, first), LAST: second}
    return {first: CLEAN, second: {LAST: OTHER[LAST]}}, placed


def packed(folder, at: str = "") -> None:
    """All of a folder, in an archive instead."""
    with zipfile.ZipFile(folder / "repo.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.glob("*.*")):
            if path.name != "repo.zip":
                archive.write(path, at + path.name)
                path.unlink()


def told(top) -> dict[str, str]:
    """What is judged under a folder: the hash of its weights, or what is said of it.

    Files that are told to be no classifier are left out.
    """
    found = {}
    for path in discovery.search(top).paths:
        name = path[len(str(top)) + 1 :]
        try:
            found[name] = checkpoints.read(path).sha256
        except checkpoints.CheckpointError as error:
            if not error.other:
                found[name] = str(error)
    return found


def sha256(state: dict) -> str:
    return checkpoints.read_state_dict(state).sha256


@pytest.mark.parametrize("index", [INDEX, "a.b.index.fp16.json", "X.INDEX.JSON"])
@pytest.mark.parametrize("where", ["folder", "archive", "archive/in/folders"])
def test_files_of_any_name_are_read_as_their_index_says(tmp_path, index, where):
    placed = {name: f"part{place:03}.safetensors" for place, name in enumerate(OTHER)}
    files = {file: {name: OTHER[name]} for name, file in placed.items()}
    write(tmp_path, {"aaa.safetensors": CLEAN, **files}, placed, index)
    inside = where.removeprefix("archive").removeprefix("/")
    before = ""
    if where != "folder":
        before = "repo.zip!/" + (inside and f"{inside}/")
        packed(tmp_path, inside and f"{inside}/")
    assert told(tmp_path) == {
        f"{before}aaa.safetensors": sha256(CLEAN),
        f"{before}{index}": sha256(OTHER),
    }


@pytest.mark.parametrize(
    "names", [("a.safetensors", "b.safetensors"), tuple(n.upper() for n in TWO)]
)
@pytest.mark.parametrize("in_archive", [False, True])
def test_what_the_index_puts_elsewhere_is_not_passed_over(tmp_path, names, in_archive):
    write(tmp_path, *over(*names))
    if in_archive:
        packed(tmp_path)
    before = "repo.zip!/" if in_archive else ""
    found = told(tmp_path)
    assert "does not hold what the index says of it" in found.pop(before + INDEX)
    assert found == {before + names[0]: sha256(CLEAN)}


def test_a_set_in_an_archive_is_put_together_or_not_judged(tmp_path):
    write(tmp_path, *halves(*TWO))
    packed(tmp_path, "repo/")
    assert told(tmp_path) == {f"repo.zip!/repo/{name}": sha256(OTHER) for name in TWO}
    write(tmp_path, *over(*TWO))
    packed(tmp_path, "repo/")
    found = told(tmp_path)
    assert found.keys() == {f"repo.zip!/repo/{name}" for name in TWO}
    assert all("does not hold what the index says" in one for one in found.values())


def test_a_set_in_an_archive_lacks_no_file(tmp_path):
    files, placed = halves(*TWO)
    del files[TWO[1]]
    write(tmp_path, files, placed)
    packed(tmp_path)
    found = told(tmp_path)
    assert found.keys() == {f"repo.zip!/{name}" for name in (TWO[0], INDEX)}
    assert all("1 of the 2 files" in one for one in found.values())


def test_files_of_one_archive_are_unpacked_within_its_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name in TWO:
            made.writestr(name, bytes(2**20))
        made.writestr(INDEX, json.dumps({"weight_map": {"a": TWO[0], "b": TWO[1]}}))
    with pytest.raises(
        checkpoints.CheckpointError, match="the set has 2,097,152 bytes"
    ):
        checkpoints.read(f"{tmp_path}/big.zip!/{TWO[0]}")


def test_files_of_a_set_are_no_failures_of_their_own(tmp_path):
    write(tmp_path, *halves("one.safetensors", "two.safetensors"))
    assert told(tmp_path) == {INDEX: sha256(OTHER)}
    with pytest.raises(checkpoints.CheckpointError) as raised:
        checkpoints.read(tmp_path / "one.safetensors")
    assert (
        raised.value.other
        == f"a file of the set of {INDEX}, which is judged as a whole"
    )


def test_with_a_file_of_a_set_its_index_is_judged(tmp_path):
    write(tmp_path, *halves("one.safetensors", "two.safetensors"))
    found = discovery.search(tmp_path / "one.safetensors").paths
    assert found == [str(tmp_path / name) for name in (INDEX, "one.safetensors")]
    write(tmp_path, *halves(*TWO))
    assert discovery.search(tmp_path / TWO[0]).paths == [str(tmp_path / TWO[0])]


def test_an_index_with_two_names_is_judged_in_each_folder(tmp_path):
    for name, state in (("a", CLEAN), ("b", OTHER)):
        (tmp_path / name).mkdir()
        placed = dict.fromkeys(state, "one.safetensors")
        write(tmp_path / name, {"one.safetensors": state}, placed)
    (tmp_path / "b" / INDEX).unlink()
    (tmp_path / "b" / INDEX).hardlink_to(tmp_path / "a" / INDEX)
    found = discovery.search([tmp_path / "a" / "one.safetensors", tmp_path / "b"])
    assert str(tmp_path / "b" / INDEX) in found.paths and not found.passed


def test_two_indices_are_two_sets(tmp_path):
    """The second names the files of the first for other tensors."""
    write(tmp_path, *halves(*TWO))
    assert told(tmp_path) == dict.fromkeys(TWO, sha256(OTHER))
    (tmp_path / "other.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(OTHER, TWO[0])})
    )
    found = told(tmp_path)
    assert "does not hold what the index says" in found.pop("other.index.json")
    assert found == dict.fromkeys(TWO, sha256(OTHER))


@pytest.fixture
def of_flax(tmp_path):
    """Names of two files of Flax, and what writes them: a tree split in two."""
    names = [f"flax_model-0000{number}-of-00002.msgpack" for number in (1, 2)]
    tree = checkpoints.read_state_dict(OTHER).variables

    def saved(first: dict, second: dict, placed: dict) -> None:
        for name, part in zip(names, (first, second), strict=True):
            content = flax.serialization.msgpack_serialize(part)
            (tmp_path / name).write_bytes(content)
        index = tmp_path / "flax_model.msgpack.index.json"
        index.write_text(json.dumps({"weight_map": placed}))

    return names, {kind: dict(part) for kind, part in tree.items()}, saved


def leaves(tree: dict, above: str = "") -> list[str]:
    return [
        leaf
        for name, value in tree.items()
        for leaf in (
            leaves(value, f"{above}{name}/")
            if hasattr(value, "items")
            else [above + name]
        )
    ]


def test_the_files_of_flax_are_put_together(tmp_path, of_flax):
    names, tree, saved = of_flax
    first, second = ({kind: tree[kind]} for kind in ("params", "batch_stats"))
    placed = {
        leaf: name
        for name, part in zip(names, (first, second), strict=True)
        for leaf in leaves(part)
    }
    saved(first, second, placed)
    assert told(tmp_path) == dict.fromkeys(names, sha256(OTHER))


def test_a_layer_that_an_index_of_flax_puts_elsewhere_is_told_of(tmp_path, of_flax):
    names, tree, saved = of_flax
    last = {"params": {"linear": dict(tree["params"]["linear"])}}
    saved(tree, last, dict.fromkeys(leaves(last), names[1]))
    found = told(tmp_path)
    assert "does not list it" in found[names[0]]
    assert len(found) >= 1 and sha256(OTHER) not in found.values()


def test_other_texts_called_an_index_stay_texts(tmp_path):
    (tmp_path / "vocab.index.json").write_text('{"a": 1}')
    (tmp_path / "list.index.json").write_text("[1, 2]")
    assert discovery.search(tmp_path).paths == []
    (tmp_path / "cut.index.json").write_text('{"weight_map": {"a": "b.saf')
    assert "cut.index.json" in told(tmp_path)
