"""JSON of strangers: what it says, or one kind of error."""

import pytest

from ban_jax.storage import json_file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": NaN}', "NaN is not valid"),
        ('{"a": -Infinity}', "-Infinity is not valid"),
        ("[" * 100_000, "nests too deep"),
        ('{"a": 1' + "0" * 400 + "}", "a whole number of 401 digits"),
        ("[1, ", "Expecting value"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_reason(text, words):
    with pytest.raises(ValueError, match=words):
        json_file.loads(text)


def test_whole_numbers_of_64_bits_are_read():
    text = f"[{2**64 - 1}, {-(2**63)}, 7]"
    assert json_file.loads(text) == [2**64 - 1, -(2**63), 7]
