"""Hanging up on servers that send without end what is no content.

A socket's own timeout is for silence. Interim answers, headers and trailers can come one
after the other for ever, or a byte a minute, and Python's client reads them all before it
returns.
"""

import contextlib
import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any


class Watch:
    """Ends the connections of a request that is waited for too long.

    Args:
      seconds: that one piece of content, or the beginning of the answer, may take.
    """

    def __init__(self, seconds: float):
        self._seconds, self._began = seconds, 0.0
        self._sockets: list[socket.socket] = []
        self._done, self._has_ended = threading.Event(), False

    def __enter__(self) -> "Watch":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *told: object) -> None:
        self._done.set()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the body runs, the server is waited for.

        Raises:
          TimeoutError: where that took too long.
        """
        self._began = time.monotonic()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if not self._has_ended:
                raise
        finally:
            self._began = 0.0
        if self._has_ended:
            raise TimeoutError

    def handlers(self) -> list[Any]:
        """For `urllib.request.build_opener`: what they connect to is watched."""
        watch = self

        def watched(connect: Any, connection: Any) -> None:
            connect()
            watch._sockets.append(connection.sock)

        def do_open(self: Any, kind: Any, request: Any, **more: Any) -> Any:
            def made(*told: Any, **named: Any) -> Any:
                connection = kind(*told, **named)
                connect = connection.connect
                connection.connect = lambda: watched(connect, connection)
                return connection

            above: Any = super(type(self), self)
            return above.do_open(made, request, **more)

        kinds = (urllib.request.HTTPHandler, urllib.request.HTTPSHandler)
        return [type("Watched", (kind,), {"do_open": do_open})() for kind in kinds]

    def _run(self) -> None:
        while not self._done.wait(self._seconds / 60):
            if self._began and time.monotonic() - self._began > self._seconds:
                self._has_ended = True
                for one in self._sockets:
                    # Not `one.shutdown`, which would end encryption and go on without.
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(one, socket.SHUT_RDWR)
