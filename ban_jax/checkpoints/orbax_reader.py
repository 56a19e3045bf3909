"""Orbax checkpoints: folders, described by Orbax's v1 API.

Arrays are read by `orbax_arrays`, those of trees side by side together; Orbax itself reads
them where it is not plain which of other trees it would take. Orbax and TensorStore open
files by names found in the folder's metadata. Before, the folder is searched for anything
that could lead out of it; TensorStore itself refuses `..` in the paths of its binary
manifests (a test pins that).
"""

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from ban_jax.checkpoints import (
    contents,
    errors,
    hashing,
    limits,
    needed,
    orbax_arrays,
    tensor,
    watchdog,
)

_METADATA = (".json", ".zarray", "_METADATA")
# They allocate what their own header announces; the ones Orbax uses stream.
_UNBOUNDED_CODECS = ("blosc",)
MARKERS = ("_CHECKPOINT_METADATA", "_METADATA")
MAX_KEYS = 64
"""Of an array in one of several trees."""
_MAX_JSON = 4 * limits.MIB


def is_checkpoint(folder: str) -> bool:
    """Whether the folder is an Orbax checkpoint, by the files Orbax marks it with."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in MARKERS)


def items(folder: str) -> list[str]:
    """Names of the trees that lie side by side in an Orbax folder; [] for fewer than two.

    `args.Composite(params=..., batch_stats=...)` of Orbax's CheckpointManager writes a
    folder for each. Programs load them by these names: they are one checkpoint.
    """
    if os.path.isfile(os.path.join(folder, MARKERS[1])):
        return []
    with os.scandir(folder) as entries:
        found = sorted(
            entry.name
            for entry in entries
            if os.path.isfile(os.path.join(entry.path, MARKERS[1]))
        )
    return found if len(found) > 1 else []


def read(folder: str) -> contents.Contents:
    """The tree of arrays in an Orbax folder; several side by side are one.

    Raises:
      CheckpointError: for a folder that points elsewhere, is damaged, or whose arrays
        are larger than its files can hold.
    """
    size, databases = _check_folder(folder)
    watchdog.extend(limits.SECONDS_PER_MIB * size / limits.MIB)
    trees = orbax_arrays.read(folder, databases, size)
    if beside := items(folder):
        tensors = _tensors(_together(trees, beside))
        return contents.Contents(hashing.unflatten(tensors), {}, size, True)
    ocp = needed.orbax()
    # Orbax and TensorStore raise what their layers raise; a folder they cannot read is
    # a damaged one, whatever the type.
    try:
        described = ocp.metadata(os.path.abspath(folder))
    except Exception as error:
        raise errors.CheckpointError(
            f"Orbax cannot read its metadata: {error}"
        ) from error
    tree = described.metadata
    if not isinstance(tree, Mapping):
        raise errors.CheckpointError(
            "the Orbax checkpoint does not hold a tree of arrays"
        )
    flat = hashing.flatten(tree)
    budget = limits.inflated(size)
    _check_number(flat)
    for name, leaf in flat.items():
        budget.spend(_largest(name, leaf))
    wanted = {
        name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for name, leaf in flat.items()
        if getattr(leaf, "shape", None) is not None
    }
    arrays = _chosen(trees, wanted) or _loaded(folder, tree, wanted)
    tensors = _tensors(arrays)
    custom = described.custom_metadata or {}
    metadata = {k: v for k, v in custom.items() if isinstance(v, str)}
    return contents.Contents(hashing.unflatten(tensors), metadata, size, True)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, tensor.Tensor]:
    """Those of a kind that weights have."""
    return {
        name: tensor.from_array(array)
        for name, array in arrays.items()
        if array.dtype.name in tensor.DTYPES
    }


def _together(
    trees: orbax_arrays.Trees, beside: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays of several trees, `name of the tree/key/key`.

    Raises:
      CheckpointError: for keys that could be another array's too.
    """
    flat: dict[str, np.ndarray] = {}
    groups: set[str] = set()
    for tree in beside:
        for keys, array in trees[tree].items():
            name = "/".join((tree, *keys))
            if len(keys) > MAX_KEYS or any("." in key or "/" in key for key in keys):
                raise errors.CheckpointError(
                    f"it holds several trees, and the array {errors.show(name)} in one of "
                    f"them has a key with a dot or a slash, or more than {MAX_KEYS} keys"
                )
            flat[name] = array
            groups.update("/".join((tree, *keys[:count])) for count in range(len(keys)))
    if both := groups & flat.keys():
        raise errors.CheckpointError(
            f"{errors.show(min(both))} is an array and holds others"
        )
    _check_number(flat)
    return flat


def _check_number(flat: Sized) -> None:
    if len(flat) > limits.MAX_ENTRIES:
        raise errors.CheckpointError(f"the Orbax checkpoint has {len(flat):,} entries")


def _chosen(
    trees: orbax_arrays.Trees, wanted: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The wanted arrays of the one tree that has them all; empty without or with several.

    Orbax joins keys by dots: what has dots in it may be found in two ways, and is not.
    """
    keys = {name: tuple(name.split("/")) for name in wanted}
    fitting = [tree for tree in trees.values() if tree.keys() >= set(keys.values())]
    if len(fitting) != 1 or any("." in name for name in wanted):
        return {}
    return {name: fitting[0][told] for name, told in keys.items()}


def _loaded(
    folder: str, tree: Any, wanted: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The wanted arrays, read by Orbax."""
    ocp = needed.orbax()
    try:
        loaded = ocp.load(os.path.abspath(folder), _abstract(tree, wanted))
    except Exception as error:
        raise errors.CheckpointError(
            f"Orbax cannot read its arrays: {error}"
        ) from error
    arrays = hashing.flatten(loaded)
    return {name: np.asarray(arrays[name]) for name in wanted}


def _abstract(tree: Any, wanted: dict[str, np.ndarray], prefix: str = "") -> Any:
    return {
        name: (
            _abstract(value, wanted, f"{prefix}{name}/")
            if isinstance(value, Mapping)
            else wanted.get(prefix + name, needed.orbax().PLACEHOLDER)
        )
        for name, value in tree.items()
    }


def _largest(name: str, leaf: Any) -> int:
    """Bytes to read a leaf: its array, or one stored chunk where that is larger."""
    shape = getattr(leaf, "shape", None)
    if shape is None:
        return 0
    stored = getattr(leaf, "storage_metadata", None)
    chunk = getattr(stored, "chunk_shape", None) or ()
    if len(shape) > limits.MAX_RANK:
        raise errors.CheckpointError(f"array {errors.show(name)} has rank {len(shape)}")
    return np.dtype(leaf.dtype).itemsize * max(math.prod(shape), math.prod(chunk))


def _check_folder(folder: str) -> tuple[int, list[str]]:
    """Bytes of a folder that holds plain files and stays within itself; its databases."""
    total = count = 0
    databases = []
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            count += 1
            if not _is_text(path):
                raise errors.CheckpointError(
                    f"{errors.show(path)} is no UTF-8, which Orbax's files are named in"
                )
            if stat.S_ISLNK(status.st_mode):
                raise errors.CheckpointError(
                    f"{errors.show(os.path.relpath(path, folder))} is a link; an Orbax "
                    "folder must hold its own files"
                )
            if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                raise errors.CheckpointError(
                    f"{errors.show(os.path.relpath(path, folder))} is not a plain file"
                )
            if count > limits.MAX_ENTRIES:
                raise errors.CheckpointError("more files than any checkpoint has")
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
        for name in files:
            if name in MARKERS or name.endswith(_METADATA):
                _check_json(os.path.join(parent, name), folder)
            if name == "manifest.ocdbt":
                databases.append(parent)
    for database in databases:
        _check_database(database, folder)
    return total, databases


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that Python keeps as lone surrogates
        return False
    return True


def _check_database(database: str, folder: str) -> None:
    """The array metadata inside an OCDBT key-value store, held to the same rules."""
    label = errors.show(os.path.relpath(database, folder))
    tensorstore = needed.tensorstore()
    try:
        base = {"driver": "file", "path": os.path.abspath(database) + "/"}
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        keys = store.list().result()
        for key in keys:
            if key.endswith(tuple(name.encode() for name in _METADATA)):
                _check_strings(json.loads(store[key]), f"{label} {errors.show(key)}")
    except errors.CheckpointError:
        raise
    except (KeyError, ValueError, RecursionError, OSError) as error:
        raise errors.CheckpointError(f"{label} is damaged: {error}") from error


def _check_json(path: str, folder: str) -> None:
    label = errors.show(os.path.relpath(path, folder))
    if os.path.getsize(path) > _MAX_JSON:
        raise errors.CheckpointError(f"{label} is larger than {_MAX_JSON:,} bytes")
    try:
        with open(path, encoding="utf-8") as file:
            _check_strings(json.load(file), label)
    except errors.CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise errors.CheckpointError(f"{label} is not JSON: {error}") from error


def _check_strings(content: Any, label: str) -> None:
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and value in _UNBOUNDED_CODECS:
            raise errors.CheckpointError(
                f"{label} names the codec {value}, which Orbax does not write"
            )
        elif isinstance(value, str) and _points_elsewhere(value):
            raise errors.CheckpointError(
                f"{label} points outside the checkpoint: {errors.show(value)}"
            )


def _points_elsewhere(text: str) -> bool:
    return (
        text.startswith(("/", "\\", "~"))
        or "://" in text
        or ".." in text.replace("\\", "/").split("/")
        or "../" in text
        or "\0" in text
    )
