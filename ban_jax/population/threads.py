"""Host threads that work while the caller waits, and can be interrupted meanwhile.

Python answers Ctrl-C between two of its own instructions, on the main thread. A thread
that is inside of XLA, compiling or waiting for a device, does not get there for minutes:
long work goes to other threads, and the main thread does nothing but wait.
"""

import concurrent.futures
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_SECONDS = 0.2
"""How long a signal that another thread received may go unnoticed."""


def result_of(future: concurrent.futures.Future[Result]) -> Result:
    """What another thread gives, once it is there; the caller can be interrupted.

    A signal that another thread takes, or that comes just before this one begins to wait,
    does not wake it: hence no wait without an end.
    """
    while not concurrent.futures.wait([future], POLL_SECONDS).done:
        pass
    return future.result()


def side_by_side(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    stop: threading.Event | None = None,
) -> list[Result]:
    """Calls a function for each item, on host threads; results in the items' order.

    An exception of a call is raised when the calls that run beside it have ended, so that
    what they hold, such as memory, is free again. One that reaches the waiting caller, as
    Ctrl-C does, is raised at once: results of the calls that still run are lost, and those
    that look at `stop` end early.

    Args:
      function: called on a thread of its own.
      items: what it is called with.
      workers: most calls at the same time.
      stop: is set when the results are not wanted any more.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(function, item) for item in items]
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, POLL_SECONDS, concurrent.futures.FIRST_EXCEPTION
            )
            if any(future.exception() for future in done):
                if stop is not None:
                    stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                while waiting := {one for one in futures if not one.done()}:
                    concurrent.futures.wait(waiting, POLL_SECONDS)
                break
        return [future.result() for future in futures if not future.cancelled()]
    except BaseException:
        if stop is not None:
            stop.set()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def interruptible(function: Callable[..., Result], *arguments: Any) -> Result:
    """One call on a thread of its own; an interrupt does not wait for its end."""
    return side_by_side(lambda _: function(*arguments), (None,), 1)[0]
