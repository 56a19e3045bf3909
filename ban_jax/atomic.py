"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Gives the name of a hidden file beside `path`, which takes its place in the end.

    A reader sees the old content or the new, never half. After an exception the old file
    is untouched and nothing is left behind.

    Args:
      path: the file; its folder exists.
    """
    folder, base = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{base}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
