"""What a labelled zoo says of its models: `zoo.json` as ground truth."""

import os
from collections.abc import Mapping
from typing import Any

from ban_jax.storage import json_file
from ban_jax.zoo import listing

CLEAN = "clean"
NEEDED = {"file": str, "kind": str, "architecture": str}


def entries(folder: str) -> list[dict[str, Any]]:
    """The models that a zoo's `zoo.json` lists.

    Raises:
      ValueError: naming the file and the entry, where it is no such list.
    """
    index = os.path.join(folder, listing.INDEX)
    try:
        found = json_file.load(index)
    except FileNotFoundError:
        raise ValueError(
            f"{index}: there is no such file; expected a folder that `ban-jax train` "
            "wrote, or one whose models are listed alike"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{index}: cannot be read: {error}") from error
    if not isinstance(found, list):
        raise ValueError(f"{index}: expected a list of models")
    for number, entry in enumerate(found, start=1):
        for name, kind in NEEDED.items():
            value = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(value, kind):
                raise ValueError(
                    f"{index}: model {number} needs {name!r} as text, found {value!r}"
                )
    return found


def labelled(folder: str) -> dict[str, dict[str, Any]]:
    """Path of each checkpoint -> its entry of `zoo.json`."""
    return {os.path.join(folder, entry["file"]): entry for entry in entries(folder)}


def has_failed(entry: Mapping[str, Any]) -> bool:
    """Whether a model's backdoor failed in training, by its excess success."""
    return bool(entry.get("failed"))


def is_clean(entry: Mapping[str, Any]) -> bool:
    """Whether a model has no backdoor."""
    return entry["kind"] == CLEAN


def attack(entry: Mapping[str, Any]) -> str:
    """What a model's attack is called; one that sends all classes on says so."""
    mode = " (all to all)" if entry.get("mode") == "all_to_all" else ""
    return f"{entry['kind']}{mode}"
