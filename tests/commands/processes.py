"""Commands in processes of their own, which can be interrupted."""

import contextlib
import os
import subprocess
import sys
import time

import jax


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


def ended(process, number):
    """Sends a signal; returns the exit code, the seconds it took, and the last output."""
    began = time.monotonic()
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - began, told


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
    process = start(code, path)
    try:
        until(process, "held")
        yield process
    finally:
        process.kill()
        process.communicate()
