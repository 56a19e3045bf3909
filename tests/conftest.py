"""Session-wide settings: a compilation cache, no silent rank promotion, fresh traces."""

import os

import chex
import jax
import pytest

from ban_jax.population import programs


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """The same tiny programs are compiled once per session."""
    folder = tmp_path_factory.mktemp("jax_cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def no_user_configuration(tmp_path_factory):
    """Tests do not depend on the lowerings this user has measured."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


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
