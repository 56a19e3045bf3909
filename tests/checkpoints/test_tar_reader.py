"""PyTorch files from before 2017: tar archives of three files."""

import io
import struct
import tarfile

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import opening
from tests.checkpoints import builders

KEYS = {"storage": 140_000_000_000_001, "view": 2, "whole": 3, "part": 4}


def key(name: str) -> bytes:
    return builders.integer(KEYS[name])


def record(*parts: bytes) -> bytes:
    return builders.pickle(b"(" + b"".join(parts) + b"t")


def one(value: int) -> bytes:
    return builders.pickle(builders.integer(value))


def described(name: str, storage: str, sizes, strides, offset: int) -> bytes:
    kind = builders.symbol("torch", "FloatTensor")
    numbers = struct.pack("<2i", len(sizes), 0)
    numbers += struct.pack(f"<{2 * len(sizes) + 1}q", *sizes, *strides, offset)
    return record(key(name), key(storage), kind) + numbers


def old_file(**changed: bytes) -> bytes:
    """`{"w": 2x3 numbers, "b": two of them}`, as `torch.save` of 0.1 wrote it."""
    values = np.arange(6, dtype="<f4").tobytes()
    kind = builders.symbol("torch", "FloatStorage")
    storages = one(1) + record(key("storage"), builders.text("cpu"), kind)
    storages += struct.pack("<q", 6) + values
    view = b"(" + key("view") + key("storage") + builders.integer(3)
    storages += builders.pickle(b"](" + view + builders.integer(2) + b"te")
    tensors = one(2) + described("whole", "storage", (2, 3), (3, 1), 0)
    tensors += described("part", "view", (2,), (1,), 0)
    body = builders.dictionary({"w": key("whole") + b"Q", "b": key("part") + b"Q"})
    members = {
        "sys_info": builders.pickle(b"}"),
        "pickle": builders.pickle(body),
        "tensors": tensors,
        "storages": storages,
        **changed,
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, raw in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return file.getvalue()


def read(data: bytes) -> dict:
    found = opening.of_bytes(memoryview(data)).root
    return {name: value.view().tolist() for name, value in found.items()}


EXPECTED = {"w": [[0, 1, 2], [3, 4, 5]], "b": [3, 4]}


def test_a_file_of_2016_is_read():
    assert read(old_file()) == EXPECTED
    notes = opening.of_bytes(memoryview(old_file())).notes
    assert notes == ("a PyTorch file from before 2017",)


def test_an_old_file_that_holds_more_is_refused():
    with pytest.raises(checkpoints.CheckpointError, match="not judged: 'more'"):
        read(old_file(more=b"1"))
    with pytest.raises(checkpoints.CheckpointError, match="follow the tar archive"):
        read(old_file() + old_file())
    with pytest.raises(checkpoints.CheckpointError, match="not judged: 'sys_info'"):
        read(old_file(sys_info=bytes(range(256)) * 256))


@pytest.mark.parametrize("name", ["pickle", "tensors", "storages"])
def test_what_follows_in_a_member_of_an_old_file_is_refused(name):
    file = io.BytesIO(old_file())
    with tarfile.open(fileobj=file) as archive:
        extracted = archive.extractfile(name)
        assert extracted is not None
        raw = extracted.read()
    assert read(old_file(**{name: raw + bytes(9)})) == EXPECTED
    with pytest.raises(checkpoints.CheckpointError, match=f"1 bytes follow its {name}"):
        read(old_file(**{name: raw + b"1"}))


@pytest.mark.parametrize("name", ["pickle", "tensors", "storages"])
def test_a_call_in_any_member_of_an_old_file_is_told(name):
    call = builders.pickle(builders.symbol("os", "system") + b")R")
    with pytest.raises(checkpoints.CheckpointError) as caught:
        opening.of_bytes(memoryview(old_file(**{name: call[:-1]})))
    assert caught.value.calls == ("os.system",)
    views = one(0) + builders.pickle(builders.symbol("os", "system") + b")R0]")
    empty = {"tensors": one(0), "pickle": builders.pickle(b"}")}
    found = opening.of_bytes(memoryview(old_file(storages=views, **empty)))
    assert found.calls == ("os.system",)


@pytest.mark.torch
def test_pytorch_reads_that_file_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "old.pt"
    path.write_bytes(old_file())
    loaded = torch.load(path, weights_only=False)
    assert {name: value.tolist() for name, value in loaded.items()} == EXPECTED


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pickle": builders.pickle(builders.integer(9) + b"Q")}, "9 is the key of no"),
        ({"tensors": one(1)}, "ends before its STOP"),
        (
            {"tensors": one(1) + described("whole", "storage", (2, 4), (4, 1), 0)},
            "reaches element 7",
        ),
        (
            {"tensors": one(2) + 2 * described("whole", "storage", (1,), (1,), 0)},
            "is there twice",
        ),
        ({"storages": one(0) + builders.pickle(b"]")}, "is the key of no"),
        ({"storages": one(2**40)}, "ends before its STOP"),
    ],
)
def test_damage_is_named(changed, words):
    with pytest.raises(checkpoints.CheckpointError, match=words):
        read(old_file(**changed))


def test_a_cut_file_is_refused_wherever_it_is_cut():
    data = old_file().rstrip(b"\0")
    for cut in range(0, len(data), 97):
        with pytest.raises(checkpoints.CheckpointError):
            read(data[:cut])


def test_two_members_of_one_name_are_refused():
    """Tar readers take the last; a plain walk would take the first."""
    data = old_file()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    with pytest.raises(checkpoints.CheckpointError, match="is there twice"):
        read(data[:end] + data)


def test_an_archive_of_other_files_says_so():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    with pytest.raises(checkpoints.CheckpointError, match="tar archive of other files"):
        read(file.getvalue())


def test_headers_that_change_the_members_behind_them_are_named():
    """Python's own tar files have them where a time has a fraction."""
    file, entry = io.BytesIO(), tarfile.TarInfo("model.pt")
    entry.mtime = 1.5
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry)
    with pytest.raises(checkpoints.CheckpointError, match="extended headers"):
        read(file.getvalue())
