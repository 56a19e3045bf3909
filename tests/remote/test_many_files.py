"""Thousands of files cost a step each: what is read, written and walked is counted."""

import contextlib
import os

import pytest

from ban_jax import remote
from ban_jax.remote import journal, room, source


class Coming(list):
    """The pieces of a file; `expected` is how many bytes there will be."""

    expected = None


def file_of(name, content=b"weights", version="1", size=7):
    @contextlib.contextmanager
    def opened():
        stream = Coming([content])
        stream.expected = size
        yield stream

    return source.File(name, size, version, None, opened)


def place_of(files, name="s3://bucket"):
    return source.Source(name, name, list(files))


def fetch_all(cache, files, name="s3://bucket"):
    """Fetches files of one place; returns the errors of those that did not come."""
    failed = []
    with cache.held(place_of(files, name), files) as folder:
        for file in files:
            try:
                cache.fetch(folder, file)
            except remote.FetchError as error:
                failed.append(str(error))
    return failed


def total(cache):
    with open(os.path.join(cache.folder, room.TOTAL), encoding="ascii") as file:
        return int(file.read())


def lying(cache):
    with os.scandir(cache.folder) as entries:
        return sum(room.size_of(one.path) for one in entries if one.is_dir())


@pytest.fixture
def walked(monkeypatch):
    """The folders that were walked."""
    found = []
    real = room.size_of
    monkeypatch.setattr(
        room, "size_of", lambda folder: found.append(folder) or real(folder)
    )
    return found


@pytest.fixture
def written(monkeypatch):
    """The bytes that were written into journals, and read of them."""
    sizes = {"written": 0, "read": 0}
    write, parsed = os.write, journal._parsed

    def counted(descriptor, data):
        sizes["written"] += len(data)
        return write(descriptor, data)

    def read(line):
        sizes["read"] += len(line)
        return parsed(line)

    monkeypatch.setattr(journal.os, "write", counted)
    monkeypatch.setattr(journal, "_parsed", read)
    return sizes


def work(cache, count, walked, written):
    """What so many files cost: folders walked, bytes of journals written and read."""
    walked.clear()
    written |= {"written": 0, "read": 0}
    files = [file_of(f"{k:04d}.pt") for k in range(count)]
    assert not fetch_all(cache, files, f"s3://bucket/{count}")
    return len(walked), written["written"] / count, written["read"] / count


def test_a_file_costs_as_much_among_many_as_among_few(tmp_path, walked, written):
    few, many = (
        work(remote.Cache(str(tmp_path / str(n)), 10**6), n, walked, written)
        for n in (20, 200)
    )
    assert few == many
    assert many[0] <= 1 and many[2] <= 0


def test_files_that_are_known_are_read_of_once(tmp_path, written):
    cache = remote.Cache(str(tmp_path / "cache"), 10**6)
    files = [file_of(f"{k}.pt") for k in range(50)]
    fetch_all(cache, files)
    (size,) = (
        os.path.getsize(one) for one in os.scandir(cache.folder) if "jsonl" in one.name
    )
    written |= {"written": 0, "read": 0}
    assert not fetch_all(cache, files)
    assert written["written"] == 0 and written["read"] <= size


def test_a_full_cache_is_walked_seldom_whatever_does_not_fit(tmp_path, walked):
    cache = remote.Cache(str(tmp_path / "cache"), 70)
    failed = fetch_all(cache, [file_of(f"{k:04d}.pt") for k in range(400)])
    assert len(failed) == 390 and all("is full with files" in one for one in failed)
    assert cache._room.walks < 60
    assert len(walked) < 3 * 60


def test_a_full_cache_is_emptied_without_a_walk_for_each_that_goes(tmp_path, walked):
    cache = remote.Cache(str(tmp_path / "cache"), 7 * 60)
    for k in range(60):
        fetch_all(cache, [file_of("a.pt")], f"s3://old/{k:04d}")
    cache = remote.Cache(cache.folder, cache.limit)
    walked.clear()
    assert not fetch_all(cache, [file_of(f"{k}.pt") for k in range(40)])
    # Folders for files on the way come besides those for whole ones.
    assert cache._room.walks <= 2 and len(walked) < 2 * 2 * 60 + 2 * 60
    assert lying(cache) <= cache.limit


def test_the_total_is_what_lies_there(tmp_path):
    cache = remote.Cache(str(tmp_path / "cache"), 1000)
    short = file_of("short.pt", content=b"we")
    changed = file_of("a.pt", content=b"other weights", version="2", size=13)
    unknown = file_of("b.pt", content=b"unknown", version="", size=None)
    for files in (
        [file_of("a.pt")],
        [short],
        [changed, unknown],
        [unknown],
        [file_of("large.pt", size=2000)],
    ):
        fetch_all(cache, files)
        assert total(cache) == lying(cache)
    assert lying(cache) == 7 + 13 + 7 + 7


def test_a_file_that_replaces_another_takes_what_it_has_more(tmp_path):
    cache = remote.Cache(str(tmp_path / "cache"), 1000)
    with cache.held(place_of([]), [file_of("a.pt")]) as folder:
        cache.fetch(folder, file_of("a.pt"))
        cache.fetch(folder, file_of("a.pt", b"other weights", "2", 13))
    assert total(cache) == lying(cache) == 13


def test_scans_count_in_one_total(tmp_path):
    """Each of them alone would have room for both."""
    one, two = (remote.Cache(str(tmp_path / "cache"), 20) for _ in range(2))
    first = [file_of("a.pt"), file_of("b.pt")]
    with one.held(place_of(first, "s3://one"), first) as folder:
        one.fetch(folder, first[0])
        assert not fetch_all(two, [file_of("c.pt")], "s3://two")
        with two.held(place_of([], "s3://two"), [file_of("c.pt")]):
            with pytest.raises(remote.FetchError, match="is full with files"):
                one.fetch(folder, first[1])
        # What no scan holds any more makes room.
        for _ in range(2):
            with contextlib.suppress(remote.FetchError):
                one.fetch(folder, first[1])
    assert lying(one) == total(one) == 14


def test_what_a_killed_scan_had_taken_is_found_when_room_is_needed(tmp_path):
    cache = remote.Cache(str(tmp_path / "cache"), 20)
    cache._room.take(15)  # and no file came
    again = remote.Cache(cache.folder, 20)
    assert not fetch_all(again, [file_of("a.pt"), file_of("b.pt")])
    assert total(again) == 14


def test_a_damaged_total_is_counted_anew(tmp_path):
    cache = remote.Cache(str(tmp_path / "cache"), 20)
    fetch_all(cache, [file_of("a.pt")])
    with open(os.path.join(cache.folder, room.TOTAL), "wb") as file:
        file.write(b"\x00garbage")
    cache = remote.Cache(cache.folder, 20)
    fetch_all(cache, [file_of("a.pt"), file_of("b.pt")])
    assert total(cache) == 14


def test_a_line_that_was_cut_costs_a_fetch_and_no_other_line(tmp_path):
    path = str(tmp_path / "told.jsonl")
    entry = journal.Entry("1", "ab")
    journal.Journal(path).add("a.pt", entry)
    with open(path, "ab") as file:
        file.write(b'{"name": "b.pt", "versi')
    journal.Journal(path).add("c.pt", entry)
    with open(path, "ab") as file:
        file.write(b'[1]\n{"name": 3, "version": "1", "sha256": "ab"}\n\xff\n')
    found = journal.Journal(path)
    assert [found.find(f"{k}.pt") for k in "abc"] == [entry, None, entry]


def test_lines_of_others_are_seen_and_the_last_of_a_name_counts(tmp_path):
    path = str(tmp_path / "told.jsonl")
    one, two = journal.Journal(path), journal.Journal(path)
    assert one.find("a.pt") is None
    two.add("a.pt", journal.Entry("1", "ab"))
    assert one.find("a.pt") == journal.Entry("1", "ab")
    two.add("a.pt", journal.Entry("2", "cd"))
    assert journal.Journal(path).find("a.pt") == journal.Entry("2", "cd")


def test_a_journal_that_is_a_link_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text('{"name": "a.pt", "version": "1", "sha256": "ab"}\n')
    (tmp_path / "told.jsonl").symlink_to(other)
    found = journal.Journal(str(tmp_path / "told.jsonl"))
    assert found.find("a.pt") is None
    with pytest.raises(OSError):
        found.add("b.pt", journal.Entry("1", "ab"))


def test_what_is_not_known_is_looked_for_in_new_lines_alone(tmp_path, written):
    found = journal.Journal(str(tmp_path / "told.jsonl"))
    for k in range(50):
        found.add(f"{k}.pt", journal.Entry("1", "ab"))
    size = os.path.getsize(tmp_path / "told.jsonl")
    again = journal.Journal(str(tmp_path / "told.jsonl"))
    assert not [k for k in range(50) if again.find(f"other {k}.pt")]
    assert 0 < written["read"] < size


def test_what_was_used_since_the_walk_goes_after_what_was_not(tmp_path):
    cache = remote.Cache(str(tmp_path / "cache"), 21)
    file = [file_of("a.pt")]
    folders = {}
    for age, name in ((200, "s3://one"), (100, "s3://two")):
        fetch_all(cache, file, name)
        with cache.held(place_of(file, name), file) as folders[name]:
            pass
        for one in (folders[name], f"{folders[name]}.coming"):
            os.utime(one, (1e9 - age, 1e9 - age))
    again = remote.Cache(cache.folder, 21)
    again._room.take(0)  # it walks
    os.utime(folders["s3://one"])
    assert not fetch_all(again, [file_of("b.pt"), file_of("c.pt")], "s3://three")
    assert os.path.isdir(folders["s3://one"])
    assert not os.path.exists(folders["s3://two"])
