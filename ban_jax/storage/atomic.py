"""Files that appear whole or not at all, and folders that prove they can be written."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_TRIAL = ".ban-jax-"
_TRIAL_SECONDS = 60
PathLike = str | os.PathLike[str]


class OutputError(ValueError):
    """An output file or folder that cannot be written; says what to do."""


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[str]:
    """Gives the name of a hidden file beside `path`, which takes its place in the end.

    A reader sees the old content or the new, never half, after a power cut too: the file
    and its name are on the disk when this returns. After an exception the old file is
    untouched and nothing is left behind.

    Args:
      path: the file; its folder exists.

    Raises:
      OSError: for what is there and is neither a file nor a link: a device would be gone.
    """
    if os.path.lexists(path):
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "a pipe, a device or a folder")
    folder, base = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{base}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(folder or ".")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def remove_leftovers(folder: PathLike, names: Iterable[str]) -> None:
    """Removes what a killed process left of these files before they were whole.

    Call it while nobody else writes them (`lock.held`).

    Args:
      folder: that they are in.
      names: of the files.
    """
    wanted = set(names)
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _PARTIAL.fullmatch(entry.name)
            if match and match[1] in wanted:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def write(path: PathLike, data: bytes | Iterable[bytes], *, mode: int = 0o666) -> None:
    """Writes a whole file in one step, and its folder where there is none.

    Args:
      path: the file.
      data: all of it, or pieces that need not be in memory together.
      mode: who may do what with it, less what the process's umask takes away.

    Raises:
      OutputError: the folder cannot be written or the disk is full.
    """
    name = os.fspath(path)
    with explaining(name):
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with (
            replacing(name) as temporary,
            open(
                temporary, "xb", opener=lambda path, how: os.open(path, how, mode)
            ) as file,
        ):
            file.writelines([data] if isinstance(data, bytes) else data)


def prepare_folder(folder: PathLike, names: Iterable[str] = ()) -> None:
    """Makes an output folder if needed, and proves that files can be written in it.

    Args:
      folder: for the output.
      names: of the files that will be written there.

    Raises:
      OutputError: it cannot be made or written, or is a link, or holds one for such a
        file; call this before the long work.
    """
    name = os.fspath(folder)
    refuse_links(name, names)
    trial = os.path.join(name, f"{_TRIAL}{secrets.token_hex(4)}.tmp")
    with explaining(name):
        os.makedirs(name, exist_ok=True)
        _remove_trials(name)
        with open(trial, "xb"):
            pass
        os.unlink(trial)


def refuse_links(folder: PathLike, names: Iterable[str] = ()) -> None:
    """Refuses an output folder, or a file in it, that is a symbolic link.

    It may have come with what is scanned, and lead to a folder that nobody meant.

    Args:
      folder: for the output; links above it are its owner's business.
      names: of what will be written below it, folders on the way included.

    Raises:
      OutputError: for the first link.
    """
    # `link/` and `link/.` are what the link leads to: its name alone is the link.
    top = os.path.normpath(folder)
    paths = [top]
    for name in names:
        parts = os.path.normpath(name).split(os.sep)
        paths += [os.path.join(top, *parts[: k + 1]) for k in range(len(parts))]
    for path in paths:
        if os.path.islink(path):
            raise OutputError(
                f"{path}: is a symbolic link to {os.readlink(path)}; expected a "
                "folder or file of its own. Nothing was written through it: "
                "remove the link, or name the folder it leads to with --out"
            )


def _remove_trials(folder: str) -> None:
    """Removes trial files of killed processes: a living one has its own for no time."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(_TRIAL) and entry.name.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _TRIAL_SECONDS:
                        os.unlink(entry.path)


def own_file(name: str, flags: int) -> int:
    """Descriptor of a regular file that is no link; others are left alone.

    A folder of results may have come with what is scanned: a link in it leads to a file
    that nobody meant, a pipe holds up whoever opens it.

    Raises:
      OSError: for a link, a pipe or a device, and what `os.open` raises.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags | safe, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a pipe, a device or a folder")
    return descriptor


@contextlib.contextmanager
def explaining(name: str) -> Iterator[None]:
    """Turns an `OSError` about an output file into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{name}: cannot be written ({error.strerror or error}); expected a folder "
            "where you may create files. Choose another one with --out"
        ) from error


def _sync(path: str) -> None:
    """Waits until a file or folder is on the disk, where the system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems sync no folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
