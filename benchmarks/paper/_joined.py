"""Comparisons that were run apart, as one: detectors side by side, nothing measured.

`ban-jax compare` keeps a folder to itself while it runs, so detectors that are run at the
same time have a folder each. What their `comparison.json` say of the same models under the
same flags is put together here.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

FILE = "comparison.json"
SAME = ("zoo", "models", "clean", "failed", "budget", "passes")
"""What comparisons must have in common, their models besides."""
SHARED_FLAGS = ("data", "split", "image_size", "num_clean", "seed", "profile")
"""And of their flags; the others are settings of one detector, or change no result."""


def read(out: str, folders: Sequence[str]) -> dict[str, Any] | None:
    """The comparison of these folders together; None where none of them has one.

    Folders without one are named, with the number of results that they hold so far.

    Raises:
      ValueError: naming the folder whose comparison is of other models or other flags.
    """
    found = {}
    for folder in folders:
        path = os.path.join(out, folder, FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                found[folder] = json.load(file)
        else:
            print(f"{folder}: {_begun(os.path.join(out, folder))}")
    return joined(found) if found else None


def joined(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One comparison of several: folder -> what its file says.

    Raises:
      ValueError: naming the folder whose comparison is of other models or other flags, or
        whose detector another folder has, too.
    """
    (first, whole), *rest = found.items()
    for folder, one in rest:
        for told, get in _TOLD.items():
            if get(one) != get(whole):
                raise ValueError(
                    f"{folder}/{FILE}: {told} differ from those of {first}/{FILE}; "
                    f"expected {get(whole)}, found {get(one)}"
                )
    methods = [method for one in found.values() for method in one["methods"]]
    names = [method["name"] for method in methods]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(found)}: {', '.join(twice)} in more than one")
    if len(found) == 1:
        return dict(whole)
    flags = {name: whole["flags"].get(name) for name in SHARED_FLAGS}
    flags = {name: value for name, value in flags.items() if value is not None}
    return {
        **whole,
        "flags": {"detectors": ",".join(names), **flags},
        "methods": methods,
        "parts": {
            folder: {name: one[name] for name in ("flags", "versions")}
            for folder, one in found.items()
        },
    }


def _models(one: Mapping[str, Any]) -> list[Any]:
    return [
        sorted(c["model"] for c in method["candidates"]) for method in one["methods"]
    ][:1]


_TOLD = {
    ", ".join(SAME): lambda one: [one.get(name) for name in SAME],
    "flags": lambda one: {name: one["flags"].get(name) for name in SHARED_FLAGS},
    "models": _models,
}


def _begun(folder: str) -> str:
    """How far a comparison is that is not through."""
    lines = 0
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".jsonl"):
                with open(os.path.join(folder, name), "rb") as file:
                    lines += sum(1 for _ in file)
    return f"not through, {lines} results so far" if lines else "not run"
