"""A folder of trained models with their ground truth, that grows and survives a kill.

`zoo.json` lists the models that are complete; `config.json` says how they were made. A
model is in the list only once its file is whole: what is not listed is made again.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from safetensors import SafetensorError

from ban_jax import atomic, zoo_table

INDEX, CONFIG, SUMMARY = "zoo.json", "config.json", "summary.txt"


class ZooError(ValueError):
    """The folder cannot take these models."""


class ZooFolder:
    """One folder, written by one process at a time."""

    def __init__(self, path: str, config: Mapping[str, Any]) -> None:
        """Opens or creates the folder.

        Args:
          path: the folder.
          config: everything that two models of one zoo share; JSON.

        Raises:
          ZooError: when the folder holds models made another way, or cannot be read.
        """
        self.path = path
        try:
            os.makedirs(path, exist_ok=True)
            before = self._read(CONFIG)
            self.entries: list[dict[str, Any]] = self._read(INDEX) or []
        except OSError as error:
            raise ZooError(f"{path}: not a usable folder: {error}") from error
        config = json.loads(json.dumps(config))
        if before is None:
            if self.entries:
                raise ZooError(
                    f"{path}: holds a zoo ({INDEX}) whose making is not recorded "
                    f"({CONFIG} is missing); choose another folder"
                )
            self._write(CONFIG, config)
        elif before != config:
            raise ZooError(
                f"{path}: holds models of another making; choose another folder, or "
                f"the same settings: {_differences(before, config)}"
            )

    def holds(self, name: str) -> bool:
        """Whether a model is listed and its file there."""
        return any(
            entry["name"] == name and os.path.exists(self.file(entry["file"]))
            for entry in self.entries
        )

    def file(self, name: str) -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, name)

    def has(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        return os.path.exists(self.file(name))

    def write(self, name: str, writer: Callable[[str], None]) -> None:
        """Lets `writer` make a file or folder, in place of an unlisted leftover.

        Args:
          name: below this folder.
          writer: gets the path; what it makes appears whole or not at all.

        Raises:
          ZooError: when the disk refuses.
        """
        path = self.file(name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isdir(path):
                shutil.rmtree(path)
            writer(path)
        # A full disk is a ValueError of Orbax's, a SafetensorError of safetensors'.
        except (OSError, ValueError, SafetensorError) as error:
            raise ZooError(
                f"{path}: could not be written: {error}; the {len(self.entries)} models "
                f"listed in {INDEX} are complete, and the same command goes on from there"
            ) from error

    def summarise(self) -> str:
        """Writes the table of all models, and returns it."""
        text = zoo_table.table(self.entries)
        self.write(SUMMARY, functools.partial(_write_text, text))
        return text

    def add(self, entry: Mapping[str, Any]) -> None:
        """Lists a model whose file is complete, replacing an older one of its name.

        Raises:
          ZooError: when the disk refuses; the list stays as it was.
        """
        others = [old for old in self.entries if old["name"] != entry["name"]]
        entries = sorted([*others, dict(entry)], key=lambda model: model["name"])
        self._write(INDEX, entries)
        self.entries = entries

    def _read(self, name: str) -> Any:
        path = self.file(name)
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            try:
                return json.load(file)
            except ValueError as error:
                raise ZooError(f"{path}: not valid JSON: {error}") from error

    def _write(self, name: str, content: Any) -> None:
        """The old file stays until the new one is whole."""
        text = json.dumps(content, indent=1, allow_nan=False)
        self.write(name, functools.partial(_write_text, text + "\n"))


def _write_text(text: str, path: str) -> None:
    with (
        atomic.replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.write(text)


def _differences(before: Any, now: Any, name: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        found = [
            _differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        return "; ".join(found)
    return f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
