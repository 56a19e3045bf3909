"""The arrays in an Orbax folder, read without Orbax.

Orbax reads all arrays at once and gives up at the first that is damaged. The others are
then still on their way to an event loop that is closed, and a thread of TensorStore's can
end the process in a segmentation fault (orbax-checkpoint 0.12.8, tensorstore 0.1.86). Here
all reads are waited for, whatever comes of them, and a folder with a damaged or a missing
array never reaches Orbax.
"""

import json
import math
import os
import posixpath
from collections.abc import Collection, Iterable, Mapping, Set
from typing import Any

import numpy as np

from ban_jax.checkpoints import errors, limits, needed

DRIVERS = {"zarr.json": "zarr3", ".zarray": "zarr"}
"""What describes an array -> how it is stored."""
_ARRAYS = ("np.ndarray", "jax.Array")
_FEW = 256
"""Numbers that are no network: keys of generators, kept as arrays of their own."""
Tree = dict[tuple[str, ...], np.ndarray]
"""Arrays by their keys, outermost first: `("params", "bn1", "scale")`."""
Trees = dict[str, Tree]
"""Folder of a `_METADATA`, relative -> its arrays."""


def read(folder: str, databases: Collection[str], size: int) -> Trees:
    """Reads all arrays of an Orbax folder, and none that its files cannot hold.

    Args:
      folder: the checkpoint.
      databases: folders in it that are OCDBT key-value stores.
      size: bytes of all its files.

    Raises:
      CheckpointError: for an array that is damaged, too large, named by the metadata and
        not there, or there and named by none: Orbax would not load it.
    """
    there: dict[str, np.ndarray] = {}
    for path in (folder, *databases):
        place = os.path.relpath(path, folder)
        spec: dict[str, Any] = {"driver": "file", "path": os.path.abspath(path) + "/"}
        if path in databases:
            spec = {"driver": "ocdbt", "base": spec}
        # TensorStore raises what its layers raise; what it cannot read is damaged.
        try:
            found = _read_all(spec, limits.inflated(size))
        except errors.CheckpointError:
            raise
        except Exception as error:
            raise errors.CheckpointError(
                f"an array in {errors.show(place)} is damaged: {error}"
            ) from error
        there |= {_joined(place, name): array for name, array in found.items()}
    trees = {
        os.path.relpath(parent, folder): _named(parent, folder, there)
        for parent, _, files in os.walk(folder)
        if "_METADATA" in files
    }
    known = {_joined(place, ".".join(keys)) for place in trees for keys in trees[place]}
    if unnamed := sorted(name for name in there if not _is_known(name, known, there)):
        raise errors.CheckpointError(
            "it holds arrays that its metadata does not name: "
            f"{errors.listing([errors.show(name) for name in unnamed], 8)}"
        )
    return trees


def _is_known(name: str, known: Set[str], there: Mapping[str, np.ndarray]) -> bool:
    """Whether an array is named by the metadata, or is what one process wrote of such."""
    array = there[name]
    if name in known or array.size <= _FEW:
        return True
    parent, _, base = name.rpartition("/")
    above, _, process = parent.rpartition("/")
    whole = _joined(above, base)
    is_part = process.startswith("ocdbt.process_") and whole in known
    return is_part and np.array_equal(_bytes(array), _bytes(there[whole]))


def _bytes(array: np.ndarray) -> np.ndarray:
    """Of numbers, so that what is no number equals itself."""
    return np.ravel(array).view(np.uint8)


def _read_all(spec: Mapping[str, Any], budget: limits.Budget) -> dict[str, np.ndarray]:
    """The arrays in a key-value store, by name."""
    opened = {}
    tensorstore = needed.tensorstore()
    for key in tensorstore.KvStore.open(spec).result().list().result():
        name, _, described = key.decode().rpartition("/")
        if described in DRIVERS:
            kvstore = {**spec, "path": spec.get("path", "") + name + "/"}
            opened[name] = tensorstore.open(
                {"driver": DRIVERS[described], "kvstore": kvstore}
            )
    arrays = dict(zip(opened, _all(opened.values()), strict=True))
    for array in arrays.values():
        chunk = tuple(side or 1 for side in array.chunk_layout.read_chunk.shape or ())
        most = max(math.prod(array.shape), math.prod(chunk))
        budget.spend(array.dtype.numpy_dtype.itemsize * most)
    values = _all([array.read() for array in arrays.values()])
    return dict(zip(arrays, values, strict=True))


def _all(futures: Iterable[Any]) -> list[Any]:
    """What futures give, once all have come to an end; the first error among them."""
    futures = list(futures)
    failed = [error for future in futures if (error := future.exception()) is not None]
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


def _named(parent: str, folder: str, there: Mapping[str, np.ndarray]) -> Tree:
    """The arrays that a tree's metadata names; Orbax joins keys by dots."""
    place, path = os.path.relpath(parent, folder), os.path.join(parent, "_METADATA")
    with open(path, encoding="utf-8") as file:
        described = json.load(file)
    found = {}
    try:
        for entry in described.get("tree_metadata", {}).values():
            value = entry["value_metadata"]
            keys = tuple(str(step["key"]) for step in entry["key_metadata"])
            name = ".".join(keys)
            array = there.get(_joined(place, name))
            if array is not None:
                found[keys] = array
            elif value["value_type"] in _ARRAYS and not value.get("skip_deserialize"):
                raise errors.CheckpointError(
                    f"its metadata names the array {errors.show(name)}, which is not there"
                )
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.CheckpointError(
            f"_METADATA describes no tree: {error!r}"
        ) from error
    return found


def _joined(place: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(place, name))
