"""What a file is by its first bytes: something to be judged, or recognisably no model.

Only what is positively something else is passed over. What is packed, of another framework
or named like a model without being one that can be read is given to the reader, whose error
then says why it is not judged.
"""

import bz2
import functools
import lzma
import zlib
from collections.abc import Callable

from ban_jax.checkpoints import bare_pickle, flax_reader, safetensors_reader

HEAD = 1024
"""Bytes that are looked at."""
MODEL_SUFFIXES = (
    *(".pt", ".pth", ".th", ".tar", ".bin", ".ckpt", ".safetensors", ".npz"),
    ".msgpack",
)
"""Files of these names are given to the reader whatever they hold."""
OTHER_MODEL_SUFFIXES = (
    *(".t7", ".pkl", ".pickle", ".dill", ".joblib", ".cloudpickle", ".mdl", ".model"),
    *(".pyth", ".weights", ".params", ".pdparams", ".h5", ".hdf5", ".keras", ".onnx"),
    *(".pb", ".tflite", ".gguf", ".ggml", ".caffemodel", ".mlmodel", ".engine", ".pte"),
    *(".mar", ".nemo", ".distcp", ".ptl", ".torchscript", ".jit"),
)
"""Names of models too: what these hold is given to the reader unless it is text."""
_IMAGES = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0"),
    *(b"P5\n", b"P6\n", b"P5 ", b"P6 ", b"8BPS", b"\0\0\0\x0cjP"),
)
_MEDIA = (
    *(b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"%PDF", b"SQLite format 3\0"),
    *(b"\x7fELF", b"\0\5\x16\7", b"\0asm", b"wOFF", b"wOF2"),
)
"""Sound, film, PDF, databases, programs, what macOS puts beside files, fonts."""
_PACKED = (
    *(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
)
_FRAMEWORKS = (b"\x89HDF", b"GGUF")
_FIRST_OPERATIONS = tuple(bytes((code,)) for code in b"(]})cilVSXUTKMJIFGNLB\x88\x89")
_PICKLED = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")

JUDGED = ""
"""What `no_model` says of a file that is to be judged."""


def no_model(head: bytes, name: str, rest: Callable[[], bytes]) -> str:
    """What a file is that is no model, in a few words; `JUDGED` where it may be one.

    Args:
      head: its first `HEAD` bytes, all of them where it has no more.
      name: its name, without folders.
      rest: reads it, up to `bare_pickle.MOST` bytes.
    """
    lower = name.lower()
    hidden = name.startswith(".")
    if lower.endswith(MODEL_SUFFIXES) and not hidden:
        return JUDGED
    if not head:
        return "an empty file"
    if _is_checkpoint(head):
        return JUDGED
    if told := _of_another_kind(head):
        return told
    if _is_pickle(head, rest):
        return JUDGED
    if _is_text(head):
        return "text"
    if head.startswith(_PACKED):
        return _unpacked(head, lower)
    if head.startswith(_FRAMEWORKS) or head[257:262] == b"ustar":
        return JUDGED
    if lower.endswith(MODEL_SUFFIXES + OTHER_MODEL_SUFFIXES):
        return JUDGED
    return "of no known format"


def _is_checkpoint(head: bytes) -> bool:
    data = memoryview(head)
    return (
        head.startswith((b"PK\3\4", b"PK\5\6", *_PICKLED))
        or safetensors_reader.looks_like(data)
        or head[4:8] == b"TFL3"
        or _is_object_array(head)
        or _is_msgpack(data)
    )


def _is_object_array(head: bytes) -> bool:
    """A NumPy array that holds a pickle."""
    return head.startswith(b"\x93NUMPY") and b"O" in head[:256].partition(b"\n")[0][10:]


def _is_msgpack(data: memoryview) -> bool:
    """A map whose first key reads like a name: two bytes alone occur everywhere."""
    if not flax_reader.looks_like_msgpack(data):
        return False
    skip = {0xDE: 3, 0xDF: 5}.get(data[0], 1)
    code = data[skip]
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(code, 0)
    start = skip + 1 + width
    length = int.from_bytes(data[skip + 1 : start], "big") if width else code & 0x1F
    key = bytes(data[start : start + length])
    return 1 < length == len(key) and key.isascii() and key.decode().isprintable()


def _of_another_kind(head: bytes) -> str:
    riff = head[:4] == b"RIFF" and head[8:12]
    if head.startswith(_IMAGES) or riff == b"WEBP":
        return "an image"
    if head.startswith(_MEDIA) or riff or head[4:8] == b"ftyp":
        return "no model: a document, a medium or a program"
    if head.startswith(b"\x93NUMPY"):
        return "a single array"
    return ""


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two at the end.
        if error.start < len(head) - 3 or len(head) < HEAD:
            return _is_latin(head)
        text = head[: error.start].decode("utf-8")
    return not any(c < " " and c not in "\t\n\r\f\x1b\b" for c in text)


def _is_latin(head: bytes) -> bool:
    """Text of older encodings: few bytes beyond ASCII, no control characters."""
    controls = sum(c < 32 and c not in b"\t\n\r\f\x1b" for c in head)
    return not controls and sum(c > 127 for c in head) < len(head) / 10


def _is_pickle(head: bytes, rest: Callable[[], bytes]) -> bool:
    """An old pickle, which has no header and may be text."""
    may_be = head[:1] in _FIRST_OPERATIONS
    return may_be and bare_pickle.is_pickle(head if len(head) < HEAD else rest())


def _unpacked(head: bytes, name: str) -> str:
    """A compressed file: what it holds decides, where that can be seen cheaply."""
    openers: dict[bytes, Callable[[], Callable[..., bytes]]] = {
        b"\x1f\x8b": lambda: zlib.decompressobj(31).decompress,
        b"BZh": lambda: bz2.BZ2Decompressor().decompress,
        b"\xfd7zXZ": lambda: lzma.LZMADecompressor(memlimit=2**26).decompress,
    }
    for magic, opener in openers.items():
        if head.startswith(magic):
            try:
                inner = opener()(head, HEAD)
            except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
                return JUDGED
            if len(inner) < 16 or inner[257:262] == b"ustar":
                return JUDGED
            stem = name.rpartition(".")[0]
            told = no_model(inner, stem, functools.partial(bytes, inner))
            return f"packed: {told}" if told else JUDGED
    return JUDGED
