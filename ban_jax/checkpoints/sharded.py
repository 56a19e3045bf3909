"""Sets of files that together are one checkpoint, as Hugging Face programs write them.

    model-00001-of-00002.safetensors   some of the tensors
    model-00002-of-00002.safetensors   the others
    model.safetensors.index.json       `weight_map`: tensor -> file

and the same with `pytorch_model` and `.bin`, `flax_model` and `.msgpack`. Whichever is
asked for, the set is read. Programs go by the index alone: where it names files that are
called otherwise, it stands for the set, and they for what they hold by themselves.
A program that loads it reads every file of the index whole, so the files must hold what
the index says of them and nothing else. All of it may lie in an archive, too.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    beside,
    contents,
    errors,
    json_text,
    limits,
    tensor,
)

_SHARD = re.compile(
    r"(.+)-0*(\d+)-of-0*(\d+)(\.safetensors|\.bin|\.msgpack)", re.IGNORECASE
)
_INDEX = re.compile(r"(.+)\.index(?:\.[\w-]+)?\.json", re.IGNORECASE)
_OF_WEIGHTS = (".safetensors", ".bin", ".msgpack")
_MAX_DEPTH = 64
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


class NoIndexError(errors.CheckpointError):
    """A JSON text that places no weights."""


def place(path: str) -> Place | None:
    """Where a file belongs by its name; None for what is no part of a set."""
    name = os.path.basename(path)
    if found := _SHARD.fullmatch(name):
        stem, number, total, suffix = found.groups()
        whole = stem + suffix
        told = f"part {number} of {total} of {whole}"
        index = beside.path(path, f"{whole}.index.json")
        # Of a variant: model.fp16-00001-of-00002 has model.safetensors.index.fp16.json.
        base, dot, variant = stem.rpartition(".")
        other = beside.path(path, f"{base}{suffix}.index.{variant}.json")
        if dot and not beside.has(index) and beside.has(other):
            index = other
        return Place(whole, index, told)
    if found := _INDEX.fullmatch(name):
        return Place(found.group(1), path, "the index of a set")
    return None


def is_for_all(path: str) -> bool:
    """Whether a file is an index that stands for its set.

    That is one whose files do not all lead to it by their names: those that are not there,
    and those that programs find by the index alone.
    """
    found = _INDEX.fullmatch(os.path.basename(path))
    if not found:
        return False
    try:
        files = _files(path)
    except NoIndexError:
        return found.group(1).lower().endswith(_OF_WEIGHTS)
    except (errors.CheckpointError, OSError):
        return True
    return not all(_leads_to(path, name) for name in files)


def _leads_to(index: str, name: str) -> bool:
    path = beside.path(index, name)
    found = place(path)
    return _is_there(path) and found is not None and found.index_path == index


def index_of(path: str) -> str:
    """The path of an index that stands for a set which a file is in; empty without one."""
    own = os.path.basename(path)
    try:
        for name in sorted(beside.names(path, _INDEX)):
            index = beside.path(path, name)
            try:
                if own in _files(index) and is_for_all(index):
                    return index
            except errors.CheckpointError:
                continue
    except (errors.CheckpointError, OSError):
        pass  # the reader says what is wrong
    return ""


def is_in_set(path: str) -> str:
    """What a file is by an index that stands for its set, in words; empty without one."""
    index = index_of(path)
    if not index:
        return ""
    return f"a file of the set of {os.path.basename(index)}, which is judged as a whole"


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
        if not beside.has(one.index_path):
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
        raw = beside.read(index, limits.MAX_JSON)
        found = json_text.loads(raw, unique=True)
    except ValueError as error:
        raise errors.CheckpointError(f"{name}: {error}") from error
    mapped = found.get("weight_map") if type(found) is dict else None
    if type(mapped) is not dict or not mapped:
        raise NoIndexError(f"{name} has no weight_map")
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
    paths = {name: beside.path(one.index_path, name) for name in files}
    absent = [name for name, path in paths.items() if not _is_there(path)]
    if absent:
        index = os.path.basename(one.index_path)
        raise errors.CheckpointError(
            f"{len(absent)} of the {len(files)} files of {index} are "
            f"missing: {errors.listing([errors.show(name) for name in absent], 20)}"
        )
    total = sum(map(beside.size, paths.values()))
    most = beside.most(one.index_path)
    if total > most:
        raise errors.CheckpointError(
            f"the set has {total:,} bytes; at most {most:,} are read"
        )
    root: dict[str, tensor.Tensor] = {}
    calls: dict[str, None] = {}
    is_tree = one.whole.lower().endswith(".msgpack")
    for name in sorted(files):
        try:
            found = read_file(paths[name])
        except errors.CheckpointError as error:
            raise errors.CheckpointError(
                f"{errors.show(name)}: {error}", calls=error.calls
            ) from error
        held = found.root if type(found.root) is dict else {}
        if is_tree:
            held = dict(_leaves(held, (), _MAX_DEPTH))
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
    made = _tree(root) if is_tree else root
    return contents.Contents(made, {}, total, calls=tuple(calls), notes=(note,))


def _is_there(path: str) -> bool:
    return beside.has(path) and not (os.path.islink(path) and not os.path.exists(path))


def _leaves(
    node: Mapping[Any, Any], above: tuple[str, ...], depth: int
) -> Iterator[tuple[str, Any]]:
    """What Flax keeps in dicts inside dicts, by the names that an index has for it."""
    for name, value in node.items():
        here = (*above, str(name))
        if type(value) is dict and value and depth:
            yield from _leaves(value, here, depth - 1)
        else:
            yield "/".join(here), value


def _tree(tensors: Mapping[str, tensor.Tensor]) -> dict[str, Any]:
    """The tensors of Flax where they were before their names were joined.

    Raises:
      CheckpointError: where one name is a tensor's and a dict's.
    """
    root: dict[str, Any] = {}
    for name, value in tensors.items():
        node = root
        *above, last = name.split("/")
        for step in above:
            node = node.setdefault(step, {})
            if type(node) is not dict:
                raise errors.CheckpointError(f"{errors.show(name)} lies in a tensor")
        if node.setdefault(last, value) is not value:
            raise errors.CheckpointError(f"{errors.show(name)} is there twice")
    return root


def whole_name(name: str) -> str:
    """What a set's file would be called if it were a single one; else the name itself."""
    if found := _SHARD.fullmatch(name):
        return found.group(1) + found.group(4).lower()
    found = _INDEX.fullmatch(name)
    return found.group(1) if found else name
