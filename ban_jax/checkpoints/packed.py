"""Checkpoints inside zip archives, read where they lie: nothing is unpacked to the disk."""

import functools
import os
import zlib
from typing import NamedTuple

from ban_jax.checkpoints import (
    bare_pickle,
    errors,
    file_bytes,
    limits,
    sniffing,
    zip_container,
)

MARK = "!/"
"""Between an archive and what lies in it: `models.zip!/run_1/best.pt`."""
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


def split(path: str) -> tuple[str, str]:
    """The archive, and the entry that is meant; empty where the path is a file's."""
    if MARK not in path or os.path.lexists(path):
        return path, ""
    place = path.find(MARK)
    while place >= 0:
        if os.path.isfile(path[:place]):
            return path[:place], path[place + len(MARK) :]
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
        entry = archive.entries[name]
        if name.endswith("/") and not entry.size:
            continue
        told = sniffing.no_model(
            _start(archive, entry, sniffing.HEAD),
            os.path.basename(name),
            functools.partial(_start, archive, entry, bare_pickle.MOST),
        )
        inside = f"{path}{MARK}{name}"
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
        name.endswith("/data.pkl") and name.count("/") == 1 for name in names
    )


def read(data: file_bytes.Data, name: str) -> memoryview:
    """The bytes of an entry, decompressed within the limits of an archive of this size.

    Raises:
      CheckpointError: where it is missing, damaged or too large.
    """
    archive = zip_container.Archive(data, limits.objects(len(data)))
    return archive.inflate(name, limits.inflated(len(data)))


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
