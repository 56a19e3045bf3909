"""What lies beside a file: in its folder, or in its archive."""

import functools
import itertools
import os
import re
import time

from ban_jax.checkpoints import errors, file_bytes, limits, packed

MAX_NAMES = 300_000
"""Entries of a folder that are looked at."""
_RECENT = 2e9
"""Nanoseconds in which a thing may change without another time of its last change."""


def path(file: str, name: str) -> str:
    """The path of what lies beside a file under a name."""
    return file.removesuffix(os.path.basename(file)) + name


def has(file: str) -> bool:
    """Whether a file is there; a link to nothing is."""
    archive, entry = packed.split(file)
    if entry:
        return entry in packed.entries(archive)
    return os.path.lexists(file)


def size(file: str) -> int:
    archive, entry = packed.split(file)
    return packed.entries(archive)[entry].size if entry else os.path.getsize(file)


def most(file: str) -> int:
    """Bytes that files which are read together may have.

    Those of an archive are unpacked within the limit of the archive.
    """
    archive, entry = packed.split(file)
    if not entry:
        return limits.MAX_FILE
    return min(limits.MAX_FILE, limits.inflated(os.path.getsize(archive)).limit)


def read(file: str, limit: int) -> bytes:
    """All of a file.

    Raises:
      CheckpointError: for more bytes than `limit`.
    """
    archive, entry = packed.split(file)
    if not entry:
        return bytes(file_bytes.read(file, limit)[:])
    if size(file) > limit:
        raise errors.CheckpointError(
            f"has {size(file):,} bytes; at most {limit:,} are read"
        )
    return bytes(packed.read(archive, entry))


def version(status: os.stat_result) -> tuple[int, ...]:
    """Numbers that are others once a file or folder has changed."""
    is_recent = time.time_ns() - status.st_mtime_ns < _RECENT
    nonce = time.monotonic_ns() if is_recent else 0
    return status.st_ino, status.st_size, status.st_mtime_ns, nonce


def names(file: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The names of a kind among all that lies beside a file."""
    folder = file.removesuffix(os.path.basename(file))
    archive, entry = packed.split(file)
    if entry:
        inside = entry.removesuffix(os.path.basename(entry))
        found = (name.removeprefix(inside) for name in _below(archive, inside))
        return tuple(n for n in found if "/" not in n and pattern.fullmatch(n))
    return _listed(folder or ".", pattern, *version(os.stat(folder or ".")))


def _below(archive: str, folder: str) -> list[str]:
    return [name for name in packed.entries(archive) if name.startswith(folder)]


@functools.lru_cache(maxsize=4)
def _listed(folder: str, pattern: re.Pattern[str], *_: int) -> tuple[str, ...]:
    """A folder is listed once, not once for each of its files."""
    with os.scandir(folder) as listed:
        some = itertools.islice(listed, MAX_NAMES)
        return tuple(entry.name for entry in some if pattern.fullmatch(entry.name))
