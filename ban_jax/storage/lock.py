"""One process at a time writes a file: the second is told, and nothing is lost."""

import contextlib
import os
from collections.abc import Iterator

import filelock

from ban_jax.storage import atomic


@contextlib.contextmanager
def held(path: atomic.PathLike) -> Iterator[None]:
    """Keeps other processes from writing `path` while the body runs.

    The lock is on a hidden file beside it, which stays; the system drops the lock of a
    process that dies.

    Raises:
      OutputError: when another process holds it.
    """
    folder, base = os.path.split(os.fspath(path))
    name = os.path.join(folder, f".{base}.lock")
    lock = filelock.FileLock(name)
    with atomic.explaining(os.fspath(path)):
        if os.path.lexists(name):  # a lock empties its file
            os.close(atomic.own_file(name, os.O_RDONLY))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # an OSError too, so it is told apart first
            raise atomic.OutputError(
                f"{os.fspath(path)}: another ban-jax process is writing it. Wait until "
                "that one has ended, or choose another folder with --out"
            ) from None
    try:
        yield
    finally:
        lock.release()
