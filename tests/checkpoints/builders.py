"""Checkpoint files assembled by hand, good and hostile, without PyTorch."""

import io
import pathlib
import struct
import zipfile
from typing import NamedTuple

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import network_search

TESTDATA = pathlib.Path(__file__).parent / "testdata"
SPEC = checkpoints.ModelSpec("resnet18", 5, 1)


def state_dict(spec: checkpoints.ModelSpec = SPEC, seed: int = 0) -> dict:
    """Random weights for `spec` under PyTorch names, `conv1.weight` first."""
    rng = np.random.default_rng(seed)
    shapes = {name: shape for name, (_, shape) in network_search.expected(spec).items()}
    return {
        name: rng.random(shapes[name], np.float32) + np.float32(0.5)
        for name in sorted(shapes, key=lambda name: (name != "conv1.weight", name))
    }


# Pickle opcodes.


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


def symbol(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def numbers(values) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return (
        b"("
        + text("storage")
        + symbol("torch", kind)
        + text(key)
        + text("cpu")
        + integer(count)
        + b"tQ"
    )


def tensor(stored: bytes, shape, strides, offset: int = 0) -> bytes:
    return (
        symbol("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + stored
        + integer(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89)tR"
    )


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def pickle(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def contiguous(shape) -> list[int]:
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]


def state_pickle(state: dict, changed: dict[str, bytes] | None = None) -> bytes:
    """A pickled state dict, entries of `changed` replaced by other pickles."""
    entries = {
        name: tensor(
            storage(str(index), array.size), array.shape, contiguous(array.shape)
        )
        for index, (name, array) in enumerate(state.items())
    }
    return pickle(dictionary({**entries, **(changed or {})}))


def torch_zip(data_pickle: bytes, storages: dict[str, bytes]) -> bytes:
    """What torch.save writes around a pickle and its storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data_pickle)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return file.getvalue()


def torch_file(
    state: dict, changed: dict[str, bytes] | None = None, **storages: bytes
) -> bytes:
    """A state dict as a PyTorch file, parts replaced and storages added."""
    content = {
        str(index): array.tobytes() for index, array in enumerate(state.values())
    }
    return torch_zip(state_pickle(state, changed), {**content, **storages})


def flax_tree(state: dict, spec: checkpoints.ModelSpec = SPEC) -> dict:
    """The same weights as nested dicts under our names."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    tree: dict = {}
    for name, (ours, shape) in network_search.expected(spec).items():
        *folders, leaf = ours.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = state[name].transpose(axes.get(len(shape), range(len(shape))))
    return tree


class Built(NamedTuple):
    """An object of a class that is not known here: how it is made, and its attributes."""

    made: bytes
    attributes: dict


def nested_file(root: object) -> bytes:
    """A PyTorch file of nested dicts, lists, tuples, texts, integers and arrays.

    An array that occurs twice is one storage under two names.
    """
    storages: dict[str, bytes] = {}
    keys: dict[int, str] = {}

    def body(value) -> bytes:
        if isinstance(value, Built):
            return value.made + body(value.attributes) + b"b"
        if isinstance(value, dict):
            return b"}(" + b"".join(body(k) + body(v) for k, v in value.items()) + b"u"
        if isinstance(value, list | tuple):
            end = b"t" if isinstance(value, tuple) else b"l"
            return b"(" + b"".join(map(body, value)) + end
        if isinstance(value, str):
            return text(value)
        if isinstance(value, int):
            return integer(value)
        kinds = {"f4": "FloatStorage", "i8": "LongStorage", "u1": "ByteStorage"}
        key = keys.setdefault(id(value), str(len(keys)))
        storages[key] = value.tobytes()
        kind = kinds[value.dtype.str[1:]]
        return tensor(
            storage(key, value.size, kind), value.shape, contiguous(value.shape)
        )

    return torch_zip(pickle(body(root)), storages)


def refused(path, words: str) -> None:
    """The file is not read, and the error says where and why."""
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.read(path)
    assert words in str(caught.value) and str(path) in str(caught.value)
