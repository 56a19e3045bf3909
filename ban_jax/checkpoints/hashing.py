"""The identity of a candidate: a hash of its weights, whatever file they came in."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

HASHED = ("batch_stats", "params")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": x}}` -> `{"a/b": x}`, in the tree's order."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}/"))
        else:
            flat[prefix + name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def weights_hash(variables: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the sorted names, shapes, dtypes and bytes of the weights.

    Covers `params` and `batch_stats` under our names, so the same weights read from two
    file formats have one hash; the pixel normalisation is not part of it.
    """
    digest = hashlib.sha256()
    flat = flatten({name: variables[name] for name in HASHED if name in variables})
    for name in sorted(flat):
        array = np.ascontiguousarray(flat[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
