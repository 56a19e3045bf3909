"""safetensors, msgpack, npz, Orbax: same weights, same hash; lies are refused."""

import json
import os
import pathlib
import struct

import jax
import numpy as np
import orbax.checkpoint as orbax_checkpoint
import pytest
from flax import serialization
from jax import numpy as jnp
from orbax.checkpoint import v1 as ocp

from ban_jax import checkpoints
from ban_jax.checkpoints import hashing, limits
from tests.checkpoints import builders

STATE = builders.state_dict(seed=3)
TREE = builders.flax_tree(STATE)
NORMALISATION = {
    "mean": np.float32([0.5, 0.25, 0.75]),
    "std": np.float32([0.25, 0.5, 0.125]),
}
HASH = checkpoints.weights_hash(TREE)


# The same weights in every format.


def as_torch(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.pt"
    path.write_bytes(builders.torch_file(STATE))
    return path


def as_safetensors(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.safetensors"
    checkpoints.write_safetensors(path, TREE, builders.SPEC)
    return path


def as_msgpack(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.msgpack"
    path.write_bytes(serialization.msgpack_serialize({**TREE, "step": 3}))
    return path


def as_npz(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.npz"
    np.savez(path, **hashing.flatten(TREE))
    return path


def as_compressed_npz_with_pytorch_names(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "model.npz"
    np.savez_compressed(path, **STATE)
    return path


def as_orbax(folder: pathlib.Path) -> pathlib.Path:
    checkpoints.write_orbax(folder / "model", TREE, builders.SPEC)
    return folder / "model"


def as_nested_orbax(folder: pathlib.Path) -> pathlib.Path:
    """A training state: device arrays, a counter, an optimiser's trees of one shape."""
    tree = jax.tree.map(jnp.asarray, TREE)
    state = {**tree, "opt_state": {"trace": tree["params"]}}
    ocp.save(folder / "model", {"state": state, "step": 4})
    return folder / "model"


def as_orbax_of_the_older_api(folder: pathlib.Path) -> pathlib.Path:
    orbax_checkpoint.PyTreeCheckpointer().save(folder / "model", TREE)
    return folder / "model"


@pytest.mark.parametrize(
    "write",
    [
        as_torch,
        as_safetensors,
        as_msgpack,
        as_npz,
        as_compressed_npz_with_pytorch_names,
        as_orbax,
        as_nested_orbax,
        as_orbax_of_the_older_api,
    ],
)
def test_the_same_weights_have_one_hash_in_every_format(write, tmp_path):
    read = checkpoints.read(write(tmp_path))
    assert read.sha256 == HASH
    assert read.spec == builders.SPEC
    for name, value in hashing.flatten(TREE).items():
        np.testing.assert_array_equal(hashing.flatten(read.variables)[name], value)


@pytest.mark.parametrize(
    "write", [checkpoints.write_safetensors, checkpoints.write_orbax]
)
def test_what_is_written_is_read_back_with_its_remarks(write, tmp_path):
    path = tmp_path / "model"
    variables = {**TREE, "normalisation": NORMALISATION}
    write(path, variables, builders.SPEC, {"clean_accuracy": 0.875, "target": 3})
    read = checkpoints.read(path)
    assert read.spec == builders.SPEC
    assert read.normalisation == ((0.5, 0.25, 0.75), (0.25, 0.5, 0.125))
    assert read.recorded_accuracy == 0.875
    full = read.full_variables()
    assert hashing.flatten(full).keys() == hashing.flatten(variables).keys()
    for name, value in hashing.flatten(variables).items():
        np.testing.assert_array_equal(hashing.flatten(full)[name], value)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError):
        checkpoints.write_safetensors(
            tmp_path / "model.safetensors",
            {"params": {}},
            builders.SPEC,
            names=checkpoints.Names("", (("params/linear/kernel", "x"),)),
        )
    assert list(tmp_path.iterdir()) == []


# safetensors.


def safetensors(header: dict | bytes, content: bytes = bytes(16)) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + content


def entry(start: int, end: int, shape=(2,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("<Q", 2**40) + b"{}", "announces"),
        (safetensors({"a": entry(0, 8)}), "end at byte 8 of 16"),
        (safetensors({"a": entry(0, 8), "b": entry(4, 12)}), "neither overlap"),
        (safetensors({"a": entry(0, 8), "b": entry(12, 16, (1,))}), "nor leave holes"),
        (
            safetensors({"a": entry(0, 16, (4,)), "b": entry(16, 24)}),
            "bytes 16 to 24 of 16",
        ),
        (safetensors({"a": entry(0, 16, (2**40,))}), "needs 4,398,046,511,104 bytes"),
        (safetensors({"a": entry(0, 16, (-4,))}), "damaged shape"),
        (safetensors({"a": entry(0, 16, (4.0,))}), "damaged shape"),
        (safetensors({"a": entry(0, 16, (True, 4))}), "damaged shape"),
        (safetensors({"a": entry(16, 0, (4,))}), "bytes 16 to 0"),
        (safetensors({"a": entry(0, 16, (4,), "F4")}), "dtype 'F4'"),
        (safetensors(b'{"a":1,"a":2}'), "twice"),
        (safetensors(b"{" + b'"a":' + b"[" * 100_000), "not JSON"),
        (safetensors(b'{"a": ' + b"9" * 6000 + b"}"), "not JSON"),
        (safetensors({"__metadata__": {"a": 3}}), "__metadata__"),
        (safetensors({"a": [1]}), "not a JSON object"),
    ],
)
def test_a_lying_safetensors_header_is_refused(data, words, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    builders.refused(path, words)


def test_bfloat16_safetensors_are_widened_exactly(tmp_path):
    bits = np.arange(0, 2**16, 7, dtype=np.uint16)
    state = {name: array.copy() for name, array in STATE.items()}
    header, content = {}, b""
    for name, array in state.items():
        raw = np.resize(bits, array.size)
        header[name] = entry(
            len(content), len(content) + raw.nbytes, array.shape, "BF16"
        )
        content += raw.tobytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(header, content))
    back = checkpoints.to_torch_names(checkpoints.read(path).variables)
    got = back["layer4.0.conv1.weight"].view(np.uint32).reshape(-1)
    np.testing.assert_array_equal(got >> 16, np.resize(bits, got.size))
    assert not (got & 0xFFFF).any()


# npz and msgpack.


def test_object_arrays_in_npz_are_refused(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "model.npz"
    np.savez(path, **STATE, extra=np.array([Evil()], object))
    builders.refused(path, "holds Python objects")
    assert not marker.exists()


def test_an_npz_that_inflates_beyond_reason_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, **STATE, zeros=np.zeros(8 * limits.MIB, np.float32))
    assert path.stat().st_size < limits.MIB
    builders.refused(path, "the decompressed content")


def test_an_npz_entry_larger_than_it_announces_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, zeros=np.zeros(1000, np.float32))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"zeros.npy") - 46
    struct.pack_into("<L", data, at + 24, 400)
    local = data.index(b"zeros.npy") - 30
    struct.pack_into("<L", data, local + 22, 400)
    path.write_bytes(data)
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.read(path)


def test_structured_and_short_arrays_in_npz_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, a=np.zeros(3, [("x", "f4"), ("y", "f4")]))
    builders.refused(path, "dtype")


def test_fortran_ordered_npz_arrays_are_read_in_their_order(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{name: np.asfortranarray(array) for name, array in STATE.items()})
    assert checkpoints.read(path).sha256 == HASH


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa1a" + b"\xdd\xff\xff\xff\xff" * 1000,
        b"\x81\xa1a" + b"\x91" * 100_000,
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a\xc7\x05\x01\x93\x91\xcd\x10\x00",
        b"\x81\xa1a\xc1",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\xa1a\x01\x01",
        b"\x81\xa1a",
    ],
)
def test_msgpack_that_lies_is_refused(data, tmp_path):
    path = tmp_path / "model.msgpack"
    path.write_bytes(data)
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.read(path)


def test_a_truncated_msgpack_is_refused_wherever_it_is_cut(tmp_path):
    data = as_msgpack(tmp_path).read_bytes()
    path = tmp_path / "cut.msgpack"
    for cut in range(0, len(data), len(data) // 50):
        path.write_bytes(data[:cut])
        with pytest.raises(checkpoints.CheckpointError):
            checkpoints.read(path)
