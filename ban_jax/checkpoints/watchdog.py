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
_local = threading.local()


def within(seconds: float, work: Callable[[], _Made]) -> _Made:
    """`work()`, or an error after so many seconds.

    Raises:
      CheckpointError: when the time is over. What `work` raises passes through.
    """
    made: list[_Made] = []
    raised: list[BaseException] = []

    def run() -> None:
        _local.deadline = time.monotonic() + seconds
        _local.seconds = seconds
        try:
            made.append(work())
        except BaseException as error:
            raised.append(error)

    # A daemon: the interpreter does not wait at its end for a file that never came.
    thread = threading.Thread(target=run, name="read a checkpoint", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not made:
        raise errors.CheckpointError(_message(seconds))
    return made[0]


def check() -> None:
    """Ends work that `within` runs and whose time is over.

    Raises:
      CheckpointError: then, and never outside of `within`.
    """
    if time.monotonic() > getattr(_local, "deadline", float("inf")):
        raise errors.CheckpointError(_message(_local.seconds))


def _message(seconds: float) -> str:
    return (
        f"reading took longer than {seconds:,.0f} seconds, the most a file of this size "
        "may take"
    )
