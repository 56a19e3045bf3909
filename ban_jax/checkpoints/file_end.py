"""Where a file ends by its own words, and whether nothing of a network's size follows.

A short magic number can stand before anything. What follows it says how long its parts
are; a file that is what it begins like ends where they end.
"""

from ban_jax.checkpoints import pickle_walk, watchdog

SMALL = 2**14
"""Bytes; what has fewer holds no network."""
_BLOCK = 2**16
_STEPS, _BYTES_A_STEP = 200_000, 32
"""Pieces that are read of any file, and bytes for each further one: what is made of
smaller ones was made to take long."""


class Cursor:
    """Bytes of a file one behind the other, read a block at a time.

    Args:
      read: gives bytes of the file.
      at: the first place.
    """

    def __init__(self, read: pickle_walk.Read, at: int = 0):
        self.read, self.at = read, at
        self.steps = 0
        self.start, self.block = 0, b""

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
          EOFError: where the file has fewer.
          ValueError: where it is of too many pieces.
        """
        self.steps += 1
        check(self.steps < _STEPS + self.at / _BYTES_A_STEP, "of too small pieces")
        place = self.at - self.start
        if not 0 <= place <= len(self.block) - count:
            self.block = bytes(self.read(self.at, max(count, _BLOCK)))
            self.start, place = self.at, 0
        taken = self.block[place : place + count]
        if len(taken) < count:
            raise EOFError("the file is cut off")
        self.at += count
        return taken

    def number(self, count: int, big: bool = False) -> int:
        return int.from_bytes(self.take(count), "big" if big else "little")

    def numbers(self, widths: tuple[int, ...], big: bool = False) -> list[int]:
        return [self.number(width, big) for width in widths]


def check(holds: bool, told: str) -> None:
    """Raises a ValueError that says what a file is not, where something does not hold."""
    if not holds:
        raise ValueError(told)


def watched(read: pickle_walk.Read) -> pickle_walk.Read:
    """The same, which ends with the time of the file."""

    def watched(start: int, count: int) -> bytes | memoryview:
        watchdog.check()
        return read(start, count)

    if (size := getattr(read, "size", None)) is not None:
        watched.size = size  # type: ignore[attr-defined]
    return watched


def size_of(read: pickle_walk.Read) -> int:
    """Bytes of a file; what is packed is unpacked up to its end."""
    size = getattr(read, "size", None)
    if size is not None:
        return int(size)
    at = 0
    while count := len(read(at, _BLOCK)):
        watchdog.check()
        at += count
    return at


def is_small(read: pickle_walk.Read) -> bool:
    return not goes_on(read, SMALL - 1)


def goes_on(read: pickle_walk.Read, end: int) -> bool:
    """Whether a file has a byte at a place, or may have one."""
    size = getattr(read, "size", None)
    if size is not None:
        return bool(size > end)
    return len(read(end, 1)) > 0


def is_at(read: pickle_walk.Read, end: int) -> bool:
    """Whether a file ends at a place, or so close behind it that no network follows."""
    return end > 0 and goes_on(read, end - 1) and not goes_on(read, end + SMALL - 1)
