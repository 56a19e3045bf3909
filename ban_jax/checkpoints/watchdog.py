"""A limit of time that reaches each file, whatever it is that takes long.

The work runs on a thread of its own and whoever waits for it stops waiting in time, so
that a file system that does not answer holds up nothing but its own file. Loops over
what a file describes call `check` now and then: that ends the thread as well.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ban_jax.checkpoints import errors

_Made = TypeVar("_Made")


class _Watch:
    """How long the work of a thread may take, from its start."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.start = time.monotonic()

    def left(self) -> float:
        return self.start + self.seconds - time.monotonic()

    def error(self) -> errors.CheckpointError:
        return errors.CheckpointError(
            f"reading took longer than {self.seconds:,.0f} seconds, the most a file of "
            "this size may take"
        )


_local = threading.local()


def within(seconds: float, work: Callable[[], _Made]) -> _Made:
    """`work()`, or an error after so many seconds and those that `extend` adds.

    Raises:
      CheckpointError: when the time is over. What `work` raises passes through.
    """
    made: list[_Made] = []
    raised: list[BaseException] = []
    watch = _Watch(seconds)

    def run() -> None:
        _local.watch = watch
        try:
            made.append(work())
        except BaseException as error:
            raised.append(error)

    # A daemon: the interpreter does not wait at its end for a file that never came.
    thread = threading.Thread(target=run, name="read a checkpoint", daemon=True)
    thread.start()
    while thread.is_alive():
        if watch.left() <= 0:
            raise watch.error()
        thread.join(watch.left())
    if raised:
        try:
            raise raised.pop()
        finally:
            # Else this frame holds the error, whose traceback holds this frame, and the
            # bytes of the file with it, until garbage is collected.
            del raised
    return made[0]


def extend(seconds: float) -> None:
    """Gives the work of this thread more time, once it is known how large the file is."""
    watch = getattr(_local, "watch", None)
    if watch is not None:
        watch.seconds += seconds


def check() -> None:
    """Ends work that `within` runs and whose time is over.

    Raises:
      CheckpointError: then, and never outside of `within`.
    """
    watch = getattr(_local, "watch", None)
    if watch is not None and watch.left() <= 0:
        raise watch.error()
