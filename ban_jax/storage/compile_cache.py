"""Where compiled programs are kept between runs, and who may write there.

Whoever can write to the folder can run code as its user: it must belong to the user alone.
JAX keeps its executables there, and `population.stored`, in a folder below, what they were
compiled from.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping

VARIABLE = "BAN_JAX_CACHE"
OFF = "off"
TRACED = "traced"
"""The folder below for `population.stored`."""
SECONDS = 0.5
"""What took less to compile is not kept."""

_traced: str | None = None


def use(environment: Mapping[str, str]) -> str:
    """Keeps the programs of this process, unless JAX was already told where.

    Args:
      environment: see `folder`.

    Returns:
      A note where they are not kept and that was not asked for, or an empty string.
    """
    import jax

    global _traced
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return ""
    path, note = folder(environment)
    if path:
        jax.config.update("jax_compilation_cache_dir", path)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
        _traced = os.path.join(path, TRACED)
    return note


def traced() -> str | None:
    """The folder for traced programs; None where `use` was not called or keeps none."""
    return _traced


@contextlib.contextmanager
def tracing_into(path: str | None) -> Iterator[None]:
    """Keeps traced programs in another folder, or in none, while the body runs."""
    global _traced
    before, _traced = _traced, path
    try:
        yield
    finally:
        _traced = before


def folder(environment: Mapping[str, str]) -> tuple[str | None, str]:
    """The folder for compiled programs, made if need be, and a note where there is none.

    `BAN_JAX_CACHE` names it, or is `off`; else it is `ban_jax` in `XDG_CACHE_HOME` or in
    `~/.cache`.
    """
    named = environment.get(VARIABLE, "")
    if named == OFF:
        return None, ""
    home = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.cache")
    path = os.path.expanduser(named) if named else os.path.join(home, "ban_jax")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        reason = unsafe(path)
    except OSError as error:
        reason = f"cannot be made or looked at: {error.strerror or error}"
    if not reason:
        return path, ""
    return None, (
        f"compiled programs are not kept: {path} {reason}. Name a folder of your own with "
        f"{VARIABLE}, or {VARIABLE}={OFF}"
    )


def unsafe(path: str) -> str:
    """Why somebody else may have a hand in a folder, or an empty string."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by others (chmod go-w)"
    return ""
