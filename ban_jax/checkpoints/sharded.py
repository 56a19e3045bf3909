"""Sets of files that together are one checkpoint, as Hugging Face programs write them.

    model-00001-of-00002.safetensors   some of the tensors
    model-00002-of-00002.safetensors   the others
    model.safetensors.index.json       `weight_map`: tensor -> file

and the same with `pytorch_model` and `.bin`. Whichever is asked for, the set is read.
A program that loads it reads every file of the index whole, so the files must hold what the
index says of them and nothing else.
"""

import os
import re
from collections.abc import Callable
from typing import NamedTuple

from ban_jax.checkpoints import (
    contents,
    errors,
    file_bytes,
    json_text,
    limits,
    tensor,
)

_SHARD = re.compile(r"(.+)-0*(\d+)-of-0*(\d+)(\.safetensors|\.bin)")
_INDEX = re.compile(r"(.+)(\.safetensors|\.bin)\.index(?:\.\w+)?\.json")
MAX_FILES = 1000


class Place(NamedTuple):
    """Where a file belongs.

    Attributes:
      whole: name of the set's file if it were a single one.
      index_path: of the index.
      told: what the file is, such as `part 1 of 2 of model.safetensors`.
    """

    whole: str
    index_path: str
    told: str


def place(path: str) -> Place | None:
    """Where a file belongs by its name; None for what is no part of a set."""
    folder, name = os.path.split(path)
    if found := _SHARD.fullmatch(name):
        stem, number, total, suffix = found.groups()
        whole = stem + suffix
        told = f"part {number} of {total} of {whole}"
        index = os.path.join(folder, f"{whole}.index.json")
        # Of a variant: model.fp16-00001-of-00002 has model.safetensors.index.fp16.json.
        base, dot, variant = stem.rpartition(".")
        other = os.path.join(folder, f"{base}{suffix}.index.{variant}.json")
        if dot and not os.path.lexists(index) and os.path.lexists(other):
            index = other
        return Place(whole, index, told)
    if found := _INDEX.fullmatch(name):
        return Place("".join(found.groups()), path, "the index of a set")
    return None


def is_lacking(path: str) -> bool:
    """Whether a file is an index, and what it lists is not there to be judged with it."""
    name = os.path.basename(path)
    if not _INDEX.fullmatch(name):
        return False
    try:
        files = _files(path)
    except (errors.CheckpointError, OSError):
        return True
    folder = os.path.dirname(path)
    return not all(os.path.exists(os.path.join(folder, one)) for one in files)


def read(
    path: str, one: Place, read_file: Callable[[str], contents.Contents]
) -> contents.Contents:
    """The set that a file belongs to, put together; or the file, where no index is there.

    Args:
      path: a file of the set, or its index.
      one: its place.
      read_file: reads a file on its own.

    Raises:
      CheckpointError: saying which part of what the file is.
    """
    name = os.path.basename(path)
    try:
        if not os.path.lexists(one.index_path):
            found = read_file(path)
            note = f"{one.told}: no {os.path.basename(one.index_path)} lies beside it"
            return found._replace(notes=(note,), part=note)
        files = _files(one.index_path)
        if path != one.index_path and name not in files:
            raise errors.CheckpointError(
                f"{os.path.basename(one.index_path)} does not list it"
            )
        return _joined(one, files, read_file)
    except errors.CheckpointError as error:
        raise errors.CheckpointError(
            f"{one.told}: {error}", calls=error.calls, other=error.other
        ) from error


def _files(index: str) -> dict[str, list[str]]:
    """File -> the tensors that the index says are in it."""
    name = os.path.basename(index)
    try:
        raw = bytes(file_bytes.read(index, limits.MAX_JSON)[:])
        found = json_text.loads(raw, unique=True)
    except ValueError as error:
        raise errors.CheckpointError(f"{name}: {error}") from error
    mapped = found.get("weight_map") if type(found) is dict else None
    if type(mapped) is not dict or not mapped:
        raise errors.CheckpointError(f"{name} has no weight_map")
    files: dict[str, list[str]] = {}
    for key, value in mapped.items():
        if (
            type(value) is not str
            or os.path.basename(value) != value
            or value[:1] == "."
        ):
            raise errors.CheckpointError(
                f"{name} puts {errors.show(key)} into {errors.show(value)}, which is no "
                "file beside it"
            )
        files.setdefault(value, []).append(key)
    if len(files) > MAX_FILES:
        raise errors.CheckpointError(
            f"{name} lists {len(files):,} files; at most {MAX_FILES:,} are read"
        )
    return files


def _joined(
    one: Place,
    files: dict[str, list[str]],
    read_file: Callable[[str], contents.Contents],
) -> contents.Contents:
    folder = os.path.dirname(one.index_path)
    absent = [name for name in files if not os.path.exists(os.path.join(folder, name))]
    if absent:
        index = os.path.basename(one.index_path)
        raise errors.CheckpointError(
            f"{len(absent)} of the {len(files)} files of {index} are "
            f"missing: {errors.listing([errors.show(name) for name in absent], 20)}"
        )
    total = sum(os.path.getsize(os.path.join(folder, name)) for name in files)
    if total > limits.MAX_FILE:
        raise errors.CheckpointError(
            f"the set has {total:,} bytes; at most {limits.MAX_FILE:,} are read"
        )
    root: dict[str, tensor.Tensor] = {}
    calls: dict[str, None] = {}
    for name in sorted(files):
        try:
            found = read_file(os.path.join(folder, name))
        except errors.CheckpointError as error:
            raise errors.CheckpointError(
                f"{errors.show(name)}: {error}", calls=error.calls
            ) from error
        held = found.root if type(found.root) is dict else {}
        tensors = {
            key: value
            for key, value in held.items()
            if isinstance(value, tensor.Tensor)
        }
        if tensors.keys() != set(files[name]) or len(tensors) != len(held):
            odd = sorted(held.keys() ^ set(files[name]), key=str)
            raise errors.CheckpointError(
                f"{errors.show(name)} does not hold what the index says of it: "
                f"{errors.listing([errors.show(str(key)) for key in odd], 20)}"
            )
        root |= tensors
        calls |= dict.fromkeys(found.calls)
    note = f"{one.told}, read as a whole: {len(files)} files by their index.json"
    return contents.Contents(root, {}, total, calls=tuple(calls), notes=(note,))


def whole_name(name: str) -> str:
    """What a set's file would be called if it were a single one; else the name itself."""
    found = place(name)
    return name if found is None else found.whole
