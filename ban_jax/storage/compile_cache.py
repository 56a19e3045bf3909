"""Where compiled programs are kept between runs, and who may write there.

Whoever can write to the folder can run code as its user: it must belong to the user alone.
"""

import os
import stat
from collections.abc import Mapping

VARIABLE = "BAN_JAX_CACHE"
OFF = "off"


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
