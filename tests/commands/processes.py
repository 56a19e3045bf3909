"""Commands in processes of their own, which can be interrupted."""

import contextlib
import os
import subprocess
import sys

import jax

PROMPT = 120
"""Seconds within which a signal must be answered: far fewer than the work would take, and
enough on a machine that is busy with other things."""


def start(code, *arguments, **environment):
    """Python that shares this one's compiled programs; its output is one pipe."""
    cache = jax.config.jax_compilation_cache_dir
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process, word):
    """Reads a process's output up to the line that is `word` alone."""
    told = ""
    while (line := process.stdout.readline()).strip() != word:
        told += line
        assert line, f"ended before it said {word!r}: {told}"


@contextlib.contextmanager
def started(code, *arguments, **environment):
    """See `start`; the process is gone when the body ends, however it ends."""
    process = start(code, *arguments, **environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process, number):
    """Sends a signal, which is answered promptly; the exit code and the last output."""
    process.send_signal(number)
    told, _ = process.communicate(timeout=PROMPT)
    return process.returncode, told


@contextlib.contextmanager
def holding(path):
    """Another process writes `path` while the body runs."""
    code = (
        "import sys\n"
        "from ban_jax.storage import lock\n"
        "with lock.held(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with started(code, path) as process:
        until(process, "held")
        yield process
