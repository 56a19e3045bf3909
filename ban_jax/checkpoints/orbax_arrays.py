"""Every array in an Orbax folder, read by itself before Orbax is asked.

Orbax reads all arrays at once and gives up at the first that is damaged. The others are
then still on their way to an event loop that is closed, and a thread of TensorStore's can
end the process in a segmentation fault (orbax-checkpoint 0.12.8, tensorstore 0.1.86). So
each array is opened and read here, one after the other, and a folder with a damaged or a
missing one never reaches Orbax.
"""

import json
import math
import os
import posixpath
from collections.abc import Collection, Mapping
from typing import Any

import tensorstore

from ban_jax.checkpoints import errors, limits

DRIVERS = {"zarr.json": "zarr3", ".zarray": "zarr"}
"""What describes an array -> how it is stored."""
_ARRAYS = ("np.ndarray", "jax.Array")


def prove(folder: str, databases: Collection[str], size: int) -> None:
    """Reads all arrays of an Orbax folder, and none that its files cannot hold.

    Args:
      folder: the checkpoint.
      databases: folders in it that are OCDBT key-value stores.
      size: bytes of all its files.

    Raises:
      CheckpointError: for an array that is damaged, too large, or named by the metadata
        and not there.
    """
    there: set[str] = set()
    for path in (folder, *databases):
        place = os.path.relpath(path, folder)
        spec: dict[str, Any] = {"driver": "file", "path": os.path.abspath(path) + "/"}
        if path in databases:
            spec = {"driver": "ocdbt", "base": spec}
        # TensorStore raises what its layers raise; what it cannot read is damaged.
        try:
            read = _read_all(spec, limits.inflated(size))
        except errors.CheckpointError:
            raise
        except Exception as error:
            raise errors.CheckpointError(
                f"an array in {errors.show(place)} is damaged: {error}"
            ) from error
        there |= {posixpath.normpath(posixpath.join(place, name)) for name in read}
    for parent, _, files in os.walk(folder):
        if "_METADATA" in files:
            _check_present(parent, folder, there)


def _read_all(spec: Mapping[str, Any], budget: limits.Budget) -> list[str]:
    """Names of the arrays in a key-value store, each of which was read whole."""
    names = []
    for key in tensorstore.KvStore.open(spec).result().list().result():
        name, _, described = key.decode().rpartition("/")
        if described not in DRIVERS:
            continue
        kvstore = {**spec, "path": spec.get("path", "") + name + "/"}
        array = tensorstore.open(
            {"driver": DRIVERS[described], "kvstore": kvstore}
        ).result()
        chunk = tuple(side or 1 for side in array.chunk_layout.read_chunk.shape or ())
        most = max(math.prod(array.shape), math.prod(chunk))
        budget.spend(array.dtype.numpy_dtype.itemsize * most)
        array.read().result()
        names.append(name)
    return names


def _check_present(parent: str, folder: str, there: Collection[str]) -> None:
    """Holds the arrays that a tree's metadata names against those that were read."""
    place = os.path.relpath(parent, folder)
    for name in _named(os.path.join(parent, "_METADATA")):
        if posixpath.normpath(posixpath.join(place, name)) not in there:
            raise errors.CheckpointError(
                f"its metadata names the array {errors.show(name)}, which is not there"
            )


def _named(path: str) -> list[str]:
    """Names of the arrays in a tree's metadata, as Orbax derives them."""
    with open(path, encoding="utf-8") as file:
        described = json.load(file)
    names = []
    try:
        for entry in described.get("tree_metadata", {}).values():
            value = entry["value_metadata"]
            if value["value_type"] in _ARRAYS and not value.get("skip_deserialize"):
                steps = [str(step["key"]) for step in entry["key_metadata"]]
                names.append(".".join(steps))
    except (AttributeError, KeyError, TypeError) as error:
        label = errors.show(os.path.basename(path))
        raise errors.CheckpointError(f"{label} describes no tree: {error!r}") from error
    return names
