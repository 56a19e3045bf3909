"""What was fetched into a folder: a line for each file, written once it lies there whole.

Lines are only added, each in one write, so that a scan that ends halfway, or others that
fetch into the same folder, leave whole lines. What is no whole line is passed over: its
file is fetched again.
"""

import json
import os
from typing import Any, NamedTuple

from ban_jax.storage import atomic


class Entry(NamedTuple):
    """What is known of a file.

    Attributes:
      version: of its place's listing.
      sha256: of the content that came.
    """

    version: str
    sha256: str


class Journal:
    """The lines of one folder; every one of them is read once.

    Args:
      path: of the file, which need not be there.
    """

    def __init__(self, path: str):
        self._path = path
        self._read = 0
        self._known: dict[str, Entry] = {}

    def find(self, name: str) -> Entry | None:
        """What is known of a file, also from lines that others added since."""
        if name not in self._known:
            self._catch_up()
        return self._known.get(name)

    def add(self, name: str, entry: Entry) -> None:
        """Adds a line; it is on the disk when this returns.

        Raises:
          OSError: it cannot be written.
        """
        line = json.dumps({"name": name, **entry._asdict()})
        descriptor = atomic.own_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A line begins with its own line break: an earlier one may have been cut.
            os.write(descriptor, f"\n{line}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._known[name] = entry

    def _catch_up(self) -> None:
        try:
            descriptor = atomic.own_file(self._path, os.O_RDONLY)
        except OSError:
            return
        with open(descriptor, "rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            name, entry = _parsed(line)
            if entry:
                self._known[name] = entry


def _parsed(line: bytes) -> tuple[str, Entry | None]:
    """The name and what is known of it; None where the line is none."""
    try:
        told: Any = json.loads(line)
        found = [told[key] for key in ("name", "version", "sha256")]
    except (ValueError, TypeError, KeyError):
        return "", None
    if not all(isinstance(one, str) for one in found):
        return "", None
    name, version, sha256 = found
    return name, Entry(version, sha256)
