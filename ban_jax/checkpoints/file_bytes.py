"""The bytes of a file: small ones read at once, large ones a part at a time.

Nothing is mapped: a mapped file that someone cuts short kills the process that looks at
it, a read that comes back short is an error like others.
"""

import os
import stat
import weakref
from typing import overload

from ban_jax.checkpoints import errors, limits, watchdog


class FileBytes:
    """A large file that is sliced like a `memoryview`; each slice is read when asked for.

    Args:
      descriptor: of a file open for reading; closed with this object.
      size: bytes of the file when it was opened.
    """

    def __init__(self, descriptor: int, size: int):
        self.descriptor = descriptor
        self.size = size
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> memoryview: ...

    def __getitem__(self, index: int | slice) -> int | memoryview:
        if isinstance(index, slice):
            start, end, _ = index.indices(self.size)
            return _read(self.descriptor, start, max(0, end - start))
        if not 0 <= index < self.size:
            raise IndexError(index)
        return _read(self.descriptor, index, 1)[0]


Data = memoryview | FileBytes


def read(path: str, limit: int = limits.MAX_FILE) -> Data:
    """The bytes of a regular file.

    Raises:
      CheckpointError: for anything but a regular file of at most `limit` bytes.
      OSError: for a file that cannot be opened or read.
    """
    # Without O_NONBLOCK opening a named pipe would wait for a writer forever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kept = False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise errors.CheckpointError("not a regular file")
        if status.st_size > limit:
            raise errors.CheckpointError(
                f"has {status.st_size:,} bytes; at most {limit:,} are read"
            )
        watchdog.extend(limits.SECONDS_PER_MIB * status.st_size / limits.MIB)
        if status.st_size > limits.READ_WHOLE:
            kept = True
            return FileBytes(descriptor, status.st_size)
        return _read(descriptor, 0, status.st_size)
    finally:
        if not kept:
            os.close(descriptor)


def _read(descriptor: int, start: int, size: int) -> memoryview:
    data = os.pread(descriptor, size, start)
    if len(data) == size:
        return memoryview(data)
    whole = bytearray(size)
    whole[: len(data)] = data
    view, position = memoryview(whole), len(data)
    while position < size:
        count = os.preadv(descriptor, [view[position:]], start + position)
        if not count:
            raise errors.CheckpointError("shrank while it was read")
        position += count
    return view.toreadonly()
