"""What goes wrong with a checkpoint, and how its names are shown."""

import contextlib
from collections.abc import Iterable, Iterator


class CheckpointError(ValueError):
    """A checkpoint cannot be read; the message names the file, expected and found.

    Attributes:
      calls: what the file asks to have called, see `candidate.Candidate`.
      other: what the file holds, where that is recognisably no classifier.
    """

    def __init__(
        self, message: str, *, calls: tuple[str, ...] = (), other: str | None = None
    ):
        super().__init__(message)
        self.calls = calls
        self.other = other


def show(name: object, limit: int = 120) -> str:
    """A name from an untrusted file, safe for a terminal: ASCII, escaped, shortened."""
    text = ascii(name) if isinstance(name, (str, bytes, int)) else type(name).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listing(names: list[str], limit: int = 400) -> str:
    """All names, comma separated; beyond `limit`, which no model has, a count."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"


@contextlib.contextmanager
def telling(calls: Iterable[str]) -> Iterator[None]:
    """Adds what a file asks to have called to an error that the body raises."""
    try:
        yield
    except CheckpointError as error:
        together = tuple(dict.fromkeys((*error.calls, *calls)))
        # Raised without a name: a frame must not hold the error that holds the frame.
        raise CheckpointError(str(error), calls=together, other=error.other) from error
