"""Which files of an Orbax folder are pieces of its arrays, by place, name and content.

A name of 32 hexadecimal digits, or a number, is soon given to anything: what begins as a
loader of models wants it is no piece, nor is a chunk that lies outside its array.
"""

import itertools
import json
import math
import os
import re

from ban_jax.checkpoints import file_bytes, pickle_walk, sniffing

_DATA = re.compile(r"[0-9a-f]{32}")
_CHUNK = re.compile(r"\d+(\.\d+)*|c")
_MANIFEST = "manifest.ocdbt"
_MOST = 1 << 20
"""Bytes of the description of an array."""
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, RecursionError),
)
"""What reading such a description raises where it is none."""


def is_piece(folder: str, name: str) -> bool:
    """Whether a file is part of a database of arrays or a chunk of one.

    Args:
      folder: in an Orbax folder.
      name: of a file in it.
    """
    database = os.path.join(os.path.dirname(folder), _MANIFEST)
    of_database = os.path.basename(folder) == "d" and os.path.lexists(database)
    if not (_DATA.fullmatch(name) if of_database else _is_chunk(folder, name)):
        return False
    try:
        data = file_bytes.read(os.path.join(folder, name))
        head = bytes(data[: sniffing.HEAD])
    except (OSError, ValueError):
        return False
    return not sniffing.is_read_by_loaders(head, lambda: pickle_walk.reading(data))


def _is_chunk(folder: str, name: str) -> bool:
    """Of an array in the layout of zarr, in which each has a folder."""
    if name == _MANIFEST:
        return True
    if not _CHUNK.fullmatch(name):
        return False
    parts = [name]
    while True:
        numbers = [int(n) for n in ".".join(parts).split(".") if n != "c"]
        for described in (".zarray", "zarr.json"):
            if _is_within(numbers, os.path.join(folder, described)):
                return True
        folder, above = os.path.split(folder)
        if not _CHUNK.fullmatch(above):  # c/0/1 of the third version
            return False
        parts.insert(0, above)


def _is_within(numbers: list[int], path: str) -> bool:
    """Whether an array that a file describes has a chunk of these numbers."""
    try:
        with open(path, "rb") as file:
            described = json.loads(file.read(_MOST))
        chunks = described.get("chunks")
        if chunks is None:
            chunks = described["chunk_grid"]["configuration"]["chunk_shape"]
        counts = [
            math.ceil(length / each)
            for length, each in zip(described["shape"], chunks, strict=True)
        ]
    except _DAMAGE:
        return False
    # A single number has one chunk, called 0, or c alone.
    pairs = itertools.zip_longest(numbers, counts or [1], fillvalue=0)
    return all(number < count for number, count in pairs)
