"""Runs `ban-jax` in a process of its own, as a user does, and takes its wall time."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from typing import IO, Any, NamedTuple

JUDGED = (0, 1, 2)
"""Exit codes of a scan or a repair that came to its end."""


class Ran(NamedTuple):
    """Wall seconds of a whole command, Python's start included, and its exit code."""

    seconds: float
    code: int


class Failed(RuntimeError):
    """A command that ended with an exit code it should not have."""


def ban_jax(
    words: Sequence[Any],
    *,
    fine: Collection[int] = (0,),
    log: IO[Any] | int | None = subprocess.PIPE,
    python: str = sys.executable,
    folder: str | None = None,
    **environment: str,
) -> Ran:
    """Runs the command and waits for it.

    Args:
      words: behind `ban-jax`.
      fine: exit codes that are expected.
      log: gets what it prints; by default kept for the message of `Failed`; None: shown.
      python: interpreter that the package is installed for.
      folder: where it runs; None: here.
      **environment: in addition to this process's own.

    Raises:
      Failed: for any other exit code.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [python, "-m", "ban_jax.cli", *map(str, words)],
        check=False,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    seconds = time.perf_counter() - start
    if done.returncode not in fine:
        where = getattr(log, "name", None)
        told = f" (see {where})" if where else f"\n{done.stdout}" if done.stdout else ""
        raise Failed(f"ban-jax {words[0]} ended with exit code {done.returncode}{told}")
    return Ran(seconds, done.returncode)
