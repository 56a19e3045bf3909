"""Checkpoints inside zip archives, read where they lie: nothing is unpacked to the disk."""

import functools
import os
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ban_jax.checkpoints import (
    errors,
    file_bytes,
    limits,
    pickle_walk,
    sniffing,
    texts,
    torch_reader,
    unknown,
    unpacking,
    watchdog,
    zip_container,
)

MARK = "!/"
"""Between an archive and what lies in it: `models.zip!/run_1/best.pt`."""
_Made = TypeVar("_Made")
MAX_MEMBERS = 1000
"""Checkpoints of one archive that are judged."""


class Listing(NamedTuple):
    """What lies in an archive.

    Attributes:
      members: paths of what is to be judged.
      passed: paths of the rest, and what each is.
    """

    members: list[str]
    passed: list[tuple[str, str]]


def join(path: str, name: str) -> str:
    """The path of an entry of an archive.

    The mark begins with as many more `!` as it takes until no file has that very name.
    """
    mark = MARK
    while os.path.lexists(f"{path}{mark}{name}"):
        mark = "!" + mark
    return f"{path}{mark}{name}"


def split(path: str) -> tuple[str, str]:
    """The archive, and the entry that is meant; empty where the path is a file's."""
    if MARK not in path or os.path.lexists(path):
        return path, ""
    place = path.find(MARK)
    while place >= 0:
        archive = path[:place]
        while archive.endswith("!") and not os.path.isfile(archive):
            archive = archive.removesuffix("!")
        if os.path.isfile(archive):
            return archive, path[place + len(MARK) :]
        place = path.find(MARK, place + 1)
    return path, ""


def listing(path: str, data: file_bytes.Data) -> Listing | None:
    """What lies in an archive; None for a PyTorch file and one of arrays.

    Raises:
      CheckpointError: for an archive that is damaged, ambiguous or encrypted.
    """
    archive = zip_container.Archive(data, limits.objects(len(data)))
    names = list(archive.entries)
    if not names or is_one_checkpoint(names):
        return None
    found = Listing([], [])
    for name in sorted(names):
        watchdog.check()
        if name.endswith("/") and not archive.entries[name].size:
            continue
        told = told_of(archive, name)
        inside = join(path, name)
        if told:
            found.passed.append((inside, told))
        else:
            found.members.append(inside)
    if len(found.members) > MAX_MEMBERS:
        raise errors.CheckpointError(
            f"a zip archive of {len(found.members):,} checkpoints; at most "
            f"{MAX_MEMBERS:,} are judged inside an archive: unpack it first"
        )
    return found


def is_one_checkpoint(names: list[str]) -> bool:
    """Whether an archive with these entries is itself what a reader reads."""
    return all(name.endswith(".npy") for name in names) or any(
        name.endswith(("/data.pkl", torch_reader.EXPORTED)) and name.count("/") == 1
        for name in names
    )


def told_of(archive: zip_container.Archive, name: str) -> str:
    """What an entry is that is no model; see `sniffing.no_model`."""
    entry = archive.entries[name]
    head = _start(archive, entry, sniffing.HEAD)
    whole = functools.partial(_reading, archive, entry)
    told = sniffing.no_model(head, os.path.basename(name), whole)
    return unknown.told(told, head, whole)


def entries(path: str) -> dict[str, zip_container.Entry]:
    """What an archive lists, by name."""
    return _opened(path).archive.entries


class _Opened(NamedTuple):
    """An archive that is read from, and the seconds each of its entries took so far."""

    archive: zip_container.Archive
    seconds: dict[str, float]


def read(path: str, name: str) -> memoryview:
    """The bytes of an entry, decompressed within the limits of an archive of this size.

    Raises:
      CheckpointError: where it is missing, damaged or too large.
    """
    archive = _opened(path).archive
    size = len(archive.data)
    entry = archive.entries.get(name)
    own = 0 if entry is None else entry.packed
    watchdog.extend(limits.SECONDS_PER_MIB * own / limits.MIB)
    return archive.inflate(name, limits.inflated(size))


def within(path: str, work: Callable[[], _Made]) -> _Made:
    """`watchdog.within` for a file; all entries of an archive share the time of one file.

    Raises:
      CheckpointError: when the time is over.
    """
    start = time.monotonic()
    file, name = split(path)
    if not name:
        return watchdog.within(limits.SECONDS, work)
    try:
        # The directory is read in time, too.
        opened = watchdog.within(limits.SECONDS, lambda: _opened(file))
    except (ValueError, OSError):
        return watchdog.within(limits.SECONDS, work)  # which says what is wrong
    seconds, size = opened.seconds, len(opened.archive.data)
    spent = sum(took for other, took in list(seconds.items()) if other != name)
    whole = limits.SECONDS + limits.SECONDS_PER_MIB * size / limits.MIB
    if spent >= whole:
        raise errors.CheckpointError(
            f"the other entries of the archive took the {whole:,.0f} seconds that a file "
            "of its size may take: unpack it first"
        )
    try:
        return watchdog.within(min(limits.SECONDS, whole - spent), work)
    finally:
        seconds[name] = time.monotonic() - start


def _opened(path: str) -> _Opened:
    status = os.stat(path)
    return _cached(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _cached(path: str, *_: int) -> _Opened:
    """The directory of an archive is read once, not once for each entry."""
    data = file_bytes.read(path)
    return _Opened(zip_container.Archive(data, limits.objects(len(data))), {})


def _reading(
    archive: zip_container.Archive, entry: zip_container.Entry
) -> pickle_walk.Read:
    """A way to read an entry, unpacked a piece at a time where it is packed."""

    def stored(start: int, count: int) -> memoryview:
        first = min(entry.start + start, entry.start + entry.packed)
        return archive.data[first : min(first + count, entry.start + entry.packed)]

    if entry.method != zip_container.DEFLATED:
        stored.size = entry.packed  # type: ignore[attr-defined]
        return stored
    inner = unpacking.Inner(stored, texts.PACKED, unpacking.raw_deflate)

    def inflated(start: int, count: int) -> bytes:
        return inner.read(start, count)

    inflated.size = entry.size  # type: ignore[attr-defined]
    return inflated


def _start(
    archive: zip_container.Archive, entry: zip_container.Entry, most: int
) -> bytes:
    """The first bytes of an entry; what is packed in another way has none to be seen."""
    data = archive.data[entry.start : entry.start + entry.packed]
    if entry.method == zip_container.STORED:
        return bytes(data[:most])
    if entry.method != zip_container.DEFLATED:
        return b"PK\3\4"  # not to be seen, so it is for the reader to refuse
    try:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        return stream.decompress(data[: 2 * most + 1024], most)
    except zlib.error:
        return b"PK\3\4"
