"""Orbax folders: what points elsewhere, is damaged or lies about its size is refused."""

import json
import os
import shutil
import struct

import numpy as np
import optax
import orbax.checkpoint as manager
import pytest
import tensorstore
from orbax.checkpoint import v1 as ocp
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints
from ban_jax.checkpoints import orbax_reader
from tests.checkpoints import builders

TREE = builders.flax_tree(builders.state_dict(seed=3))
HASH = checkpoints.weights_hash(TREE)


@pytest.fixture(scope="module")
def orbax_original(tmp_path_factory):
    path = tmp_path_factory.mktemp("orbax") / "model"
    checkpoints.write_orbax(path, TREE, builders.SPEC)
    return path


@pytest.fixture
def orbax(orbax_original, tmp_path):
    shutil.copytree(orbax_original, tmp_path / "model")
    return tmp_path / "model"


def test_an_orbax_folder_with_a_link_is_refused(orbax, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    manifest = next(orbax.rglob("manifest.ocdbt"))
    manifest.rename(tmp_path / "manifest")
    manifest.symlink_to(tmp_path / "manifest")
    builders.refused(orbax, "is a link")


def test_an_orbax_folder_linked_to_another_folder_is_refused(orbax, tmp_path):
    state = next(orbax.rglob("manifest.ocdbt")).parent
    state.rename(tmp_path / "elsewhere")
    state.symlink_to(tmp_path / "elsewhere")
    builders.refused(orbax, "is a link")


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../other", "a/../../b", "file:///etc", "gs://bucket/x", "~/x"],
)
@pytest.mark.parametrize("where", ["key", "value"])
def test_orbax_metadata_that_points_elsewhere_is_refused(orbax, target, where):
    path = next(orbax.rglob("_METADATA"))
    metadata = json.loads(path.read_text())
    if where == "value":
        metadata["ts_spec"] = {"kvstore": {"base": target}}
    else:
        metadata["tree_metadata"][target] = {}
    path.write_text(json.dumps(metadata))
    builders.refused(orbax, "points outside the checkpoint")


def test_tensorstore_itself_refuses_paths_that_leave_a_database(tmp_path):
    """What `orbax_reader` relies on: manifests cannot name files outside."""
    inside, outside = tmp_path / "db", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    spec = {
        "driver": "ocdbt",
        "base": f"file://{inside}/",
        "config": {"compression": None, "max_inline_value_bytes": 1},
    }
    store = tensorstore.KvStore.open(spec).result()
    store[b"key"] = b"value" * 20
    manifest = inside / "manifest.ocdbt"
    raw = manifest.read_bytes()
    start = raw.index(b"d/")
    name = raw[start : start + 34]
    moved = b"../out/".ljust(34, b"x")
    shutil.move(inside / name.decode(), outside / moved.decode()[7:])
    raw = raw.replace(name, moved)[:-4]
    manifest.write_bytes(raw + struct.pack("<I", crc32c(raw)))
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": f"file://{inside}/"}
    ).result()
    with pytest.raises(ValueError, match="Invalid key"):
        store.list().result()


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_an_orbax_array_larger_than_its_folder_can_hold_is_refused(tmp_path):
    tree = {**TREE, "params": {**TREE["params"]}}
    checkpoints.write_orbax(tmp_path / "model", tree, builders.SPEC)
    store = database(tmp_path / "model")
    key = next(
        key for key in store.list().result() if b"linear.kernel/zarr.json" in key
    )
    metadata = json.loads(store[key])
    metadata["shape"] = [2**20, 2**14]
    store[key] = json.dumps(metadata).encode()
    builders.refused(tmp_path / "model", "would take more than")


def test_a_truncated_orbax_folder_is_refused(orbax):
    damaged = 0
    for path in sorted(orbax.rglob("*")):
        if path.is_file() and path.stat().st_size > 100:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            try:  # some files are left over from the writing and not needed
                assert checkpoints.read(orbax).sha256 == HASH
                used = False
            except checkpoints.CheckpointError:
                used = True
            damaged += used
            path.write_bytes(data)
    assert damaged > 3
    assert checkpoints.read(orbax).sha256 == HASH


@pytest.fixture
def unasked(monkeypatch):
    """Orbax ends the process now and then, where one of many arrays is damaged."""

    def asked(*arguments, **named):
        pytest.fail("Orbax was asked to read a damaged folder")

    monkeypatch.setattr(ocp, "metadata", asked)
    monkeypatch.setattr(ocp, "load", asked)


def database(folder):
    path = next(folder.rglob("manifest.ocdbt")).parent
    return tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": f"file://{path}/"}
    ).result()


@pytest.mark.parametrize("damaged", ["zarr.json", "c/0/0"])
def test_orbax_is_not_asked_for_a_folder_with_a_damaged_array(orbax, unasked, damaged):
    store = database(orbax)
    key = f"params.linear.kernel/{damaged}".encode()
    store[key] = store[key][:-3]
    builders.refused(
        orbax, "'state' is damaged" if damaged == "zarr.json" else "an array in"
    )


def test_orbax_is_not_asked_for_a_folder_without_an_array(orbax, unasked):
    store = database(orbax)
    del store[b"params.linear.kernel/zarr.json"]
    builders.refused(orbax, "the array 'params.linear.kernel', which is not there")


@pytest.mark.parametrize("tree", [[], {"a": {}}, {"a": {"value_metadata": 1}}])
def test_orbax_is_not_asked_for_a_folder_whose_metadata_describe_no_tree(
    orbax, unasked, tree
):
    path = next(orbax.rglob("_METADATA"))
    path.write_text(json.dumps({"tree_metadata": tree}))
    builders.refused(orbax, "describes no tree")


def test_a_folder_that_is_not_orbax_is_named_as_such(tmp_path):
    builders.refused(tmp_path, "not an Orbax checkpoint")


def side_by_side(path, **trees):
    """A step of Orbax's CheckpointManager that has a folder for each tree."""
    step = 3
    items = {name: manager.args.PyTreeSave(tree) for name, tree in trees.items()}
    with manager.CheckpointManager(path) as saved:
        saved.save(step, args=manager.args.Composite(**items))
    return path / str(step)


def test_trees_that_a_manager_writes_side_by_side_are_one_checkpoint(tmp_path):
    path = side_by_side(tmp_path / "model", **TREE)
    assert checkpoints.read(path).sha256 == HASH
    assert checkpoints.find(tmp_path) == [str(path)]


def test_beside_an_optimizers_state_the_network_is_the_same(tmp_path):
    state = optax.adam(1e-3).init(TREE["params"])
    path = side_by_side(tmp_path / "model", **TREE, opt_state=state)
    found = checkpoints.read(path)
    assert found.sha256 == HASH
    assert [part.candidate.sha256 for part in checkpoints.read_all(path)] == [HASH]


def test_of_several_networks_side_by_side_each_is_judged(tmp_path):
    other = builders.flax_tree(builders.state_dict(seed=4))
    path = side_by_side(tmp_path / "model", state=TREE, average=other)
    hashes = {part.candidate.sha256 for part in checkpoints.read_all(path)}
    assert hashes == {HASH, checkpoints.weights_hash(other)}


def test_a_folder_whose_name_is_no_text_is_refused(orbax, tmp_path):
    state = next(orbax.rglob("_METADATA")).parent
    os.rename(state, os.fsencode(orbax) + b"/\xff")
    builders.refused(orbax, "is no UTF-8")
    os.rename(orbax, os.fsencode(tmp_path) + b"/\xfe")
    with pytest.raises(checkpoints.CheckpointError, match="is no UTF-8"):
        checkpoints.read(tmp_path / os.fsdecode(b"\xfe"))


def test_what_is_no_file_names_no_tree(tmp_path):
    path = side_by_side(tmp_path / "model", **TREE)
    (path / "further" / "_METADATA").mkdir(parents=True)
    assert checkpoints.read(path).sha256 == HASH


@pytest.mark.parametrize(
    "keys, words",
    [
        (["a.b"], "key with a dot"),
        (["a/b"], "key with a dot or a slash"),
        (["a"] * 65, "more than 64 keys"),
        (["linear"], "is an array and holds others"),
    ],
)
def test_keys_side_by_side_that_could_be_anothers_are_refused(keys, words):
    trees = {
        "params": {("linear", "kernel"): np.zeros(1), tuple(keys): np.zeros(1)},
        "batch_stats": {},
    }
    with pytest.raises(checkpoints.CheckpointError, match=words):
        orbax_reader._together(trees, sorted(trees))


def test_arrays_that_the_metadata_does_not_name_are_told(orbax):
    """Orbax would not load them: a second network could lie there."""
    path = next(orbax.rglob("_METADATA"))
    metadata = json.loads(path.read_text())
    names = list(metadata["tree_metadata"])
    large = next(name for name in names if "layer4_1" in name and "conv2" in name)
    del metadata["tree_metadata"][large]
    path.write_text(json.dumps(metadata))
    builders.refused(orbax, "it holds arrays that its metadata does not name")


def harmless(folder, name):
    (folder / name).write_bytes(b"\x28\xb5\x2f\xfd" + bytes(2**15))


def pickled(folder, name):
    """Of protocol 0, which has no magic number."""
    (folder / name).write_bytes(b"cos\nsystem\n(S'id'\ntR." + bytes(2**15))


def tensors(folder, name):
    weights = {"w": np.ones((9, 9), np.float32)}
    safetensors_numpy.save_file(weights, folder / name)


@pytest.mark.parametrize(
    ("made", "place", "is_piece"),
    [
        (harmless, "d/" + "0" * 32, True),
        (pickled, "d/" + "0" * 32, False),
        (tensors, "d/" + "0" * 32, False),
        (harmless, "w/1.0", True),
        (harmless, "w/2.0", False),
        (harmless, "w/0.0.1", False),
        (tensors, "w/1.0", False),
        (harmless, "v/c/1/0", True),
        (harmless, "v/c/2/0", False),
    ],
)
def test_what_is_no_piece_of_an_array_is_looked_at_by_itself(
    orbax, made, place, is_piece
):
    state = next(orbax.rglob("_METADATA")).parent
    for name, described in (
        ("w/.zarray", {"shape": [3, 4], "chunks": [2, 4]}),
        (
            "v/zarr.json",
            {
                "shape": [3, 4],
                "chunk_grid": {"configuration": {"chunk_shape": [2, 4]}},
            },
        ),
    ):
        (state / name).parent.mkdir()
        (state / name).write_text(json.dumps(described))
    data = state / place
    data.parent.mkdir(parents=True, exist_ok=True)
    made(data.parent, data.name)
    assert (str(data) not in checkpoints.find([orbax])) == is_piece
