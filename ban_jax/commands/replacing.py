"""Which files a document may take the place of: no evidence, no model, nothing of others.

`-o` and `--trace` replace what an earlier run wrote under the same name. Whatever else is
there was not meant, and is refused before anything is computed.
"""

import codecs
import os
import re
from collections.abc import Iterable
from typing import Any

from ban_jax.commands import given, outcome, settings_file

_HEAD = 4096
_RESULTS = re.compile(
    r"(results|passed|trusted)(\.\d+-of-\d+)?\.(jsonl|csv)|plan(\.\d+-of-\d+)?\.json"
    r"|report\.html|\..*",
    re.IGNORECASE | re.DOTALL,
)
"""Names of what scans keep in their folders; hidden are locks and files half written."""
_LOCK = re.compile(r"\.results(\.\d+-of-\d+)?\.jsonl\.lock")
_OURS = (b'"ban-jax"', b'{"schema_version"', b'{"traceEvents"', b'{\n "format": ')
"""One of these is near the beginning of everything we write that is JSON."""
_EXPECTED = "expected a new file, or a document that an earlier run wrote"


def check(flag: str, path: str | None, flags: Any, out: str | None = None) -> None:
    """Refuses a file for a document that must stay as it is.

    Args:
      flag: that names it.
      path: the file; None or `-`: there is none.
      flags: of the command, which name what it reads.
      out: the folder of results that it writes to.

    Raises:
      ValueError: for a file of a folder of results, one that the command reads, and one
        that is there and is no document of ours.
    """
    if path is None or path == "-":
        return
    outcome.require_file(flag, path)
    read = given.paths(flags)
    folders = {given.folder_of(one) for one in read if _is_of_results(one)}
    folders |= {os.path.realpath(out)} if out is not None else set()
    folder, name = os.path.split(os.path.abspath(path))
    is_kept = os.path.realpath(folder) in folders or _is_of_a_scan(folder)
    if is_kept and _RESULTS.fullmatch(name):
        raise ValueError(
            f"{flag} {path}: is of the files that a folder of results keeps; expected "
            "another name, or another folder"
        )
    refuse_any(flag, path, [*read, *given.paths(flags, given.OWN), settings_file.NAME])
    if os.path.isfile(path) and not _is_document(path):
        raise ValueError(f"{flag} {path}: is there, and no document; {_EXPECTED}")


def refuse_any(flag: str, path: str | None, files: Iterable[str]) -> None:
    """Refuses to replace one of the files that a command reads.

    Raises:
      ValueError: naming the flag and the file.
    """
    if path is None or not os.path.isfile(path):
        return
    for one in files:
        try:
            is_same = os.path.samefile(path, given.file_of(one))
        except (OSError, ValueError):  # addresses, names of data sets
            continue
        if is_same:
            raise ValueError(f"{flag} {path}: is read by this command; {_EXPECTED}")


def _is_of_results(path: str) -> bool:
    """Whether results lie at a path: a file of lines, or a folder with one."""
    if not os.path.isdir(path):
        return path.endswith(".jsonl")
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return any(name.endswith(".jsonl") and _RESULTS.fullmatch(name) for name in names)


def _is_of_a_scan(folder: str) -> bool:
    """Whether a scan has written to a folder: its locks stay (`storage.lock`)."""
    try:
        return any(map(_LOCK.fullmatch, os.listdir(folder)))
    except OSError:
        return False


def _is_document(path: str) -> bool:
    """Whether a file may be one of our documents: text, and where it is JSON, ours."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except (OSError, ValueError):
        return False
    if any(not one.isprintable() and one not in "\t\n\r" for one in text):
        return False
    is_json = text.lstrip()[:1] in ("{", "[")
    return not is_json or any(mark in head for mark in _OURS)
