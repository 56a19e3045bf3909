"""Which files and folders are checkpoints; nothing that is met is passed silently."""

import collections
import errno
import itertools
import os
import pathlib
import stat
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ban_jax.checkpoints import (
    errors,
    file_bytes,
    limits,
    orbax_pieces,
    orbax_reader,
    packed,
    part_paths,
    pickle_walk,
    sharded,
    sniffing,
    unknown,
    watchdog,
)

SUFFIXES = sniffing.MODEL_SUFFIXES
MAX_DEPTH = 64
"""Folders inside folders that are searched."""
MAX_FOLDER = 300_000
"""Entries of one folder that are looked at,"""
MAX_ENTRIES = 3_000_000
"""and of all together."""
Paths = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]


class Passed(NamedTuple):
    """What was met and is not judged, because it is recognisably no classifier."""

    path: str
    reason: str


class Found(NamedTuple):
    """What a search met, all of it in one of three lists, sorted by path.

    Attributes:
      paths: what is to be judged: checkpoints, and whatever may be or hold one and cannot
        be read; of those the reader's error says why.
      passed: what is no classifier.
      opened: archives whose entries are in the other lists.
    """

    paths: list[str]
    passed: list[Passed]
    opened: list[str]


def find(paths: Paths) -> list[str]:
    """What is to be judged of these paths; see `search`."""
    return search(paths).paths


def search(paths: Paths) -> Found:
    """Looks at every file and folder of these paths, each once.

    The content of a file decides, where its name does not say that it is a model. An
    Orbax checkpoint is one candidate and not descended into; zip archives are looked
    into; links to folders are not followed. What is named explicitly is always taken. A
    folder that cannot be searched does not stop the rest.

    Raises:
      CheckpointError: for a path that does not exist.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    search = _Search()
    tops = []
    for given in paths:
        path = os.fspath(given)
        if os.path.isdir(path) and not _is_one(path):
            tops.append(path)
        elif os.path.lexists(path):
            search.take(os.path.normpath(path))
        elif all(packed.split(path)):
            archive = packed.split(path)[0]  # names of entries are not to be changed
            search.take(os.path.normpath(archive) + path.removeprefix(archive))
        elif all(part_paths.split(path)):
            search.take(os.path.normpath(path))
        else:
            raise errors.CheckpointError(f"{path}: no such file or folder")
    search.walk(tops)
    return search.found()


def why_not_searched(folder: str) -> str:
    """What the reader says of a folder that is no checkpoint."""
    if os.path.islink(folder.rstrip(os.sep)):
        return "a link to a folder, which is not followed: name the folder it leads to"
    if _unfinished(os.path.basename(folder)):
        return "an Orbax checkpoint whose writing did not end"
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, 10_000)]
    except OSError as error:
        return f"a folder that cannot be listed: {error.strerror or error}"
    if _is_distributed(names):
        return (
            "a checkpoint of torch.distributed in pieces (.distcp): join them with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    return (
        "a folder, but not an Orbax checkpoint; inside others it is searched up to "
        f"{MAX_DEPTH} folders deep and up to {MAX_FOLDER:,} entries"
    )


class _Search:
    """Breadth first, so that a folder without end does not keep others waiting."""

    def __init__(self) -> None:
        self.judged: dict[str, bool] = {}  # whether the name says that it is a model
        self.passed: dict[str, str] = {}
        self.opened: set[str] = set()
        self.entries = 0

    def take(self, path: str) -> None:
        """A path that is named, or whose name says that it is a model."""
        if not self._open(path):
            self.judged[path] = True
            self._beside_arrays(path)
            if index := sharded.index_of(path):
                self.judged[index] = True

    def walk(self, tops: list[str]) -> None:
        links: list[str] = []
        pending = collections.deque((top, 0) for top in tops)
        seen: set[str] = set()
        searched: list[str] = []
        while pending:
            folder, depth = pending.popleft()
            clean = os.path.normpath(folder)
            if clean in seen:
                continue
            seen.add(clean)
            try:
                names = self._names(folder)
            except OSError:
                self.judged[clean] = True
                continue
            searched.append(clean)
            if _is_distributed(names):
                self.judged[clean] = True
                names = [n for n in names if not n.endswith(".distcp") and n != _DCP]
            for name in sorted(names):
                path = os.path.normpath(os.path.join(folder, name))
                if not os.path.isdir(path):
                    self._file(path, name)
                elif os.path.islink(path):
                    links.append(path)
                elif _is_one(path) or _unfinished(name) or depth >= MAX_DEPTH:
                    self.judged[path] = True
                    self._beside_arrays(path)
                else:
                    pending.append((path, depth + 1))
        if links:
            known = [*searched, *filter(os.path.isdir, self.judged)]
            self._links(links, {os.path.realpath(folder) for folder in known})

    def found(self) -> Found:
        """All of it; a file that is judged under a name of its own is not judged twice."""
        named: dict[tuple[int, int] | str, str] = {}
        for path, is_named in sorted(self.judged.items()):
            if is_named:
                named.setdefault(_identity(path), path)
        for path, is_named in list(self.judged.items()):
            known = named.get(_identity(path))
            # An index is another one in each folder.
            if not is_named and known is not None and not sharded.is_for_all(path):
                del self.judged[path]
                self.passed[path] = f"the same file as {known}"
        return Found(
            sorted(self.judged),
            [Passed(*one) for one in sorted(self.passed.items())],
            sorted(self.opened),
        )

    def _names(self, folder: str) -> list[str]:
        names: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self.entries += 1
                if len(names) >= MAX_FOLDER or self.entries > MAX_ENTRIES:
                    self.judged[os.path.normpath(folder)] = True
                    break
                names.append(entry.name)
        return names

    def _links(self, links: Sequence[str], known: set[str]) -> None:
        """Links to folders, when all is walked: some depth ends every search.

        Args:
          links: paths of the links.
          known: real paths of the folders that were searched, or are judged as one.
        """
        for path in links:
            target = os.path.realpath(path)
            above = map(str, pathlib.PurePath(target).parents)
            if target in known or any(p in known and _is_one(p) for p in above):
                self.passed[path] = "a link to a folder that is searched itself"
            else:
                self.judged[path] = True

    def _beside_arrays(self, top: str) -> None:
        """What lies in an Orbax folder, is not read with it and may be judged itself."""
        if not _is_one(top):
            return
        trees = []
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in [*folders]:
                path = os.path.join(folder, name)
                if os.path.lexists(os.path.join(path, orbax_reader.MARKERS[0])):
                    folders.remove(name)
                    self.take(path)
            if orbax_reader.MARKERS[1] in names and folder != top:
                trees.append(folder)
            for name in names:
                path = os.path.join(folder, name)
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    return
                if not _is_piece(folder, name) and not self._told(path, name):
                    self._take_file(path, name)
        if len(trees) > 1:  # the reader takes those side by side, or one of several
            read = {os.path.join(top, name) for name in orbax_reader.items(top)}
            self.judged.update({tree: True for tree in trees if tree not in read})

    def _file(self, path: str, name: str) -> None:
        told = self._told(path, name)
        if told:
            self.passed[path] = told
        else:
            self._take_file(path, name)

    def _take_file(self, path: str, name: str) -> None:
        if not self._open(path):
            self.judged[path] = _is_named(name)

    def _told(self, path: str, name: str) -> str:
        """What a file is that is not judged."""
        try:
            return watchdog.within(limits.SECONDS, lambda: self._no_model(path, name))
        except errors.CheckpointError:  # no time was left: the reader says so
            return sniffing.JUDGED
        except OSError as error:
            absent = error.errno == errno.ENOENT and os.path.islink(path)
            return "a link to nothing" if absent and not _is_named(name) else ""

    def _no_model(self, path: str, name: str) -> str:
        # Without O_NONBLOCK opening a named pipe would wait for a writer forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                is_named = name.lower().endswith(SUFFIXES)
                return "" if is_named else "no file: a device or a pipe"
            head = file.read(sniffing.HEAD)

            def whole() -> pickle_walk.Read:
                data = file_bytes.FileBytes(os.dup(descriptor), status.st_size)
                return pickle_walk.reading(data)

            told = sniffing.no_model(head, name, whole)
            told = told and unknown.told(told, head, whole)
            if not told or unknown.behind(
                lambda at, count: os.pread(descriptor, count, at), status.st_size
            ):
                return sniffing.JUDGED
            return sniffing.JUDGED if sharded.is_for_all(path) else told

    def _open(self, path: str) -> bool:
        """Whether a path is an archive, whose entries are then taken."""
        if path.lower().endswith(SUFFIXES) or not os.path.isfile(path):
            return False

        def look() -> packed.Listing | None:
            data = file_bytes.read(path)
            found = packed.listing(path, data) if data[:2] == b"PK" else None
            return found and _with_indices(found)

        try:
            listing = watchdog.within(limits.SECONDS, look)
        except (OSError, ValueError):
            return False  # the reader says what is wrong with it
        if listing is None:
            return False
        self.opened.add(path)
        self.judged.update(dict.fromkeys(listing.members, True))
        self.passed.update(listing.passed)
        return True


_DCP = ".metadata"


def _is_named(name: str) -> bool:
    """Whether its name says that a file is a model."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _with_indices(found: packed.Listing) -> packed.Listing:
    """What lies in an archive, with the indices that stand for sets among the judged."""
    indices = {path for path, _ in found.passed if sharded.is_for_all(path)}
    passed = [one for one in found.passed if one[0] not in indices]
    return packed.Listing([*found.members, *indices], passed)


def _is_piece(folder: str, name: str) -> bool:
    """`orbax_pieces.is_piece`, which may take no longer than a file that is judged."""
    try:
        return watchdog.within(
            limits.SECONDS, lambda: orbax_pieces.is_piece(folder, name)
        )
    except errors.CheckpointError:
        return False


def _is_distributed(names: Iterable[str]) -> bool:
    return any(name.endswith(".distcp") for name in names)


def _is_one(path: str) -> bool:
    """Whether a folder is a checkpoint itself."""
    try:
        return orbax_reader.is_checkpoint(path)
    except OSError:
        return False


def _identity(path: str) -> tuple[int, int] | str:
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _unfinished(name: str) -> bool:
    """Folders Orbax has not finished writing."""
    return ".orbax-checkpoint-tmp" in name


def stem(name: str) -> str:
    """A file's name without its suffixes: `a.pt.tar` -> `a`."""
    while name.lower().endswith(SUFFIXES):
        name = os.path.splitext(name)[0]
    return name
