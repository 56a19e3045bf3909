"""The room that a cache has: a total that all scans count in, and what is removed for more.

The total is a number in a file, so that a fetched file costs one step and not a walk over
all that lie there. It is taken before the bytes come and given back where they do not: a
scan that is killed leaves it too large, never too small. The folders are walked when a scan
begins, and when the total leaves no room.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from ban_jax.remote import errors
from ban_jax.storage import atomic

TOTAL = ".total"
"""Name of the file, which is its own lock."""
_DIGITS = 20
_SELDOM = 8
"""A walk that ended in a refusal is made again once an eighth more was asked for."""


class Room:
    """Counts the bytes of a folder of folders.

    Args:
      folder: the cache's own.
      limit: bytes that its folders may take.
      remove: removes one of them, unless a scan holds it; says whether it is gone.
    """

    def __init__(self, folder: str, limit: int, remove: Callable[[str], bool]):
        self.walks = 0
        self._folder = folder
        self._limit = limit
        self._remove = remove
        self._asked = self._walked_at = 0
        self._oldest: list[tuple[float, str]] = []

    @contextlib.contextmanager
    def taken(self) -> Iterator["Taken"]:
        """What a file takes; all of it is given back where the body does not end."""
        taken = Taken(self)
        try:
            yield taken
        except BaseException:
            self.give(taken.size)
            raise

    def take(self, size: int) -> None:
        """Counts so many bytes more, and removes what was used longest ago for them.

        Raises:
          FetchError: where what scans hold leaves no room; nothing was taken.
          OSError: the total cannot be written.
        """
        self._asked += 1
        if not self.walks:
            self._walk()
        while not self._counted(size):
            if not self._one_removed() and not self._walked_again():
                raise errors.FetchError(
                    f"not fetched: the cache {self._folder} is full with files of this "
                    "scan or of others that run; --cache-limit allows "
                    f"{self._limit:,} bytes"
                )

    def give(self, size: int) -> None:
        """Counts so many bytes less."""
        if size:
            with self._total() as total:
                total.write(max(total.read() - size, 0))

    def _counted(self, size: int) -> bool:
        with self._total() as total:
            known = total.read()
            fits = known + size <= self._limit
            if fits:
                total.write(known + size)
        return fits

    def _one_removed(self) -> bool:
        """Removes the folder that was used longest ago, of those that no scan holds."""
        while self._oldest:
            used, folder = self._oldest.pop()
            if last_used(folder) != used:
                continue  # since the walk
            size = size_of(folder)
            if self._remove(folder):
                self.give(size)
                return True
        return False

    def _walked_again(self) -> bool:
        """Walks, unless that was done a short while ago and changed nothing."""
        since = self._asked - self._walked_at
        if since == 0 or since * _SELDOM < self._asked:
            return False
        self._walk()
        return True

    def _walk(self) -> None:
        """Counts what lies there."""
        self.walks += 1
        self._walked_at = self._asked
        with self._total() as total:
            folders = self._folders()
            total.write(sum(map(size_of, folders)))
        self._oldest = sorted(((last_used(one), one) for one in folders), reverse=True)

    def _folders(self) -> list[str]:
        with os.scandir(self._folder) as entries:
            return [one.path for one in entries if one.is_dir(follow_symlinks=False)]

    @contextlib.contextmanager
    def _total(self) -> Iterator["_Total"]:
        """The number, which nobody else reads or writes meanwhile."""
        path = os.path.join(self._folder, TOTAL)
        descriptor = atomic.own_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Total(descriptor)
        finally:
            os.close(descriptor)


class Taken:
    """The room that one file has taken.

    Args:
      room: of the cache.
    """

    def __init__(self, room: Room):
        self.size = 0
        self._room = room

    def up_to(self, size: int) -> None:
        """Takes what is missing to so many bytes; see `Room.take`."""
        if size > self.size:
            self._room.take(size - self.size)
            self.size = size


class _Total:
    """A number in an open file; 0 where there is none yet."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def read(self) -> int:
        text = os.pread(self._descriptor, _DIGITS, 0)
        return int(text) if text.isdigit() else 0

    def write(self, number: int) -> None:
        # In one write, always as long: a reader of a killed scan's finds a number.
        os.pwrite(self._descriptor, f"{number:0{_DIGITS}d}".encode(), 0)


def last_used(folder: str) -> float:
    """When a scan last began to hold a folder; 0 where it is gone."""
    try:
        return os.path.getmtime(folder)
    except OSError:  # another scan has just removed it
        return 0.0


def size_of(folder: str) -> int:
    """Bytes of all files below a folder."""
    found = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(top, name)).st_size
    return found
