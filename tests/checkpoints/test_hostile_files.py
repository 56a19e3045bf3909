"""Files that lie: each is one `CheckpointError`, in bounded time and memory."""

import io
import os
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import limits
from tests.checkpoints import builders


def attempt(path) -> checkpoints.Candidate | checkpoints.CheckpointError:
    """Reads within the promised memory; only these two outcomes are right."""
    checkpoints.network_search.expected(
        builders.SPEC
    )  # the model's own tracing is not counted
    size = path.stat().st_size if path.is_file() else 0
    tracemalloc.start()
    start = time.perf_counter()
    try:
        return checkpoints.read(path)
    except checkpoints.CheckpointError as error:
        assert str(path) in str(error)
        return error
    finally:
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * size + 66 * limits.MIB
        assert seconds < 20


def refused(path, words: str) -> None:
    error = attempt(path)
    assert isinstance(error, checkpoints.CheckpointError)
    assert words in str(error), str(error)


@pytest.fixture
def model(tmp_path):
    return tmp_path / "model.pt"


@pytest.mark.parametrize("name", ["zip.pt", "legacy.th"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(name, model):
    data = (builders.TESTDATA / name).read_bytes()
    cuts = {*range(0, len(data), len(data) // 60), *range(64), len(data) - 1}
    for cut in sorted(cuts):
        model.write_bytes(data[:cut])
        assert isinstance(attempt(model), checkpoints.CheckpointError), cut


def test_random_byte_flips_give_a_candidate_or_an_error(tmp_path):
    rng = random.Random(0)
    for name in sorted(path.name for path in builders.TESTDATA.iterdir()):
        if name.endswith(".json"):
            continue
        data = (builders.TESTDATA / name).read_bytes()
        for case in range(12):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 3, 30))):
                # The structure is at the ends; the middle is weights.
                position = int(rng.triangular(0, len(data), rng.choice((0, len(data)))))
                broken[min(position, len(data) - 1)] = rng.randrange(256)
            path = tmp_path / f"{case}-{name}"
            path.write_bytes(broken)
            attempt(path)


def rezip(data: bytes, change) -> bytes:
    """A zip written again, its `{name: content}` changed and compression chosen."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    compression = change(content) or zipfile.ZIP_STORED
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    return file.getvalue()


def test_a_zip_bomb_is_not_inflated(model):
    def inflate(content):
        content["archive/data/0"] = bytes(200 * limits.MIB)
        return zipfile.ZIP_DEFLATED

    model.write_bytes(rezip(builders.torch_file(builders.state_dict()), inflate))
    assert model.stat().st_size < limits.MIB
    refused(model, "compressed")


def test_a_storage_smaller_than_announced_is_refused(model):
    state = builders.state_dict()
    model.write_bytes(builders.torch_file(state, **{"0": b"1234"}))
    refused(model, "but its entry holds 4 bytes")


def test_a_storage_of_terabytes_is_refused_before_anything_is_allocated(model):
    state = builders.state_dict()
    huge = builders.tensor(builders.storage("0", 2**45), [2**45], [1])
    model.write_bytes(builders.torch_file(state, {"conv1.weight": huge}))
    refused(model, "announces 35,184,372,088,832 elements")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((1, 3, 3, 3), (27, 9, 3, 1), 1),
        ((1, 3, 3, 3), (27, 9, 3, 2), 0),
        ((1, 3, 3, 4), (27, 9, 3, 1), 0),
        ((2**31, 2**31), (2**31, 1), 0),
        ((1, 3, 3, 3), (27, 9, 3, 1), 2**47),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(model, shape, strides, offset):
    bad = builders.tensor(builders.storage("0", 27), shape, strides, offset)
    model.write_bytes(builders.torch_file(builders.state_dict(), {"conv1.weight": bad}))
    refused(model, "reaches element")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((1, 3, 3, 3), (27, 9, 3, -1), 26),
        ((1, 3, 3, 3), (27, 9, 3, 1), -1),
        ((-1, 3, 3, 3), (27, 9, 3, 1), 0),
        ((2**62, 0, 3, 3), (27, 9, 3, 1), 0),
        ((1, 3, 3, 3), (27, 9, 3), 0),
        ((1,) * 20, (1,) * 20, 0),
    ],
)
def test_a_tensor_of_impossible_geometry_is_refused(model, shape, strides, offset):
    bad = builders.tensor(builders.storage("0", 27), shape, strides, offset)
    model.write_bytes(builders.torch_file(builders.state_dict(), {"conv1.weight": bad}))
    assert isinstance(attempt(model), checkpoints.CheckpointError)


def test_a_huge_stride_0_tensor_is_refused_and_a_small_one_is_read(model):
    state = builders.state_dict()
    small = builders.tensor(builders.storage("0", 27), [1, 3, 3, 3], [0, 0, 0, 0])
    model.write_bytes(builders.torch_file(state, {"conv1.weight": small}))
    kernel = checkpoints.read(model).variables["params"]["conv1"]["kernel"]
    assert (kernel == state["conv1.weight"].flat[0]).all()
    # A ResNet18 of width 512, every weight the same number: 2.9 GB from 100 kB.
    spec = checkpoints.ModelSpec("resnet18", 5, 512)
    expanded = {
        name: builders.tensor(builders.storage("0", 1), shape, [0] * len(shape))
        for name, (_, shape) in checkpoints.network_search.expected(spec).items()
    }
    pickle = builders.pickle(builders.dictionary(expanded))
    model.write_bytes(builders.torch_zip(pickle, {"0": b"\0\0\x80\x3f"}))
    refused(model, "views counted in full")


def test_overlapping_views_of_one_storage_are_read_where_they_lie(model):
    state = builders.state_dict()
    stored = builders.storage("0", 27)
    overlapping = {
        "bn1.weight": builders.tensor(stored, [1], [1], 3),
        "bn1.bias": builders.tensor(stored, [1], [1], 3),
    }
    model.write_bytes(builders.torch_file(state, overlapping))
    bn1 = checkpoints.read(model).variables["params"]["bn1"]
    assert bn1["scale"] == bn1["bias"] == state["conv1.weight"].flat[3]


def test_duplicate_zip_names_are_refused(model):
    data = builders.torch_file(builders.state_dict())
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
    model.write_bytes(file.getvalue())
    refused(model, "two zip entries have the name 'archive/data.pkl'")


def directory_entry(data: bytes, name: bytes) -> int:
    """Where the central directory describes `name`."""
    return data.rindex(name) - 46


def test_overlapping_zip_entries_are_refused(model):
    data = bytearray(builders.torch_file(builders.state_dict()))
    at = directory_entry(data, b"archive/byteorder")
    local = struct.unpack_from("<L", data, at + 42)[0]
    # The entry now claims the bytes of its successor too, in both of its headers.
    for position in (at + 20, at + 24, local + 18, local + 22):
        struct.pack_into("<L", data, position, 200)
    model.write_bytes(data)
    refused(model, "zip entries overlap")


def test_a_local_header_that_contradicts_the_directory_is_refused(model):
    data = bytearray(builders.torch_file(builders.state_dict()))
    at = data.index(b"archive/data/3")
    data[at : at + 14] = b"archive/data/9"
    model.write_bytes(data)
    refused(model, "disagree")


def test_an_entry_that_reaches_beyond_the_file_is_refused(model):
    data = bytearray(builders.torch_file(builders.state_dict()))
    at = directory_entry(data, b"archive/data/3")
    local = struct.unpack_from("<L", data, at + 42)[0]
    for position in (at + 20, at + 24, local + 18, local + 22):
        struct.pack_into("<L", data, position, 2**31)
    model.write_bytes(data)
    refused(model, "that are not in the file")


def test_bytes_before_the_archive_are_refused(model):
    data = builders.torch_file(builders.state_dict())
    model.write_bytes(data[:30] + data)
    refused(model, "end record")


def test_a_zip_that_is_not_pytorchs_is_named_as_such(model):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    model.write_bytes(file.getvalue())
    refused(model, "not a PyTorch file")


def test_a_storage_that_is_not_there_is_refused(model):
    state = builders.state_dict()
    absent = builders.tensor(
        builders.storage("nowhere", 27), [1, 3, 3, 3], [27, 9, 3, 1]
    )
    model.write_bytes(builders.torch_file(state, {"conv1.weight": absent}))
    refused(model, "no entry 'archive/data/nowhere'")


def test_a_storage_described_in_two_ways_is_refused(model):
    state = builders.state_dict()
    other = builders.tensor(builders.storage("0", 1), [1], [1])
    model.write_bytes(builders.torch_file(state, {"bn1.bias": other}))
    refused(model, "described in two ways")


@pytest.mark.parametrize("change", [-1, 1, 2**40])
def test_a_legacy_storage_of_the_wrong_length_is_refused(model, change):
    data = bytearray((builders.TESTDATA / "legacy.th").read_bytes())
    # The last storage of the file: its 64-bit count lies before its bytes.
    state = builders.TESTDATA / "legacy.th"
    last = list(checkpoints.read(state).names.keys)[-1]
    assert last[1] == "linear.bias"
    for count in (27, 9, 5, 1):
        at = data.rfind(struct.pack("<q", count))
        if at > 0:
            struct.pack_into("<q", data, at, count + change)
            break
    model.write_bytes(data)
    refused(model, "its header says")


@pytest.mark.parametrize("nesting", ["params", "_modules", "plain"])
def test_shared_parts_do_not_multiply_while_the_classifier_is_searched(model, nesting):
    """Every level holds the next one ten times: 10^12 paths, 120 objects."""
    name = {"params": "params", "_modules": "_modules", "plain": "x"}[nesting]
    leaf = builders.tensor(builders.storage("0", 27), [27], [1])
    body = builders.dictionary({"a": leaf, "b": leaf}) + b"q\x00"
    for level in range(1, 13):
        children = {f"child{i}": b"h" + bytes([level - 1]) for i in range(10)}
        inner = builders.dictionary(children)
        if nesting == "_modules":
            inner = b"ca\nb\n)\x81" + builders.dictionary({name: inner}) + b"b"
        body += b"0" + builders.dictionary({name: inner}) + b"q" + bytes([level])
    model.write_bytes(builders.torch_zip(builders.pickle(body), {"0": bytes(108)}))
    assert isinstance(attempt(model), checkpoints.CheckpointError)


JOBLIB = (
    b"\x80\4}\x8c\x0cconv1.weight\x8c\x13joblib.numpy_pickle"
    b"\x8c\x11NumpyArrayWrapper\x93)\x81\n\xff"
)


def tar_of_python() -> bytes:
    """With a time of fractions, which takes a header of its own."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("model.pt")
        member.mtime = 0.5
        archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x80\x04N.", "a bare pickle"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        (b"<html>" + bytes(100), "a web page"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>\n<html>", "a web page: the download"),
        (b'{\n  "error": 1}', "a JSON text, no checkpoint: the download"),
        (b"version https://git-lfs.github.com/spec/v1\r\n", "Git LFS pointer"),
        (b"Entry not found", "a text, no checkpoint: the download"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a checkpoint: an image"),
        (b"%PDF-1.7\n" + bytes(range(256)), "not a checkpoint: a document"),
        (b"\xfftOc" + bytes(range(256)), "not a checkpoint: the index of a git pack"),
        (bytes(2000), "its first 1,024 bytes are zeros"),
        (b"\x1f\x9d\x90" + bytes(range(256)), "compress: unpack it first"),
        (b"\4\x22\x4d\x18" + bytes(range(256)), "lz4 file: unpack it first"),
        (zlib.compress(bytes(range(256)), 3), "zlib stream: unpack it first"),
        (b"GGUF\3\0\0\0" + bytes(range(256)), "a GGUF file"),
        (b"\x1c\0\0\0TFL3" + bytes(range(256)), "a TensorFlow Lite file"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(99), "an ONNX file"),
        (JOBLIB, "a joblib file"),
        (tar_of_python(), "a tar archive with extended headers"),
        (np.random.default_rng(0).bytes(5000), "not a checkpoint"),
    ],
)
def test_files_of_other_kinds_are_named(model, content, words):
    model.write_bytes(content)
    refused(model, words)


def test_a_file_that_does_not_exist_is_an_error_naming_it(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="gone.pt: cannot be read"):
        checkpoints.read(tmp_path / "gone.pt")


def test_a_named_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "not a regular file")


def test_names_that_would_drive_a_terminal_are_escaped(model):
    state = builders.state_dict()
    extra = {"evil\x1b[2J": builders.tensor(builders.storage("0", 27), [27], [1])}
    model.write_bytes(builders.torch_file(state, extra))
    error = attempt(model)
    assert isinstance(error, checkpoints.CheckpointError)
    assert "\x1b" not in str(error) and r"evil\x1b[2J" in str(error)
