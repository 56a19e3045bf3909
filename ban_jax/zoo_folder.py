"""A folder of trained models with their ground truth, that grows and survives a kill.

`zoo.json` lists the models that are complete; `config.json` says how they were made. A
model is in the list only once its file is whole: what is not listed is made again.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

INDEX, CONFIG = "zoo.json", "config.json"


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

    def add(self, entry: Mapping[str, Any]) -> None:
        """Lists a model whose file is complete, replacing an older one of its name."""
        others = [old for old in self.entries if old["name"] != entry["name"]]
        self.entries = sorted([*others, dict(entry)], key=lambda model: model["name"])
        self._write(INDEX, self.entries)

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
        temporary = self.file(f".{name}.partial")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1, allow_nan=False)
                file.write("\n")
            os.replace(temporary, self.file(name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


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
