"""What a file or folder holds besides the model that is read: told of, never left out."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import bare_pickle, discovery, limits, packed, unknown
from tests.checkpoints import builders


@pytest.fixture(scope="module")
def model():
    return builders.torch_file(builders.state_dict())


def adding(content: bytes, **entries: bytes) -> bytes:
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, inside in entries.items():
            archive.writestr(name, inside)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2), np.float32))
    return file.getvalue()


def judged(top):
    return [str(path)[len(str(top)) + 1 :] for path in discovery.search(top).paths]


ARCHIVE = adding(builders.torch_zip(builders.pickle(b"}"), {}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs/final.pt", b""),
        ("runs/final", ARCHIVE),
        ("inner.zip", ARCHIVE),
        ("w.npy", array()),
        ("archive/other.pkl", pickle.dumps({"a": 1})),
        ("archive/traced_inputs/0", bytes(range(256)) * 256),
        ("archive/constants/0", bytes(range(256)) * 256),
        ("archive/code/net.debug_pkl", ARCHIVE),
        ("archive/data/999", bytes(range(256)) * 256),
    ],
)
def test_a_pytorch_file_that_holds_more_than_its_object_is_refused(
    tmp_path, model, name, content
):
    for file in ("a.zip", "a.pt", "a.npz"):
        (tmp_path / file).write_bytes(adding(model, **{name: content}))
        with pytest.raises(
            checkpoints.CheckpointError, match="not judged: unpack"
        ) as e:
            checkpoints.read(tmp_path / file)
        assert name in str(e.value) and e.value.other is None


def wide(content: bytes) -> bytes:
    """The same archive with the second end record that PyTorch writes."""
    count, size, start = struct.unpack("<H2L", content[-12:-2])
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[count] * 2, size, start
    )
    place = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    return content[:-22] + record + place + content[-22:]


def test_an_archive_of_pytorch_behind_something_else_is_told(tmp_path, model):
    for number, content in enumerate((model, wide(model))):
        for head in (b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n", b"text\n"):
            (tmp_path / f"{number}.png").write_bytes(head + content)
            with pytest.raises(checkpoints.CheckpointError, match="in front of it"):
                checkpoints.read(tmp_path / f"{number}.png")
            assert f"{number}.png" in judged(tmp_path)
        (tmp_path / "model.pt.002").write_bytes(content[1000:])
        with pytest.raises(
            checkpoints.CheckpointError, match="end of a zip archive that"
        ):
            checkpoints.read(tmp_path / "model.pt.002")


def test_of_two_archives_in_one_file_none_is_judged(tmp_path, model):
    (tmp_path / "a.pt").write_bytes(wide(model))
    assert checkpoints.read(tmp_path / "a.pt").spec == builders.SPEC
    (tmp_path / "a.pt").write_bytes(wide(model) * 2)
    with pytest.raises(checkpoints.CheckpointError, match="not the one before the end"):
        checkpoints.read(tmp_path / "a.pt")


def test_what_follows_in_the_pickle_of_a_pytorch_file_is_refused(tmp_path):
    whole = builders.state_pickle(builders.state_dict())
    arrays = builders.state_dict().values()
    content = {str(place): value.tobytes() for place, value in enumerate(arrays)}
    path = tmp_path / "a.pt"
    for more, words in ((bytes(3), ""), (whole, "follow the pickle of its object")):
        path.write_bytes(builders.torch_zip(whole + more, content))
        if not words:
            assert checkpoints.read(path).spec == builders.SPEC
            continue
        with pytest.raises(checkpoints.CheckpointError, match=words):
            checkpoints.read(path)


def test_what_programs_put_into_a_pytorch_file_is_no_reason_to_refuse(tmp_path, model):
    more = {
        "archive/version": b"3\n",
        "archive/.format_version": b"1",
        "archive/.storage_alignment": b"64",
        "archive/.data/serialization_id": b"1" * 40,
        "archive/code/net.py": b"import torch\n" * 2000,
    }
    (tmp_path / "a.pt").write_bytes(adding(model, **more))
    assert checkpoints.read(tmp_path / "a.pt").notes == ()
    more = {
        "archive/code/net.py.debug_pkl": pickle.dumps(((0, "net.py", 1),) * 9),
        "archive/traced_inputs.pkl": pickle.dumps((1,)),
        "archive/traced_inputs/0": b"",
        "archive/constants.pkl": pickle.dumps(()),
        "archive/constants/0": bytes(range(256)) * 256,
    }
    (tmp_path / "a.pt").write_bytes(adding(model, **more))
    assert "TorchScript" in checkpoints.read(tmp_path / "a.pt").notes[0]


def test_what_follows_the_storages_of_a_legacy_file_is_not_passed_over(tmp_path):
    magic = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    parts = (magic, builders.integer(1001), b"}", b"}", b"]")
    whole = b"".join(map(builders.pickle, parts))
    path = tmp_path / "a.pt"
    for more, words in ((bytes(600), "no classifier"), (whole, "follow the file's")):
        path.write_bytes(whole + more)
        with pytest.raises(checkpoints.CheckpointError, match=words):
            checkpoints.read(path)


def test_pickles_beyond_those_that_are_read_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(bare_pickle, "MAX_PICKLES", 3)
    path = tmp_path / "many.pkl"
    path.write_bytes(4 * pickle.dumps(1))
    with pytest.raises(checkpoints.CheckpointError, match="are not judged") as raised:
        checkpoints.read(path)
    assert raised.value.other is None
    path.write_bytes(3 * pickle.dumps(1))
    with pytest.raises(checkpoints.CheckpointError, match="no classifier"):
        checkpoints.read(path)
    path.write_bytes(pickle.dumps(1) + b"\xff" * unknown.SMALL)
    with pytest.raises(checkpoints.CheckpointError, match="follow its pickles"):
        checkpoints.read(path)


def test_an_entry_of_an_archive_and_a_file_never_share_a_path(tmp_path, model):
    other = builders.torch_file(builders.state_dict(seed=1))
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("x.pt", other)
    (tmp_path / "m.zip!").mkdir()
    (tmp_path / "m.zip!" / "x.pt").write_bytes(model)
    assert judged(tmp_path) == ["m.zip!!/x.pt", "m.zip!/x.pt"]
    inside, beside = (checkpoints.read(path) for path in checkpoints.find(tmp_path))
    assert inside.sha256 != beside.sha256
    assert checkpoints.find(inside.path) == [inside.path]


def test_the_directory_of_an_archive_is_read_once(tmp_path, model, monkeypatch):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "abc":
            archive.writestr(f"{name}.pt", model)
    made = []
    real = packed.zip_container.Archive
    monkeypatch.setattr(
        packed.zip_container,
        "Archive",
        lambda data, budget: made.append(len(data)) or real(data, budget),
    )
    for inside in checkpoints.find(path):
        checkpoints.read(inside)
    assert made.count(path.stat().st_size) == 2  # to search, and to read


def test_the_entries_of_an_archive_share_the_time_of_one_file(
    tmp_path, model, monkeypatch
):
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "abc":
            archive.writestr(f"{name}.pt", model)
    a, b, c = checkpoints.find(path)
    checkpoints.read(a)
    opened = packed._opened(str(path))
    opened.seconds["a.pt"] = limits.SECONDS + 2 * limits.SECONDS_PER_MIB * len(model)
    with pytest.raises(checkpoints.CheckpointError, match="the other entries"):
        checkpoints.read(b)
    checkpoints.read(a)  # whose own time is not counted twice
    checkpoints.read(c)


NOISE = bytes(range(1, 256)) * 400
IDX = b"\0\0\x08\x03" + struct.pack(">3I", 4, 100, 255) + NOISE
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w", format=tarfile.USTAR_FORMAT) as _tar:
    _tar.addfile(tarfile.TarInfo("model.pt"), io.BytesIO())


def arrays(*several: np.ndarray) -> bytes:
    """As Equinox saves networks: one array behind the other."""
    file = io.BytesIO()
    for one in several:
        np.save(file, one)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (arrays(np.ones((9, 9)), np.ones(3)), "as Equinox saves"),
        (gzip.compress(arrays(np.ones((9, 9)), np.ones(3)), 0, mtime=0), "gzip"),
        (b'{"width": 2}\n' + arrays(np.ones((90, 90))), "as Equinox saves"),
        (b"\xfe" + NOISE, "not a checkpoint"),
        (gzip.compress(b"\xfe" + NOISE + NOISE[::-1] * 3, 0, mtime=0), "gzip"),
        (b"]\0\0\x80\0" + b"\xff" * 8 + NOISE, "an lzma file"),
        (b"#!/bin/sh\n" * 40 + ARCHIVE, "a zip archive with something else"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40) + ARCHIVE, "a zip archive with something"),
        (b"text\n" + bytes(507) + b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5.*byte 512"),
    ],
)
def test_what_has_room_for_a_network_and_no_known_format_is_told_of(
    tmp_path, content, words
):
    path = tmp_path / "thing"
    path.write_bytes(content)
    assert judged(tmp_path) == ["thing"]
    with pytest.raises(checkpoints.CheckpointError, match=words) as raised:
        checkpoints.read(path)
    assert raised.value.other is None


def test_a_program_of_torch_export_is_one_thing_that_is_not_judged(tmp_path):
    """However small its weights are, which lie apart and have no names."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/weights/weight_0", bytes(range(256)))
    assert judged(tmp_path) == ["model.pt2"]
    with pytest.raises(checkpoints.CheckpointError, match=r"torch\.export"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    "content",
    [
        arrays(np.ones((9, 9))),
        gzip.compress(arrays(np.ones((9, 9))), 0, mtime=0),
        b"\xfe" + NOISE[: unknown.SMALL - 2],
        IDX,
        gzip.compress(IDX, 0, mtime=0),
        b"\xa7\r\r\n" + bytes(12) + b"\xe3" + NOISE,
        b"\x18"
        + bytes(11)
        + b"\x09\0\0\x80\xd0\xbe\x1a\xd9A\x1a\rbrain.Event:2"
        + bytes(4)
        + struct.pack("<Q4x", len(NOISE) - 4)
        + NOISE,
        b"PACK\0\0\0\2" + NOISE,
        b"A line of text.\n" * 5000,
    ],
)
def test_companions_of_models_stay_passed(tmp_path, content):
    (tmp_path / "thing").write_bytes(content)
    assert judged(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../evil.safetensors", "no file beside it"),
        ("a.safetensors", "1 of the 1 files"),
    ],
)
def test_an_index_without_its_files_has_a_line(tmp_path, model, file, words):
    (tmp_path / "good.pt").write_bytes(model)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"conv1.weight": file}}))
    assert judged(tmp_path) == ["good.pt", path.name]
    with pytest.raises(checkpoints.CheckpointError, match=words):
        checkpoints.read(path)
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert judged(tmp_path) == ["a.safetensors", "good.pt", path.name]
