"""What a place holds: files under names that a server chose, which are not trusted."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

MOST_FILES = 100_000
"""Files of one place that are listed."""
_PART = re.compile(r"[^/\\\0]{1,200}")
_BESIDE = (
    *("config.json", "preprocessor_config.json", "zoo.json", "zarr.json"),
    *(".zarray", ".zattrs", ".zgroup"),
)
_INDEX = re.compile(r".+\.index(\.[\w-]+)?\.json", re.IGNORECASE)
"""Of a set of files, also of a variant: model.safetensors.index.fp16.json."""
_NO_MODELS = (
    *(".py", ".pyc", ".pyi", ".ipynb", ".js", ".ts", ".sh", ".bat", ".c", ".h", ".cc"),
    *(".cpp", ".cu", ".rs", ".go", ".java", ".md", ".rst", ".txt", ".json", ".jsonl"),
    *(".yaml", ".yml", ".toml", ".cfg", ".ini", ".csv", ".tsv", ".html", ".css"),
    *(".xml", ".log", ".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"),
    *(".mp4", ".wav", ".flac", ".mp3"),
)
_NO_MODEL_NAMES = (".gitattributes", ".gitignore", "license", "notice", "makefile")


class Stream(Protocol):
    """The bytes of a file as they come."""

    expected: int | None
    """How many there will be; None: nobody says."""

    def __iter__(self) -> Iterator[bytes]: ...


class File(NamedTuple):
    """A file of a place.

    Attributes:
      name: relative, with `/`, as the server has it.
      size: bytes, where the server says.
      version: the same as long as the content is; empty where nothing tells.
      sha256: of the content, where the place promises one.
      open: begins to fetch it.
    """

    name: str
    size: int | None
    version: str
    sha256: str | None
    open: Callable[[], AbstractContextManager[Stream]]


class Source(NamedTuple):
    """A place, listed.

    Attributes:
      shown: what it is called in results: the address, of the hub with the commit.
      identity: what the cache files it under.
      files: all of them.
      single: whether `shown` is the address of its one file, not of a folder.
    """

    shown: str
    identity: str
    files: list[File]
    single: bool = False

    def called(self, file: File) -> str:
        """The address of a file, as results show it."""
        return self.shown if self.single else f"{self.shown}/{file.name}"


def wanted(name: str) -> str:
    """Why a file is not fetched, by its name; empty where it is.

    What is neither known as a model's nor as a text's or picture's name is fetched: its
    content will tell.
    """
    base = name.rpartition("/")[2].lower()
    if base in _BESIDE or _INDEX.fullmatch(base):
        return ""
    if base in _NO_MODEL_NAMES or base.endswith(_NO_MODELS):
        return "not fetched: by its name a program, a text, a picture or a sound"
    return ""


def unsafe(name: str) -> str:
    """Why a name cannot be a file of the cache; empty where it can."""
    parts = name.split("/")
    if not name.isprintable() or len(name.encode()) > 1000:
        return "its name is too long or not printable"
    if any(part in ("", ".", "..") or not _PART.fullmatch(part) for part in parts):
        return "its name leads out of its folder"
    return ""
