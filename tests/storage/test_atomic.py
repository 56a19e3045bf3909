"""Files that appear whole or not at all."""

import os

import pytest

from ban_jax.storage import atomic


def test_a_file_is_written_with_its_folder_from_one_or_many_pieces(tmp_path):
    atomic.write(tmp_path / "new" / "file", b"whole")
    assert (tmp_path / "new" / "file").read_bytes() == b"whole"
    atomic.write(tmp_path / "new" / "file", iter([b"a", b"", b"b"]))
    assert (tmp_path / "new" / "file").read_bytes() == b"ab"
    assert os.listdir(tmp_path / "new") == ["file"]


def test_a_reader_sees_the_old_content_until_the_new_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def pieces():
        yield b"new "
        assert path.read_bytes() == b"old"
        yield b"content"
        assert path.read_bytes() == b"old"

    atomic.write(path, pieces())
    assert path.read_bytes() == b"new content"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_ends_the_writing_the_old_file_stays_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def pieces():
        yield b"new"
        raise error

    with pytest.raises(error):
        atomic.write(path, pieces())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_has_the_name_and_the_name_after(
    tmp_path, monkeypatch
):
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda number: (
            calls.append(os.path.isdir(f"/proc/self/fd/{number}")) or sync(number)
        ),
    )
    monkeypatch.setattr(
        os, "replace", lambda *names: calls.append("named") or replace(*names)
    )
    atomic.write(tmp_path / "file", b"x")
    assert calls == [False, "named", True]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(atomic.OutputError, match="a pipe, a device or a folder"):
        atomic.write(path, b"new")
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(atomic.OutputError, match=r"Permission denied.*--out"):
        atomic.prepare_folder(tmp_path)


def test_a_folder_that_can_be_written_is_left_empty(tmp_path):
    atomic.prepare_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    expected = r"file: cannot be written \(No space left on device\).*--out"
    with pytest.raises(atomic.OutputError, match=expected):
        atomic.write(tmp_path / "file", b"x")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    left = [".results.jsonl.0a1b2c3d.partial", ".results.jsonl.00000000.partial"]
    kept = [
        "results.jsonl",
        ".results.jsonl.lock",
        ".other.jsonl.0a1b2c3d.partial",
        ".results.jsonl.0a1b2c3d.partial.txt",
        "results.jsonl.0a1b2c3d.partial",
    ]
    for name in left + kept:
        (tmp_path / name).write_text("x")
    atomic.remove_leftovers(tmp_path, ["results.jsonl"])
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    atomic.remove_leftovers(tmp_path / "nowhere", ["results.jsonl"])


def test_trial_files_of_killed_processes_are_removed(tmp_path):
    for name, age in ((".ban-jax-00000000.tmp", 3600), (".ban-jax-11111111.tmp", 0)):
        (tmp_path / name).write_text("")
        moment = os.stat(tmp_path / name).st_mtime - age
        os.utime(tmp_path / name, (moment, moment))
    atomic.prepare_folder(tmp_path)
    assert os.listdir(tmp_path) == [".ban-jax-11111111.tmp"]
