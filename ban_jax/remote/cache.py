"""The cache of fetched files: bounded, of this user alone, every file whole or not there.

Each listing of a place has a folder of its own, named by a hash, so that names of servers
meet no others. Scans hold its lock while they read it; only what no scan holds is removed
when room is needed.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ban_jax.checkpoints import limits
from ban_jax.remote import errors, journal, room, source
from ban_jax.storage import atomic, compile_cache

SECONDS_PER_MIB = 10.0
"""That a file may take to come, besides `limits.SECONDS`: a tenth of a MiB a second."""
_LOCK, _TOLD, _COMING = ".lock", ".jsonl", ".coming"


class Fetched(NamedTuple):
    """A file that lies in the cache, whole.

    Attributes:
      path: absolute.
      size: bytes.
      sha256: of its content.
    """

    path: str
    size: int
    sha256: str


def default_folder(environment: Mapping[str, str]) -> str:
    """Where fetched files lie unless told otherwise: beside the compiled programs."""
    named = environment.get(compile_cache.VARIABLE, "")
    if named and named != compile_cache.OFF:
        return os.path.join(os.path.abspath(os.path.expanduser(named)), "fetched")
    home = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.cache")
    return os.path.join(home, "ban_jax", "fetched")


class Cache:
    """A folder of fetched files.

    Args:
      folder: its path; made where there is none.
      limit: bytes that all its files may take.

    Raises:
      FetchError: for a folder that others can write to, or that cannot be made.
    """

    def __init__(self, folder: str, limit: int):
        self.folder = os.path.realpath(folder)
        self.limit = limit
        self._journals: dict[str, journal.Journal] = {}
        self._room = room.Room(self.folder, limit, self._removed)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            reason = compile_cache.unsafe(self.folder)
        except OSError as error:
            reason = f"cannot be made or looked at: {error.strerror or error}"
        if reason:
            raise errors.FetchError(
                f"--cache-dir {folder}: {reason}; expected a folder of yours alone"
            )

    @property
    def most(self) -> int:
        """Bytes that one file may have: no larger one is read anyway."""
        return min(self.limit, limits.MAX_FILE)

    @contextlib.contextmanager
    def held(self, place: source.Source, files: Sequence[source.File]) -> Iterator[str]:
        """The folder of a listing, which stays as long as the body runs."""
        told = [[file.name, file.size, file.version] for file in files]
        identity = json.dumps([place.identity, sorted(told, key=str)])
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        # What has no version is replaced by every scan, so that each has a folder alone.
        is_shared = all(file.version for file in files)
        with contextlib.ExitStack() as held:
            try:
                folder, descriptor = self._locked(name, is_shared)
                held.callback(os.close, descriptor)
                os.makedirs(folder, mode=0o700, exist_ok=True)
                os.utime(folder)
            except OSError as error:
                raise _untaken(error) from error
            # Read anew by each holder: what nobody held may have been removed.
            self._journals[folder] = journal.Journal(folder + _TOLD)
            yield folder

    def _locked(self, name: str, is_shared: bool) -> tuple[str, int]:
        """A folder of this name, or for one scan alone of one like it, and its lock."""
        for number in itertools.count():
            folder = os.path.join(self.folder, f"{name}-{number}" if number else name)
            descriptor = atomic.own_file(folder + _LOCK, os.O_RDWR | os.O_CREAT)
            try:
                if is_shared:
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                else:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return folder, descriptor
            except BlockingIOError:
                os.close(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        raise AssertionError("numbers do not end")

    def fetch(self, folder: str, file: source.File) -> Fetched:
        """Fetches a file of a listing, or finds it fetched.

        Raises:
          FetchError: whatever keeps it from being there whole; nothing is left of it.
        """
        if reason := source.unsafe(file.name):
            raise errors.FetchError(reason)
        path = os.path.join(folder, *file.name.split("/"))
        try:
            if found := self._known(folder, file, path):
                return found
            if not file.version:  # of an earlier scan; this one has the folder alone
                lying = _lying(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                self._room.give(lying)
            with self._room.taken() as taken:
                if file.size is not None:
                    self._refuse_large(file.size)
                    taken.up_to(file.size)
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                # Beside the folder, in which scans search whatever lies there.
                os.makedirs(folder + _COMING, mode=0o700, exist_ok=True)
                coming = os.path.join(folder + _COMING, secrets.token_hex(8))
                with atomic.replacing(coming) as temporary:
                    size, digest = self._stream(file, temporary, taken)
                lying = _lying(path)
                os.replace(coming, path)
            self._room.give(lying)
            if file.version:  # without one it is fetched again in any case
                entry = journal.Entry(file.version, digest)
                self._journal(folder).add(file.name, entry)
        except OSError as error:
            raise _untaken(error) from error
        return Fetched(path, size, digest)

    def _journal(self, folder: str) -> journal.Journal:
        return self._journals.setdefault(folder, journal.Journal(folder + _TOLD))

    def _stream(
        self, file: source.File, path: str, taken: room.Taken
    ) -> tuple[int, str]:
        """Writes what comes; its size and hash, once that is what was announced."""
        digest, size, began = hashlib.sha256(), 0, time.monotonic()
        with open(path, "xb") as out, file.open() as stream:
            expected = stream.expected if file.size is None else file.size
            if stream.expected not in (None, expected):
                raise errors.FetchError(
                    f"listed with {file.size:,} bytes, sent with {stream.expected:,}"
                )
            if expected is not None:
                self._refuse_large(expected)
            for piece in stream:
                size += len(piece)
                self._refuse_large(size)
                if expected is not None and size > expected:
                    raise errors.FetchError(
                        f"longer than the announced {expected:,} bytes"
                    )
                taken.up_to(size if expected is None else expected)
                allowed = limits.SECONDS + SECONDS_PER_MIB * size / limits.MIB
                if time.monotonic() - began > allowed:
                    raise errors.FetchError(
                        f"given up: {size:,} bytes in {allowed:.0f} s"
                    )
                digest.update(piece)
                out.write(piece)
        if expected is not None and size != expected:
            raise errors.FetchError(f"cut short: {size:,} of {expected:,} bytes came")
        if file.sha256 is not None and digest.hexdigest() != file.sha256:
            raise errors.FetchError("its SHA-256 is not the one that its place lists")
        return size, digest.hexdigest()

    def _refuse_large(self, size: int) -> None:
        if size > self.most:
            flag = "--cache-limit" if self.most == self.limit else "the reader's limit"
            raise errors.FetchError(
                f"not fetched: {size:,} bytes or more, and {flag} allows {self.most:,}"
            )

    def _known(self, folder: str, file: source.File, path: str) -> Fetched | None:
        """The file, where this very content was fetched before and is unchanged."""
        if not file.version or not os.path.isfile(path):
            return None
        told = self._journal(folder).find(file.name)
        if told is None:
            return None
        with open(path, "rb") as lying:
            digest = hashlib.file_digest(lying, "sha256").hexdigest()
        if told != journal.Entry(file.version, digest):
            return None
        return Fetched(path, os.path.getsize(path), digest)

    def _removed(self, folder: str) -> bool:
        """Removes a folder that no scan holds."""
        try:
            lock = folder.removesuffix(_COMING) + _LOCK
            descriptor = atomic.own_file(lock, os.O_RDWR | os.O_CREAT)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder + _TOLD)
            return not os.path.lexists(folder)
        finally:
            os.close(descriptor)


def _untaken(error: OSError) -> errors.FetchError:
    return errors.FetchError(f"the cache cannot take it: {error.strerror or error}")


def _lying(path: str) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
