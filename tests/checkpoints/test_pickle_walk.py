"""What `pickle.load` would run is found whatever the bytes look like or are packed in."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    discovery,
    npy_header,
    pickle_walk,
    torch_reader,
    unpacking,
)

CALL = b"cposix\nsystem\n(S'true'\ntR."
LONG = 2**21


def text_operation(size):
    return b"X" + struct.pack("<I", size) + b"a" * size + b"0"


STARTS = {
    "an image (GIF)": b"GIF89a\0\0\x000",
    "an image (BMP)": b"BM" + b"\0\0\0" + b"x" * 77 + b"0",
    "an image (PBM)": b"P5 \n",
    "a film": b"U\6abftyp0",
    "sound": b"U\4RIFF0",
    "bytes": b"C\1x0",
    "a frame": b"\x95" + struct.pack("<Q", len(CALL)),
    "protocol 0": b"\x80\0",
    "protocol 1": b"\x80\1",
    "a set": b"\x8f0",
    "a short text": b"\x8c\2os0",
    "a long text": text_operation(LONG),
    "a long line": b"V" + b"plain text " * (LONG // 8) + b"\n0",
    "a far memo": b"Nr\xff\xff\0\x000",
    "a number in base 16": b"I0x10\n0",
    "other pickles": b"I1\n." * 3,
    "nothing": b"",
}


def told(path):
    """The calls of the only file that a search is to find."""
    (found,) = discovery.search([path.parent]).paths
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.read(found)
    return caught.value.calls


@pytest.mark.parametrize("kind", sorted(STARTS))
def test_a_call_is_told_whatever_the_file_begins_with(tmp_path, kind):
    path = tmp_path / "thing"
    path.write_bytes(STARTS[kind] + CALL)
    assert told(path) == ("posix.system",)


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("kind", ["a long line", "an image (GIF)", "a short text"])
def test_a_call_in_a_packed_file_is_told(tmp_path, packed, kind):
    path = tmp_path / "thing.log"
    path.write_bytes(packed(STARTS[kind] + CALL))
    assert told(path) == ("posix.system",)


def test_a_packed_file_may_be_of_several_streams():
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        data = pack(STARTS["a long text"]) + pack(CALL)
        assert pickle_walk.calls(unpacking.Inner(data).read) == ("posix.system",)


def test_a_packed_file_is_not_looked_into_without_end():
    inner = unpacking.Inner(gzip.compress(b"V" + bytes(LONG)), most=LONG // 2)
    assert pickle_walk.walk(inner.read).cut


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("start", [b"", b"U\6abftyp0", b"GIF89a\0\0\0"])
def test_a_legacy_file_is_one_however_the_magic_number_is_written(protocol, start):
    header = pickle.dumps(0x1950A86A20F9469CFC6C, protocol)
    assert torch_reader.is_legacy(memoryview(start + header))
    header = pickle.dumps(0x1950A86A20F9469CFC6D, protocol)
    assert not torch_reader.is_legacy(memoryview(start + header))


def test_the_calls_of_a_legacy_file_of_protocol_0_are_told(tmp_path):
    parts = [pickle.dumps(one, 0) for one in (torch_reader._MAGIC, 1001, {})]
    path = tmp_path / "old.pkl"
    path.write_bytes(b"".join(parts) + CALL + pickle.dumps([], 0))
    assert told(path) == ("posix.system",)


def test_a_model_that_is_a_pickle_besides_is_not_judged(tmp_path):
    values = (b"0" + CALL).ljust(40, b" ")
    entry = {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}
    # The length of the header begins with V, which reads up to the end of a line.
    header = json.dumps({"weight": entry}).encode().ljust(256 + ord("V") - 1) + b"\n"
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    with pytest.raises(checkpoints.CheckpointError, match="of two formats") as caught:
        checkpoints.read(path)
    assert caught.value.calls == ("posix.system",)


@pytest.mark.parametrize(
    "content",
    [
        b"Vol. 1\nVery much\nVe",
        b"N. Bourbaki wrote this, and more of it than fits into a line of text.",
        b"(c) 2020 The authors\nof this\n",
        b"I\nam\n",
        b"P2\n24 7\n15\n",
        b"".join(b"PIL/file_%d.py\n" % n for n in range(40)) + b"RECORD\n",
        b"G" + bytes(40),
        b"MM\0*" + bytes(40),
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"BM" + (60_054).to_bytes(4, "little") + bytes(60_048),
        b"GIF89a\x20\0\x20\0\xf7\0\0" + bytes(900),
    ],
)
def test_text_and_pictures_are_no_pickles(content):
    size = len(content)
    walked = pickle_walk.walk(pickle_walk.reading(content, size))
    assert not walked.is_pickle(strict=True) and not walked.cut


def test_a_list_of_names_is_text(tmp_path):
    (tmp_path / "RECORD").write_bytes(b"PIL/Image.py\n" * 200 + b"__init__.py\n")
    assert discovery.search([tmp_path]).passed[0].reason == "text"


def array(descr, header_size=0):
    text = repr({"descr": descr, "fortran_order": False, "shape": (1,)})
    text = "{\n" + " " * header_size + text[1:] + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("size", [0, 500, 5000])
@pytest.mark.parametrize(
    "descr", ["|O", "object", [("a" * 300, "<f4"), ("b", "|O")], [("a", [("b", "O8")])]]
)
def test_arrays_of_objects_are_told_of_however_the_header_is_written(
    tmp_path, descr, size
):
    path = tmp_path / "thing.npy"
    path.write_bytes(array(descr, size) + CALL)
    assert told(path) == ("posix.system",)


def test_arrays_of_numbers_hold_no_objects():
    for dtype in ("f4", "i8", "?", "U7", "c16", [("Or", "f4", (3, 3)), ("b", "i4")]):
        file = io.BytesIO()
        np.save(file, np.zeros(3, dtype))
        assert npy_header.holds_numbers(npy_header.read(file.getvalue()).descr)


@pytest.mark.parametrize(
    ("array", "is_row"),
    [
        (np.zeros(5000, "f4"), True),
        (np.zeros((1, 5000, 1)), True),
        (np.zeros(1, [("conv1", "f4", (3, 3)), ("fc", "f4", (2,))]), True),
        (np.zeros(5000, "i8"), False),
        (np.zeros(50, "f4"), False),
        (np.zeros((3, 64, 64), "f4"), False),
    ],
)
def test_an_array_that_may_be_all_weights_is_for_the_reader(tmp_path, array, is_row):
    np.save(tmp_path / "array.npy", array)
    assert bool(discovery.search([tmp_path]).paths) == is_row
