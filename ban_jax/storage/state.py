"""The secret that tells what this user's scans wrote from what anybody else did.

Whoever knows it can write evidence that scans take for their own: the folder and the file
must belong to the user alone.
"""

import contextlib
import functools
import os
import secrets
import stat
from collections.abc import Mapping
from typing import NamedTuple

from ban_jax.storage import compile_cache

VARIABLE = "BAN_JAX_STATE"
NAME = "secret"
_LENGTH = 32


class Secret(NamedTuple):
    """Bytes that nobody else knows.

    Attributes:
      key: `_LENGTH` bytes.
      path: the file that keeps them; empty where they live no longer than the process.
      note: why they are not kept, or an empty string.
    """

    key: bytes
    path: str
    note: str


def folder(environment: Mapping[str, str]) -> str:
    """`BAN_JAX_STATE`, else `ban_jax` in `XDG_STATE_HOME` or in `~/.local/state`."""
    if named := environment.get(VARIABLE, ""):
        return os.path.expanduser(named)
    home = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.local/state")
    return os.path.join(home, "ban_jax")


def secret() -> Secret:
    """This user's secret, made when it is first asked for."""
    return _of(folder(os.environ))


@functools.lru_cache(maxsize=4)
def _of(path: str) -> Secret:
    name = os.path.join(path, NAME)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        reason = compile_cache.unsafe(path)
        key = b"" if reason else _read_or_make(name)
        if not reason and len(key) != _LENGTH:
            reason = f"holds a file {NAME} that is not ours alone, or is damaged"
    except OSError as error:
        reason = f"cannot be used: {error.strerror or error}"
    if not reason:
        return Secret(key, name, "")
    return Secret(
        secrets.token_bytes(_LENGTH),
        "",
        f"results of this scan cannot be told from other people's later on, so that a "
        f"further scan measures all files again: {path} {reason}. Name a folder of your "
        f"own with {VARIABLE}",
    )


def _read_or_make(name: str) -> bytes:
    """The bytes in a file; of two processes that make it, one wins and both read it."""
    if not os.path.lexists(name):
        temporary = f"{name}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_LENGTH))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, name)
        finally:
            os.unlink(temporary)
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        alone = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        return file.read() if alone and stat.S_ISREG(status.st_mode) else b""
