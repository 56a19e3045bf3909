"""Where compiled programs are kept: only where nobody else can write."""

import os
import stat

import pytest

from ban_jax.storage import compile_cache


def test_the_default_is_a_folder_of_the_user_alone(tmp_path):
    found, note = compile_cache.folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert (found, note) == (str(tmp_path / "ban_jax"), "")
    assert stat.S_IMODE(os.stat(found).st_mode) == 0o700
    assert compile_cache.folder({"XDG_CACHE_HOME": str(tmp_path)}) == (found, "")


def test_without_an_absolute_xdg_folder_it_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for environment in ({}, {"XDG_CACHE_HOME": "relative"}):
        found, _ = compile_cache.folder(environment)
        assert found == str(tmp_path / ".cache" / "ban_jax")


def test_the_variable_names_another_or_turns_it_off(tmp_path):
    named = {"BAN_JAX_CACHE": str(tmp_path / "mine")}
    assert compile_cache.folder(named) == (str(tmp_path / "mine"), "")
    assert compile_cache.folder({"BAN_JAX_CACHE": "off"}) == (None, "")


def linked(path):
    os.makedirs(f"{path}-target")
    os.symlink(f"{path}-target", path)


def shared(path):
    os.makedirs(path)
    os.chmod(path, 0o770)


@pytest.mark.parametrize(
    "make, words",
    [
        (linked, "symbolic link"),
        (shared, "written to by others"),
        (lambda path: open(path, "w").close(), "File exists"),
    ],
)
def test_a_folder_that_others_may_reach_is_refused_with_a_note(tmp_path, make, words):
    make(tmp_path / "ban_jax")
    found, note = compile_cache.folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert found is None
    assert words in note and str(tmp_path / "ban_jax") in note and "off" in note


def test_somebody_elses_folder_is_refused(tmp_path, monkeypatch):
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    found, note = compile_cache.folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert found is None and "another user" in note
