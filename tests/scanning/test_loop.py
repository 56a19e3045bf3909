"""The loop over many files, with stand-ins for what is done with them."""

import collections
import os
import signal
import threading
import time
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ban_jax import checkpoints
from ban_jax.scanning import loop, timeline


class Task:
    """Says of each candidate what it was, and keeps count.

    A file is named `KIND-KEY`; a key of `bad` cannot be read, one that begins with `unfit`
    is refused, one that begins with `flaky` has no lasting result.
    """

    def __init__(self, wanted=2):
        self.size = wanted
        self.chunks, self.reads = [], collections.Counter()
        self.expected = []

    def read_all(self, path, architecture=None):
        self.reads[path] += 1
        kind, key = path.rsplit("/", 1)[-1].split("-")
        if key == "bad":
            raise checkpoints.CheckpointError(f"{path}: not a checkpoint")
        made = types.SimpleNamespace(path=path, kind=kind, key=f"{kind}-{key}")
        return [checkpoints.Part(path, made)]

    def fitted(self, candidate):
        return candidate

    def key_of(self, candidate):
        return candidate.key

    def kind_of(self, candidate):
        return candidate.kind

    def expect(self, candidate):
        self.expected.append(candidate.path)

    def refuse(self, candidate):
        return "refused" if "unfit" in candidate.key else ""

    def of_the_file(self, candidate):
        return f"own of {candidate.path}"

    def failure(self, path, reason, candidate, error):
        assert (candidate is None) == (error is not None)
        return f"failed: {reason}"

    def is_lasting(self, result):
        return "flaky" not in result

    def wanted(self, kind):
        return self.size

    def prepare(self, kind, candidates, *, last):
        assert all(candidate.kind == kind for candidate in candidates)
        return candidates

    def measure(self, chunk):
        self.chunks.append([candidate.key for candidate in chunk])
        return [f"measured {candidate.key}" for candidate in chunk]


def test_what_is_to_be_measured_is_expected_and_nothing_else(task):
    paths = ["x-0", "x-1", "x-bad", "x-unfit"]
    list(loop.stream(paths, task, known={"x-0": "known"}))
    assert task.expected == ["x-1"]


@pytest.fixture
def task(monkeypatch):
    made = Task()
    monkeypatch.setattr(checkpoints, "read_all", made.read_all)
    return made


names = st.builds(
    "{}/{}-{}".format,
    st.integers(0, 99),
    st.sampled_from("xyz"),
    st.sampled_from(["0", "1", "2", "3", "4", "bad", "unfit0"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(names, max_size=24, unique=True), st.integers(1, 5))
def test_every_file_has_one_outcome_and_every_weights_are_measured_once(paths, wanted):
    task = Task(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "read_all", task.read_all)
        found = list(loop.stream(paths, task))
    assert sorted(one.path for one in found) == sorted(paths)
    for path, key, result, own, _ in found:
        assert own == (f"own of {path}" if key else None)
        name = path.rsplit("/", 1)[-1]
        if name.endswith("bad"):
            assert (key, result) == (None, f"failed: {path}: not a checkpoint")
        elif name.endswith("unfit0"):
            assert (key, result) == (None, "failed: refused")
        else:
            assert (key, result) == (name, f"measured {name}")
    measured = [key for chunk in task.chunks for key in chunk]
    assert sorted(measured) == sorted({one.key for one in found if one.key})
    assert all(count == 1 for count in task.reads.values())
    assert all(len(chunk) <= wanted for chunk in task.chunks)


def test_a_file_that_repeats_weights_read_long_ago_gets_their_result(task):
    task.size = 1
    others = [f"{number}/x-{number}" for number in range(1, 30)]
    found = list(loop.stream(["a/x-0", *others, "b/x-0"], task))
    assert [one.result for one in found if one.key == "x-0"] == ["measured x-0"] * 2
    assert sum(chunk == ["x-0"] for chunk in task.chunks) == 1


def test_a_result_that_does_not_last_is_tried_again_for_a_later_file(task):
    task.size = 1
    others = [f"{number}/x-{number}" for number in range(1, 30)]
    found = list(loop.stream(["a/x-flaky", *others, "b/x-flaky"], task))
    assert len(found) == 31
    assert sum(chunk == ["x-flaky"] for chunk in task.chunks) == 2


def test_what_is_known_is_not_done_again(task):
    found = list(loop.stream(["a/x-0", "a/x-1"], task, known={"x-0": "known"}))
    assert sorted(one.result for one in found) == ["known", "measured x-1"]
    assert task.chunks == [["x-1"]]


def test_an_error_of_the_task_comes_out_and_ends_the_loop(task, monkeypatch):
    def failing(chunk):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(task, "measure", failing)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(loop.stream(["a/x-0"], task))


def test_an_interruption_waits_neither_for_the_device_nor_for_reading(
    task, monkeypatch
):
    busy, release, over = threading.Event(), threading.Event(), threading.Event()

    def measuring(chunk):
        busy.set()
        if not release.wait(120):
            over.set()
        return [f"measured {candidate.key}" for candidate in chunk]

    def interrupting():
        busy.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    task.size = 1
    monkeypatch.setattr(task, "measure", measuring)
    threading.Thread(target=interrupting, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(loop.stream([f"{number}/x-{number}" for number in range(40)], task))
        assert not over.is_set(), "it waited for the device"
    finally:
        release.set()
    assert sum(task.reads.values()) < 40


def test_a_consumer_that_stops_early_stops_the_reading(task):
    found = loop.stream([f"{number}/x-{number}" for number in range(200)], task)
    next(found)
    found.close()
    time.sleep(0.1)
    assert sum(task.reads.values()) < 100


def test_each_classifier_of_a_file_has_an_outcome_of_its_own(monkeypatch):
    task, error = Task(), checkpoints.CheckpointError("does not fit")

    def read_all(path, architecture=None):
        if path != "x/several":
            return task.read_all(path)
        made = [task.read_all(f"{path}-{key}")[0].candidate for key in ("1", "1", "2")]
        parts = [checkpoints.Part(f"{path}#{i}", one) for i, one in enumerate(made)]
        return [*parts, checkpoints.Part(f"{path}#3", None, error)]

    monkeypatch.setattr(checkpoints, "read_all", read_all)
    found = list(loop.stream(["x/several", "x/x-9"], task))
    told = {one.path: (one.key, one.part_of) for one in found}
    assert told == {
        "x/several#0": ("several-1", "x/several"),
        "x/several#1": ("several-1", "x/several"),
        "x/several#2": ("several-2", "x/several"),
        "x/several#3": (None, "x/several"),
        "x/x-9": ("x-9", None),
    }
    assert sorted(sum(task.chunks, [])) == ["several-1", "several-2", "x-9"]
    (failed,) = [one for one in found if one.key is None]
    assert failed.result == "failed: does not fit"


def test_large_files_are_read_one_after_the_other(task, monkeypatch):
    monkeypatch.setattr(loop, "HELD_BYTES", 10)
    monkeypatch.setattr(loop, "_size", lambda path: 6)
    paths = [f"{number}/x-{number}" for number in range(9)]
    read = loop._read_ahead(paths, task, None, timeline.Timeline())
    for number, one in enumerate(read):
        assert (one.path, one.size) == (paths[number], 6)
        assert sum(task.reads.values()) <= number + 2  # this one, and the next


def test_candidates_of_many_large_kinds_do_not_wait_for_others(task, monkeypatch):
    task.size = 3
    monkeypatch.setattr(loop, "HELD_BYTES", 10)
    paths = ["0/x-0", "0/y-0", "0/z-0", "1/x-1", "1/y-1"]
    sizes = {path: 1 + 8 * ("y" in path) for path in paths}
    monkeypatch.setattr(loop, "_size", sizes.get)
    assert len(list(loop.stream(paths, task))) == 5
    # One of each fills no chunk, but together they are too large.
    assert [sorted(chunk) for chunk in task.chunks][0] == ["y-0"]


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "two").write_bytes(b"12345")
    assert loop._size(str(tmp_path)) == 8
    assert loop._size(str(tmp_path / "two")) == 5
    assert loop._size(str(tmp_path / "none")) == 0
