"""What a file is by its bytes: something to be judged, or recognisably no model.

Only what is positively something else, all of it, is passed over. What is packed, of
another framework or named like a model without being one that can be read is given to the
reader, whose error then says why it is not judged.
"""

import re
import sys
from collections.abc import Callable

from ban_jax.checkpoints import (
    file_end,
    flax_reader,
    media,
    npy_header,
    pickle_walk,
    safetensors_reader,
    tar_reader,
    texts,
    unpacking,
)

HEAD = 1024
"""Bytes that are looked at first."""
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
    *(".ort", ".mnn", ".trt", ".plan", ".uff", ".dlc", ".rknn", ".om", ".pdiparams"),
    *(".index", ".meta"),
)
"""Names of models too: what these hold is given to the reader unless all is text."""
_OF_TENSORFLOW = re.compile(r".*\.data-\d+-of-\d+")
_PACKED = (
    *(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
)
_FRAMEWORKS = (b"\x89HDF", b"GGUF")
_PICKLED = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")

TEXT = "text"
JUDGED = ""
"""What `no_model` says of a file that is to be judged."""


def no_model(
    head: bytes,
    name: str,
    whole: Callable[[], pickle_walk.Read],
) -> str:
    """What a file is that is no model, in a few words; `JUDGED` where it may be one.

    Args:
      head: its first `HEAD` bytes, all of them where it has no more.
      name: its name, without folders.
      whole: gives a way to read all of it, each time from its start.
    """
    lower = name.lower()
    if lower.endswith(MODEL_SUFFIXES) and not name.startswith("."):
        return JUDGED
    if head.startswith(_PACKED) and not _is_pickle(head, whole, strict=True):
        return _unpacked(head, lower, whole)
    return _told(head, lower, whole)


def _told(head: bytes, lower: str, whole: Callable[[], pickle_walk.Read]) -> str:
    if not head:
        return "an empty file"
    if _is_checkpoint(head) or tar_reader.begins(head):
        return JUDGED
    other = other_kind(head, whole)
    if _is_pickle(head, whole, strict=bool(other)):
        return JUDGED
    if head.startswith(npy_header.MAGIC):
        return _of_array(head, whole)
    if head.startswith(_PACKED + _FRAMEWORKS):
        return JUDGED
    if _is_named(lower):
        is_text = other == TEXT and texts.is_looked_through(whole())
        return TEXT if is_text else JUDGED
    return other or "of no known format"


def is_read_by_loaders(head: bytes, whole: Callable[[], pickle_walk.Read]) -> bool:
    """Whether bytes begin as what a loader of models or arrays reads.

    Args:
      head: the first `HEAD` bytes.
      whole: gives a way to read all of it, each time from its start.
    """
    is_one = _is_checkpoint(head) or head.startswith((npy_header.MAGIC, *_FRAMEWORKS))
    return is_one or tar_reader.begins(head) or _is_pickle(head, whole, strict=True)


def _is_named(lower: str) -> bool:
    """Whether a name is one of a model's, whatever the file begins like."""
    named = lower.endswith(MODEL_SUFFIXES + OTHER_MODEL_SUFFIXES)
    return named or bool(_OF_TENSORFLOW.fullmatch(lower))


def _is_checkpoint(head: bytes) -> bool:
    data = memoryview(head)
    return (
        head.startswith((b"PK\3\4", b"PK\5\6", *_PICKLED))
        or safetensors_reader.looks_like(data)
        or head[4:8] == b"TFL3"
        or _is_msgpack(data)
    )


def _of_array(head: bytes, whole: Callable[[], pickle_walk.Read]) -> str:
    """A single array of numbers.

    What holds objects, or may, is for the reader, and what may be weights in a row, or has
    something behind it: Equinox saves networks as one array behind the other.
    """
    header = npy_header.read(head)
    if header.descr is None and header.start > len(head):
        try:
            header = npy_header.read(bytes(whole()(0, npy_header.MOST)))
        except unpacking.DAMAGE:
            return JUDGED
    if not npy_header.holds_numbers(header.descr) or npy_header.is_row(header):
        return JUDGED
    return JUDGED if _goes_on(whole(), header.end) else "a single array"


def _goes_on(read: pickle_walk.Read, end: int) -> bool:
    """Whether a file does not end where it should."""
    try:
        return file_end.goes_on(read, end)
    except (pickle_walk.Beyond, *unpacking.DAMAGE):
        return True


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


def other_kind(head: bytes, whole: Callable[[], pickle_walk.Read]) -> str:
    """What a file is, all of it, that is none of a model; `TEXT` is one.

    Args:
      head: its first `HEAD` bytes.
      whole: gives a way to read all of it, each time from its start.
    """
    if told := media.of(head, whole):
        return told
    if not begins_as_text(head):
        return ""
    try:
        return TEXT if len(head) < HEAD or texts.is_text(whole()) else ""
    except (pickle_walk.Beyond, *unpacking.DAMAGE):
        return ""


def begins_as_text(head: bytes) -> bool:
    """Whether the first `HEAD` bytes of a file are text, whatever follows them."""
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


def _is_pickle(
    head: bytes, whole: Callable[[], pickle_walk.Read], strict: bool
) -> bool:
    """Whether `pickle.load` would make something of it, whatever else it looks like."""
    if not pickle_walk.may_begin(head):
        return False
    size = len(head) if len(head) < HEAD else sys.maxsize
    start = pickle_walk.walk(pickle_walk.reading(head, size), until_call=True)
    if not start.cut or start.called:
        return start.is_pickle(strict)
    try:
        return pickle_walk.walk(whole(), until_call=True).is_pickle(strict)
    except unpacking.DAMAGE:
        return True  # cut off or too large: it is for the reader to say so


def _unpacked(head: bytes, name: str, whole: Callable[[], pickle_walk.Read]) -> str:
    """A compressed file: what it holds decides, where that can be seen."""
    if not unpacking.is_known(head):
        return JUDGED
    try:
        inner = unpacking.Inner(whole()).read(0, HEAD)
    except unpacking.DAMAGE:
        return JUDGED
    stem = name.rpartition(".")[0]
    if len(inner) < 16 or stem.endswith(MODEL_SUFFIXES):
        return JUDGED
    told = _told(inner, stem, lambda: unpacking.Inner(whole(), texts.PACKED).read)
    return f"packed: {told}" if told else JUDGED
