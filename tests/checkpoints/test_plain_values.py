"""Checkpoints in bytes, texts and lists of a file are told of, not passed over."""

import base64
import io
import pickle
from typing import Any

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import plain_values, reading
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
NET = builders.state_dict(SPEC)
INNER = pickle.dumps(builders.state_dict(SPEC, seed=1))
_buffer = io.BytesIO()
np.savez(_buffer, **{name.replace(".", "_"): value for name, value in NET.items()})
HIDDEN: dict[str, Any] = {
    "bytes": INNER,
    "zip": _buffer.getvalue(),
    "packed": b"\x1f\x8b" + INNER,
    "bytes of no known kind": b"\xee" + INNER,
    "bytearray": bytearray(INNER),
    "buffer": io.BytesIO(INNER),
    "pieces": [INNER[at : at + 4000] for at in range(0, len(INNER), 4000)],
    "text": INNER.decode("latin-1"),
    "base64": base64.b64encode(INNER).decode(),
    "lines of base64": base64.encodebytes(INNER).decode(),
    "base64 in bytes": base64.b64encode(INNER),
    "pieces of hexadecimal": [INNER[at : at + 50].hex() for at in range(0, 50_000, 50)],
    "key": {INNER: 1},
    "key that is text": {INNER.decode("latin-1"): 1},
    "one number": int.from_bytes(INNER, "little"),
    "whole numbers": np.random.default_rng(0).integers(-(10**6), 0, 60_000).tolist(),
    "numbers in a text": " ".join(map(str, np.random.default_rng(0).random(5000))),
    "numbers": np.random.default_rng(0).random((100, 600)).tolist(),
}
ORDINARY: dict[str, Any] = {
    "source": "import torch\n\ndef forward(x):\n    return x * 2\n" * 1000,
    "words of another script": "\u8bad\u7ec3\u96c6" * 9000,
    "names of files": [f"n01440764/ILSVRC2012_val_{i:08}.JPEG" for i in range(2000)],
    "a hash": "ab" * 32,
    "steps": list(range(0, 240_000, 3)),
    "a seed": 2**500,
    "losses": list(np.random.default_rng(0).random(20_000)),
    "json": "{" + ",".join(f'"word{i}":{i}' for i in range(5000)) + "}",
}


def told(tmp_path, root: Any, protocol: int) -> dict[str, str]:
    """Name of each part -> its error; of a file without parts, what it is, or the error."""
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(root, protocol))
    try:
        parts = reading.read_all(path)
    except checkpoints.CheckpointError as error:
        return {"": f"passed: {error.other}" if error.other else str(error)}
    return {p.path.partition("#")[2]: str(p.error or "") for p in parts}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_may_be_a_checkpoint_inside_a_file_keeps_it_from_being_passed(
    tmp_path, name, protocol
):
    alone = told(tmp_path, {"a": HIDDEN[name]}, protocol)
    assert "what may be weights was not judged" in alone[""]
    beside = told(tmp_path, {"net": NET, "a": HIDDEN[name]}, protocol)
    assert set(beside) == {"net", "rest"} and not beside["net"]
    assert "nothing says that it is no classifier's" in beside["rest"]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_texts_and_numbers_beside_a_model_leave_it_judged(tmp_path, name):
    assert told(tmp_path, {"net": NET, "a": ORDINARY[name]}, 4) == {"": ""}
    assert told(tmp_path, {"a": ORDINARY[name]}, 4)[""].startswith(
        "passed: plain values"
    )


def test_a_row_of_bytes_that_begins_like_a_file_is_no_index(tmp_path):
    for start, expected in (
        (b"PK\3\4", "unknown architecture"),
        (b"abcd", "passed: indices"),
    ):
        row = np.frombuffer(start + bytes(100), np.uint8)
        assert expected in told(tmp_path, [row, row[:9]], 4)[""]


def test_what_bytes_look_like_is_said():
    for value, words in (
        (b"PK\3\4" + bytes(9), "zip archive"),
        (b"\x80\4" + bytes(9), "pickle"),
        (b"\x93NUMPY\1\0", "NumPy"),
    ):
        piece = plain_values.piece("there", value)
        assert piece is not None and words in piece.looks
    assert plain_values.piece("there", b"\x89PNG\r\n\x1a\n" + bytes(99)) is None
    assert plain_values.piece("there", 3) is None
