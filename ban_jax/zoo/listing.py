"""A folder of trained models with their ground truth, that grows and survives a kill.

`zoo.json` lists the models that are complete; `config.json` says how they were made. A
model is in the list only once its file is whole: what is not listed is made again.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ban_jax import attacks
from ban_jax.storage import run_folder
from ban_jax.zoo import summary

INDEX, SUMMARY = "zoo.json", "summary.txt"


class ZooError(run_folder.FolderError):
    """The folder cannot take these models."""


class ZooFolder(run_folder.RunFolder):
    """One zoo. `entries` is the content of its `zoo.json`."""

    error: ClassVar[type[run_folder.FolderError]] = ZooError
    entries: list[dict[str, Any]]

    def check_contents(self, stored_config: Any) -> None:
        """Reads the list of models, and refuses one whose making is not recorded."""
        self.entries = self.read(INDEX) or []
        if not isinstance(self.entries, list) or not all(
            isinstance(entry, dict) and {"name", "file"} <= set(entry)
            for entry in self.entries
        ):
            raise ZooError(
                f"{self.file(INDEX)}: expected a list of models, each with name and file"
            )
        if stored_config is None and self.entries:
            raise ZooError(
                f"{self.path}: holds a zoo ({INDEX}) whose making is not recorded "
                f"({run_folder.CONFIG} is missing); choose another folder"
            )

    def may_join(self, name: str) -> bool:
        """An attack that the folder has not met brings its settings along."""
        return name in attacks.ATTACKS

    def what_is_complete(self) -> str:
        """The models that are complete."""
        return f"the {len(self.entries)} models listed in {INDEX} are complete"

    def holds(self, name: str) -> bool:
        """Whether a model is listed and its file there."""
        return any(
            entry["name"] == name and os.path.exists(self.file(entry["file"]))
            for entry in self.entries
        )

    def summarise(self) -> str:
        """Writes the table of all models, and returns it."""
        text = summary.table(self.entries)
        self.write_text(SUMMARY, text)
        return text

    def add(self, entry: Mapping[str, Any]) -> None:
        """Lists a model whose file is complete, replacing an older one of its name.

        Raises:
          ZooError: when the disk refuses; the list stays as it was.
        """
        others = [old for old in self.entries if old["name"] != entry["name"]]
        self.replace([*others, dict(entry)])

    def replace(self, entries: Iterable[dict[str, Any]]) -> None:
        """Writes another list of the models.

        Raises:
          ZooError: when the disk refuses; the list stays as it was.
        """
        listed = sorted(entries, key=lambda model: model["name"])
        self.write_json(INDEX, listed)
        self.entries = listed
