"""An output folder that belongs to one way of making things, grows, survives a kill."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from safetensors import SafetensorError

from ban_jax.storage import atomic, json_file

CONFIG = "config.json"


class FolderError(ValueError):
    """The folder cannot take what is to be made."""


class RunFolder:
    """One folder, written by one process at a time.

    `config.json` says how everything in it was made; another making is refused.

    Attributes:
      error: what is raised.
      path: the folder.
    """

    error: ClassVar[type[FolderError]] = FolderError

    def __init__(self, path: str, config: Mapping[str, Any]) -> None:
        """Opens or creates the folder.

        Args:
          path: the folder.
          config: everything that two things made into one folder share; JSON.

        Raises:
          FolderError: when the folder holds what was made another way, or cannot be
            read. Nothing in it is changed then.
        """
        self.path = path
        self._refuse_links(CONFIG)
        try:
            os.makedirs(path, exist_ok=True)
            before = self.read(CONFIG)
            self.check_contents(before)
        except OSError as error:
            reason = error.strerror or error
            raise self.error(f"{path}: not a usable folder: {reason}") from error
        making: dict[str, Any] = json.loads(json.dumps(config))
        if before is None:
            self.write_json(CONFIG, making)
            return
        together = self._together(before, making)
        if together is None:
            raise self.error(
                f"{path}: holds models of another making; choose another folder, or "
                f"the same settings: {_differences(before, making)}"
            )
        if together != before:
            self.write_json(CONFIG, together)

    def _together(self, before: Any, config: dict[str, Any]) -> dict[str, Any] | None:
        """The settings of both, or None where they differ in what may not join."""
        if not isinstance(before, dict):
            return None
        for name in before.keys() | config.keys():
            known = name in before and name in config
            if before.get(name) != config.get(name) and (
                known or not self.may_join(name)
            ):
                return None
        return {**config, **before}

    def check_contents(self, stored_config: Any) -> None:
        """Refuses a folder for what it holds beside its configuration.

        Args:
          stored_config: what its `config.json` says; None where there is none.

        Raises:
          FolderError: to refuse it.
        """

    def may_join(self, name: str) -> bool:
        """Whether a setting may be new to the folder, or unknown to this run.

        The folder then keeps it beside its own; else it is a difference, and refused.
        """
        del name
        return False

    def what_is_complete(self) -> str:
        """A clause for messages: what is safe when a write fails."""
        return "what was written before is complete"

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
          FolderError: when the disk refuses.
        """
        path = self.file(name)
        self._refuse_links(name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isdir(path):
                shutil.rmtree(path)
            writer(path)
        # A full disk is a ValueError of Orbax's, a SafetensorError of safetensors'.
        except (OSError, ValueError, SafetensorError) as error:
            raise self.error(
                f"{path}: could not be written: {error}; "
                f"{self.what_is_complete()}, and the same command goes on from there"
            ) from error

    def _refuse_links(self, name: str) -> None:
        try:
            atomic.refuse_links(self.path, [name])
        except atomic.OutputError as error:
            raise self.error(str(error)) from error

    def write_text(self, name: str, text: str) -> None:
        """The old file stays until the new one is whole."""
        self.write(name, functools.partial(_write_text, text))

    def write_json(self, name: str, content: Any) -> None:
        """The old file stays until the new one is whole."""
        self.write_text(name, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def read(self, name: str) -> Any:
        """What a JSON file of the folder says; None where there is none."""
        path = self.file(name)
        if not os.path.exists(path):
            return None
        try:
            return json_file.load(path)
        except ValueError as error:
            raise self.error(f"{path}: not valid JSON: {error}") from error


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
