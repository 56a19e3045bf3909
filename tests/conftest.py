"""Session-wide settings: how is compiled, no silent rank promotion, fresh traces.

Most of the suite's time is XLA's, compiling tiny programs. Tests ask what is computed, not
how: XLA optimizes next to nothing here, which takes a third of the time, but in modules
that ask for `optimized`; everywhere it emits one module per program and fusions in the
old way (`QUICK`), which takes half of what is left. Programs are kept in `.cache/` between
runs, a folder for each version of JAX; deleting it costs time and nothing else.
"""

import gc
import os
import pathlib
import shutil
import signal

import chex
import jax
import pytest

from ban_jax import cli
from ban_jax.population import programs

CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax-tests"
QUICK = {
    "--xla_cpu_use_fusion_emitters=false": ((0, 10),),
    "--xla_cpu_parallel_codegen_split_count=1": ((0, 10), (0, 11)),
}
"""Flag -> versions of JAX that know it: XLA ends a process that is given another."""
LARGEST = 1 << 30
"""Bytes of compiled programs from which on the cache is emptied and begun anew."""


def pytest_configure(config):
    """The cache is emptied before the processes of `pytest -n` start, which share it."""
    gc.set_threshold(*cli.SELDOM)
    version = jax.__version_info__[:2]
    flags = [flag for flag, known in QUICK.items() if version in known]
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *flags))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # Of processes that tests start.
    jax.config.update("jax_disable_most_optimizations", True)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in the background of a shell, where what is to be interrupted never would be.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") or not CACHE.exists():
        return
    old = [folder for folder in CACHE.iterdir() if folder.name != jax.__version__]
    size = sum(file.stat().st_size for file in CACHE.rglob("*") if file.is_file())
    for folder in [CACHE] if size > LARGEST else old:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache():
    """The same tiny programs are compiled once, not once per module and run."""
    folder = CACHE / jax.__version__
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def optimized():
    """For modules that ask for what holds of optimized programs too, as users run."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Tables are as wide as without a terminal, whatever pytest's workers are told."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def no_user_configuration(tmp_path_factory):
    """Tests depend neither on lowerings this user has measured nor on their secret."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    os.environ["BAN_JAX_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def fresh_trace_counters():
    """`chex.assert_max_traces` counts for the whole process otherwise."""
    chex.clear_trace_counter()


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_of_a_module():
    """Thousands of programs alive at once run out of memory maps, and the process dies."""
    yield
    programs._compiled.cache_clear()
    jax.clear_caches()
