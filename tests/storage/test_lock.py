"""One process at a time writes a file."""

import os

import pytest

from ban_jax.storage import atomic, lock
from tests.commands import processes


@pytest.fixture
def elsewhere(tmp_path):
    """A process that holds the lock of `file`."""
    with processes.holding(tmp_path / "file") as process:
        yield process


def test_a_file_that_another_process_writes_is_refused_by_name(tmp_path, elsewhere):
    with (
        pytest.raises(
            atomic.OutputError, match=r"file: another ban-jax process.*--out"
        ),
        lock.held(tmp_path / "file"),
    ):
        pytest.fail("both hold it")
    with lock.held(tmp_path / "another"):
        pass


def test_a_process_that_is_killed_gives_it_back(tmp_path, elsewhere):
    elsewhere.kill()
    elsewhere.wait()
    with lock.held(tmp_path / "file"):
        pass


def test_an_error_inside_gives_it_back_and_comes_out_as_it_is(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"), lock.held(tmp_path / "file"):
            raise KeyError("mine")


def test_the_file_itself_is_not_touched(tmp_path):
    (tmp_path / "file").write_text("content")
    with lock.held(tmp_path / "file"):
        assert (tmp_path / "file").read_text() == "content"
    assert sorted(os.listdir(tmp_path)) == [".file.lock", "file"]


def test_a_folder_that_is_none_is_told_like_any_output(tmp_path):
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(atomic.OutputError, match=r"cannot be written.*--out"),
        lock.held(tmp_path / "taken" / "file"),
    ):
        pytest.fail("held")


def test_a_shipped_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".results.jsonl.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(atomic.OutputError), lock.held(tmp_path / "results.jsonl"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
