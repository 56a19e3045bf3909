"""What is passed over is harmless all through, whatever a file begins like."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import discovery, file_end, pickle_walk, texts

WEIGHTS = np.random.default_rng(0).normal(size=8000).astype("<f4").tobytes()
HALVES = np.frombuffer(2 * WEIGHTS, "<f4").astype("<f2").tobytes()
TEXT = b"A line of a log, number 5.\n" * 1000
ONNX = b"2\x78" + b"A" * 120  # a doc_string, which may stand before all else


def judged(top):
    return [path[len(str(top)) + 1 :] for path in discovery.search(top).paths]


def tar_of(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(WEIGHTS)
        archive.addfile(member, io.BytesIO(WEIGHTS))
    return file.getvalue()


def ar_of(**members: bytes) -> bytes:
    return b"!<arch>\n" + b"".join(
        f"{name + '/':16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
        + content
        for name, content in members.items()
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", check)


def png(content: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def segment(mark: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, mark, len(content) + 2) + content


def jpeg(content: bytes, end: bytes = b"\xff\xd9") -> bytes:
    scan = content.replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + segment(0xE0, b"JFIF\0") + segment(0xDA, bytes(6)) + scan + end


def gif(content: bytes) -> bytes:
    blocks = [content[i : i + 255] for i in range(0, len(content), 255)]
    rows = b"".join(bytes([len(one)]) + one for one in blocks)
    head = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6)
    return head + b"," + bytes(9) + b"\x08" + rows + b"\0;"


def bmp(content: bytes) -> bytes:
    return (
        b"BM" + struct.pack("<4I", 54 + len(content), 0, 54, 40) + bytes(36) + content
    )


def tiff(content: bytes) -> bytes:
    tags = struct.pack("<HHII", 273, 4, 1, 8) + struct.pack(
        "<HHII", 279, 4, 1, len(content)
    )
    start = struct.pack("<4sI", b"II*\0", 8 + len(content))
    return start + content + struct.pack("<H", 2) + tags + bytes(4)


def icon(content: bytes) -> bytes:
    entry = struct.pack("<4B2H2I", 0, 0, 0, 0, 1, 32, len(content), 22)
    return struct.pack("<3H", 0, 1, 1) + entry + content


def pnm(content: bytes) -> bytes:
    return b"P5\n# made by hand\n100 %d\n255\n" % (len(content) // 100) + content


def wave(content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WAVE" + content


def events(content: bytes) -> bytes:
    first = b"\x09\0\0\x80\xd0\xbe\x1a\xd9A\x1a\rbrain.Event:2"
    return b"".join(
        struct.pack("<Q4x", len(one)) + one + bytes(4) for one in (first, content)
    )


def elf(content: bytes) -> bytes:
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3Q", 3, 62, 1, 0, 64, 0)
    head += struct.pack("<I6H", 0, 64, 56, 1, 64, 0, 0)
    size = 120 + len(content)
    return head + struct.pack("<II6Q", 1, 5, 0, 0, 0, size, size, 4096) + content


def windows(content: bytes) -> bytes:
    head = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0"
    head += struct.pack("<2H3I2H", 0x14C, 1, 0, 0, 0, 0, 0)
    return (
        head + b".text\0\0\0" + struct.pack("<4I16x", 0, 0, len(content), 128) + content
    )


def pdf(content: bytes) -> bytes:
    return b"%PDF-1.7\n" + content + b"\n%%EOF\n"


def idx(content: bytes) -> bytes:
    return b"\0\0\x08\x01" + struct.pack(">I", len(content)) + content


WHOLE = (png, jpeg, gif, bmp, tiff, icon, pnm, wave, events, elf, windows, pdf, idx)


@pytest.mark.parametrize("made", WHOLE)
def test_what_lies_beside_models_is_passed_also_where_it_is_large(tmp_path, made):
    (tmp_path / "thing").write_bytes(made(WEIGHTS))
    assert judged(tmp_path) == []


@pytest.mark.parametrize("made", WHOLE)
def test_what_lies_behind_the_end_of_something_harmless_is_told_of(tmp_path, made):
    (tmp_path / "thing").write_bytes(made(bytes(200)) + WEIGHTS)
    assert judged(tmp_path) == ["thing"]
    with pytest.raises(checkpoints.CheckpointError, match="not a checkpoint") as raised:
        checkpoints.read(tmp_path / "thing")
    assert raised.value.other is None


@pytest.mark.parametrize(
    "magic",
    [b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"P5 ", b"P6\n", b"8BPS", b"\xff\xd8\xff"]
    + [b"\x89PNG", b"GIF8", b"\0\0\0\x0cjP", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3"]
    + [b"%PDF", b"SQLite format 3\0", b"\x7fELF", b"\0\5\x16\7", b"\0asm", b"wOFF"]
    + [b"RIFF", b"1234ftyp", b"PACK", b"DIRC", b"\xfftOc", b"RIDX", b":W&B", b"OTTO"]
    + [b"\0\1\0\0\0", b"MZ", b"\0\0\x08\1", b"\xff\xfe", b"ab\r\n\0\0\0\0"],
)
def test_a_magic_number_before_weights_makes_nothing_harmless(tmp_path, magic):
    (tmp_path / "thing").write_bytes(magic + WEIGHTS[len(magic) :])
    assert judged(tmp_path) == ["thing"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("as_text.onnx", ONNX * 10 + WEIGHTS),
        ("as_text", ONNX * 10 + WEIGHTS),
        ("as_image.onnx", bmp(WEIGHTS)),
        ("resnet50.weights", bmp(WEIGHTS)),
        ("small.weights", b"BM\0\0" + WEIGHTS[:1000]),
        ("model.ckpt.data-00000-of-00001", bmp(WEIGHTS)),
        ("models", tar_of("BMW/model.safetensors")),
        ("models.tgz", gzip.compress(tar_of("BMW/model.safetensors"), 1, mtime=0)),
        ("models.a", ar_of(README=TEXT[:2000], weights=WEIGHTS)),
        ("log", TEXT + WEIGHTS),
        ("log", TEXT + WEIGHTS + TEXT),
        ("utf16", b"\xff\xfe" + HALVES),
    ],
)
@pytest.mark.parametrize("packed", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_models_of_other_programs_are_told_of_whatever_they_begin_like(
    tmp_path, name, content, packed
):
    if packed is None:
        (tmp_path / name).write_bytes(content)
        assert judged(tmp_path) == [name]
        return
    with zipfile.ZipFile(tmp_path / "all.zip", "w", packed) as archive:
        archive.writestr(name, content)
    assert judged(tmp_path) == [f"all.zip!/{name}"]


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT + b"\0\0\a" + TEXT,
        TEXT + b"\xe4" + TEXT,
        "Gr\u00fc\u00dfe und noch mehr Text\n".encode("latin-1") * 4000,
        "\u6587\u5b57 \U0001f600\n".encode() * 20_000,
        TEXT.decode().encode("utf-16"),
        b"BMW;1;2\n" * 10_000,
        b"P5 is a pentium\n" * 5000,
        gzip.compress(TEXT * 4, 1, mtime=0),
    ],
)
@pytest.mark.parametrize("name", ["thing", "notes.model"])
def test_a_text_stays_one_with_an_odd_byte_here_and_there(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert judged(tmp_path) == []


def test_of_a_long_text_head_tail_and_places_between_are_looked_at(monkeypatch):
    monkeypatch.setattr(texts, "WHOLE", 2**20)
    line = b"x" * 63 + b"\n"

    def is_text(at: int, count: int) -> bool:
        content = bytearray(line * 2**16)
        content[at : at + count] = (WEIGHTS * 20)[:count]
        return texts.is_text(pickle_walk.reading(bytes(content)))

    assert is_text(0, 0)
    assert not is_text(2**22 - 2**14, 2**14)
    for place in range(2**16, 2**22 - 2**19, 2**18):
        assert not is_text(place, 2**18 + 2**15)


def test_what_has_no_room_for_a_network_is_known_by_its_first_bytes(tmp_path):
    for number, magic in enumerate((b"BM", b"ID3", b"\x7fELF", b"MZ")):
        (tmp_path / f"{number}").write_bytes(magic + bytes(file_end.SMALL - 9))
    assert judged(tmp_path) == []


def test_what_is_made_of_too_small_pieces_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(file_end, "_STEPS", 1000)
    chunk = b"\0\0\0\0tEXt\0\0\0\0"
    for name, count in (("few", 300), ("many", 30_000)):
        content = b"\x89PNG\r\n\x1a\n" + chunk * count + b"\0\0\0\0IEND\0\0\0\0"
        (tmp_path / name).write_bytes(content)
    assert judged(tmp_path) == ["many"]
