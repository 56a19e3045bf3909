"""What reading a file may cost, and files that change or never come."""

import contextlib
import gc
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    file_bytes,
    json_text,
    limits,
    opening,
    pickle_reader,
    watchdog,
)
from tests.checkpoints import builders


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(builders.state_dict()))
    return path


# Work.


class Watched(bytes):
    """Bytes that count how many of them were looked at in slices."""

    seen = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(index, slice):
            self.seen += len(found)
        return found


@pytest.mark.parametrize(
    "line", [b"Va\n0", b"I1\n0", b"ca\nb\n0", b"F1\n0", b"S'a'\n0"]
)
def test_a_line_of_a_pickle_costs_what_it_is_long(line):
    data = Watched(line * 20_000 + b"N.")
    pickle_reader.PickleMachine(data, limits.objects(2**24)).load()
    assert data.seen < 50 * len(data)


def test_a_long_line_is_read_whole():
    text = b"x" * 10_000
    machine = pickle_reader.PickleMachine(
        memoryview(b"V" + text + b"\n."), limits.objects(0)
    )
    assert machine.load() == text.decode()


# Time.


def test_work_that_ends_in_time_gives_its_result_or_its_error():
    assert watchdog.within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="mine"):
        watchdog.within(60, lambda: {}["mine"])


@pytest.mark.parametrize("content", ["safetensors", "damaged"])
def test_a_refused_file_is_let_go_at_once(content, tmp_path, monkeypatch):
    """Its bytes, or its descriptor: not when garbage is collected at some time."""
    monkeypatch.setattr(limits, "READ_WHOLE", 0)  # so that descriptors tell
    path = tmp_path / "refused.pt"
    if content == "safetensors":
        arrays = {"a": np.zeros((3, 3), np.float32), "b": np.zeros(3, np.float32)}
        safetensors.numpy.save_file(arrays, path)
    else:
        path.write_bytes(builders.torch_file(builders.state_dict())[:-30])
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/dev/fd"))
        for _ in range(3):
            with contextlib.suppress(checkpoints.CheckpointError):
                checkpoints.read_all(path)
                pytest.fail("it is read")
        assert len(os.listdir("/dev/fd")) == before
    finally:
        gc.enable()


def test_a_file_that_never_comes_is_an_error_that_names_it(model, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    monkeypatch.setattr(limits, "SECONDS_PER_MIB", 0.0)
    monkeypatch.setattr(opening, "of_bytes", lambda data: held.wait(60))
    with pytest.raises(checkpoints.CheckpointError, match="took longer") as caught:
        checkpoints.read(model)
    held.set()
    assert str(caught.value).startswith(str(model))


@pytest.mark.parametrize(
    "work",
    [
        lambda: pickle_reader.PickleMachine(
            memoryview(b"N."), limits.objects(0)
        ).load(),
        lambda: checkpoints.contents.state_dicts({"a": {}}),
        lambda: checkpoints.flax_reader.read_msgpack(memoryview(b"\x81\xa1a\xc0")),
    ],
)
def test_what_goes_over_a_files_objects_ends_when_its_time_is_over(work):
    ended = []

    def late():
        while not ended:
            time.sleep(0.01)
            try:
                watchdog.check()
            except checkpoints.CheckpointError:
                ended.append(None)
        try:
            work()
        except checkpoints.CheckpointError as error:
            ended.append(str(error))
        done.set()
        told.wait(60)  # Work that is done in time after all would be no error.

    done, told = threading.Event(), threading.Event()
    with pytest.raises(checkpoints.CheckpointError):
        watchdog.within(0.05, late)
    told.set()
    assert done.wait(60)
    assert len(ended) == 2 and "took longer" in ended[1]
    work()  # and outside of it nothing ends


def test_a_larger_file_has_more_time(model, monkeypatch):
    given = []
    monkeypatch.setattr(watchdog, "extend", given.append)
    checkpoints.read(model)
    assert given == [limits.SECONDS_PER_MIB * model.stat().st_size / limits.MIB]


# Files that change.


def test_a_large_file_that_is_cut_while_it_is_read_is_an_error(model, monkeypatch):
    monkeypatch.setattr(limits, "READ_WHOLE", 0)
    root = opening.of_bytes(file_bytes.read(str(model))).root
    os.truncate(model, 100)
    with pytest.raises(checkpoints.CheckpointError, match="shrank while it was read"):
        root["layer4.1.conv2.weight"].view()


def test_a_small_file_that_is_cut_while_it_is_read_is_an_error(model, monkeypatch):
    size = model.stat().st_size
    whole, real = os.fstat, os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real(fd, min(n, 50), at))
    assert len(file_bytes.read(str(model))) == size  # comes in pieces
    os.truncate(model, 100)

    class Before:
        st_mode, st_size = 0o100644, size

    monkeypatch.setattr(os, "fstat", lambda fd: Before)
    with pytest.raises(checkpoints.CheckpointError, match="shrank while it was read"):
        file_bytes.read(str(model))
    monkeypatch.setattr(os, "fstat", whole)


def test_of_a_large_file_the_parts_asked_for_are_read(tmp_path, monkeypatch):
    state = builders.state_dict()
    junk = builders.tensor(builders.storage("junk", 2**20), [2**20], [1])
    path = tmp_path / "model.pt"
    path.write_bytes(
        builders.torch_file(state, {"zz.junk": junk}, junk=bytes(4 * 2**20))
    )
    monkeypatch.setattr(limits, "READ_WHOLE", 0)
    sizes = []
    real = file_bytes._read
    monkeypatch.setattr(
        file_bytes, "_read", lambda fd, at, n: sizes.append(n) or real(fd, at, n)
    )
    root = opening.of_bytes(file_bytes.read(str(path))).root
    assert root["linear.bias"].view().size == 5
    assert sum(sizes) < 2**20


# What lies beside a file.


def test_a_manifest_that_would_fill_the_memory_is_a_note(model):
    (model.parent / "zoo.json").write_text("[" + "[]," * 1_300_000 + "1]")
    checkpoints.read(builders.TESTDATA / "zip.pt")  # traces the architecture
    tracemalloc.start()
    notes = checkpoints.read(model).notes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "zoo.json cannot be read" in notes[0] and "would become more" in notes[0]
    assert peak < 20 * limits.MIB


@pytest.mark.parametrize(
    "piece", ["[],", "{},", '"",', "1,", "1.5,", '{"a":1},', "[[[[[]]]]],", "true,"]
)
def test_json_that_is_read_takes_no_more_than_promised(piece):
    count = 1
    text = b""
    for count in (2**n for n in range(24, 8, -1)):
        text = f"[{piece * count}1]".encode() if count * len(piece) < 2**23 else b""
        try:
            if text:
                json_text.loads(text)
                break
        except ValueError:
            continue
    tracemalloc.start()
    json_text.loads(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert limits.JSON_OBJECTS / 64 < peak < limits.JSON_OBJECTS


def test_a_pipe_beside_a_file_holds_nothing_up(model):
    os.mkfifo(model.parent / "zoo.json")
    assert "not a regular file" in checkpoints.read(model).notes[0]


def test_json_says_what_is_wrong_with_it():
    for text, words in (
        (b"[1", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":1,"a":2}', "occurs twice"),
    ):
        with pytest.raises(ValueError, match=words):
            json_text.loads(text, unique=True)
    assert json_text.loads(b'{"a":1,"a":2}') == {"a": 2}
