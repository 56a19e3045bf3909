"""The bytes of a file -> what lies in it, by the format that its content shows."""

import re
import struct
import zlib

from ban_jax.checkpoints import (
    bare_pickle,
    contents,
    errors,
    file_bytes,
    flax_reader,
    limits,
    media,
    npy_header,
    packed,
    pickle_walk,
    safetensors_reader,
    sniffing,
    tar_reader,
    torch_reader,
    unknown,
    unpacking,
    zip_container,
)

DAMAGE = (
    ArithmeticError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What malformed content can make the readers raise besides `CheckpointError`."""
_FOREIGN = (
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"\x1f\x9d", "a file of compress: unpack it first"),
    (b"\4\x22\x4d\x18", "an lz4 file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ", "an xz file: unpack it first"),
    (b"]\0\0", "an lzma file: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"\x89HDF", "an HDF5 (Keras) file"),
    (b"GGUF", "a GGUF file"),
    (b"!<arch>\n", "an ar archive: unpack it first"),
)
_TEXTS = (
    (b"<!doctypehtml", "a web page: the download failed"),
    (b"<html", "a web page: the download failed"),
    (b"<?xml", "an XML text: the download may have failed"),
    (b'{"', "a JSON text, no checkpoint: the download may have failed"),
    (b"versionhttps://git-lfs", "a Git LFS pointer: the file itself was not fetched"),
)
"""How texts begin, in small letters and without blanks."""
_ZLIB = re.compile(rb"x[\x01^\x9c\xda]")
_ONNX = re.compile(rb"\x08[\1-\x20](\x12[\1-\x40][ -~]+[:\x1aB]|:)")
"""A version, who wrote it, and a further field or the graph itself."""
_BESIDE = re.compile(
    r"byteorder|version|(constants|attributes|bytecode|traced_inputs)\.pkl"
    r"|code/.*\.debug_pkl"
)
"""Entries of PyTorch files and TorchScript archives that hold no object of the user's."""
_CONSTANT = re.compile(r"constants/\d+")
_TAR = "a tar archive of other files: unpack it first"
_JOBLIB = b"joblib.numpy_pickle"
_OLD = "a PyTorch file from before 2017"
_BARE = "a bare pickle without PyTorch's header"
_BOTH = (
    "a file of two formats: it can be unpickled, too, and is then another thing than "
    "what would be judged here"
)
_KNOWN = "PyTorch, safetensors, Flax msgpack, npz or an Orbax folder"


def of_bytes(data: file_bytes.Data) -> contents.Contents:
    """Reads a file of any known format.

    Raises:
      CheckpointError: for another format, and for damage; what else malformed content can
        raise is `DAMAGE`.
    """
    try:
        return _of_bytes(data)
    except errors.CheckpointError as error:
        with errors.telling(_calls_of(data)):
            raise error
    except DAMAGE as error:
        calls = _calls_of(data)
        if not calls:
            raise
        told = f"damaged: {type(error).__name__}: {errors.show(str(error), 300)}"
        raise errors.CheckpointError(told, calls=calls) from error


def _check_no_pickle(data: file_bytes.Data) -> None:
    """Raises a CheckpointError for what is of another format and a pickle besides."""
    if pickle_walk.may_begin(bytes(data[:1])):
        if pickle_walk.walk(pickle_walk.reading(data)).is_pickle(strict=True):
            raise errors.CheckpointError(_BOTH)


def _calls_of(data: file_bytes.Data) -> tuple[str, ...]:
    """What `pickle.load` would be asked to call, of packed bytes what it would be then."""
    start = bytes(data[:8])
    try:
        if unpacking.is_known(start):
            return pickle_walk.calls(unpacking.Inner(data).read)
        if pickle_walk.may_begin(start) and not zip_container.is_zip(data):
            return pickle_walk.calls(pickle_walk.reading(data))
    except unpacking.DAMAGE:
        pass
    return ()


def _of_bytes(data: file_bytes.Data) -> contents.Contents:
    size = len(data)
    if zip_container.is_zip(data):  # which no unpickler gets past the first byte of
        archive = zip_container.Archive(data, limits.objects(size))
        if flax_reader.is_npz(archive):
            return contents.Contents(flax_reader.read_npz(archive), {}, size, True)
        told = torch_reader.script(archive)
        beside = _calls_beside(archive)
        with errors.telling(beside):
            read = torch_reader.zip_pickle(archive)
            _check_alone(archive, read.used)
        read = read._replace(calls=tuple(dict.fromkeys((*read.calls, *beside))))
        return _pickled(read, size, (told,) if told else ())
    # Before anything else: torch.load asks for a tar archive before it looks for a
    # pickle, and a file can be both.
    if tar_reader.begins(bytes(data[:512])):
        found = tar_reader.members(data)
        if all(name in found for name in tar_reader.MEMBERS):
            _check_no_pickle(data)
            tar_reader.check_alone(data, found)
            return _pickled(tar_reader.read(data, found), size, (_OLD,))
        raise errors.CheckpointError(f"{_TAR}; expected {_KNOWN}")
    if torch_reader.is_legacy(data):
        return _pickled(torch_reader.legacy_pickle(data), size)
    if safetensors_reader.looks_like(data):
        _check_no_pickle(data)
        tensors, metadata = safetensors_reader.read(data)
        return contents.Contents(tensors, metadata, size)
    if flax_reader.looks_like_msgpack(data):
        _check_no_pickle(data)
        return contents.Contents(flax_reader.read_msgpack(data), {}, size)
    if bare_pickle.is_pickle(data):
        if _JOBLIB in bytes(data[: sniffing.HEAD]):
            raise errors.CheckpointError(
                "a joblib file, whose arrays lie between the operations of its pickle: "
                "where it is trusted, load it and save them with numpy.savez"
            )
        return _pickled(bare_pickle.read(data), size, (_BARE,))
    calls = flax_reader.object_calls(data)
    raise errors.CheckpointError(f"{_foreign(data)}; expected {_KNOWN}", calls=calls)


def _check_alone(archive: zip_container.Archive, used: frozenset[str]) -> None:
    """Refuses a PyTorch file that is an archive of other models, too.

    Args:
      archive: the file.
      used: its pickle, and the storages that this names.

    Raises:
      CheckpointError: naming the entries that are not judged and may hold weights.
    """
    odd = [
        name
        for name in archive.entries
        if name not in used
        and not _is_of_script(archive, name)
        and _may_hold(archive, name)
    ]
    if odd:
        raise errors.CheckpointError(
            f"a PyTorch file with entries that are not part of its object and may hold "
            f"weights: {errors.listing([errors.show(name) for name in odd], 20)}; they "
            "are not judged: unpack it first"
        )


def _is_of_script(archive: zip_container.Archive, name: str) -> bool:
    """Whether PyTorch wrote the entry beside the object; constants are told of."""
    folder, _, inside = name.partition("/")
    is_constant = _CONSTANT.fullmatch(inside) and archive.has(f"{folder}/constants.pkl")
    entry = archive.entries[name]
    is_zip = bytes(archive.data[entry.start : entry.start + 2]) == b"PK"
    return bool(_BESIDE.fullmatch(inside) or is_constant) and not is_zip


def _may_hold(archive: zip_container.Archive, name: str) -> bool:
    told = packed.told_of(archive, name)
    return not told or told.endswith("a single array")


def _calls_beside(archive: zip_container.Archive) -> tuple[str, ...]:
    """What the pickles of an archive ask for besides the one that is loaded."""
    found: dict[str, None] = {}
    for name, entry in archive.entries.items():
        if name.endswith(".pkl") and not name.endswith("data.pkl"):
            packed = archive.data[entry.start : entry.start + entry.packed]
            found.update(dict.fromkeys(bare_pickle.calls(packed)))
    return tuple(found)


def _pickled(
    read: torch_reader.Pickled | bare_pickle.Read,
    size: int,
    notes: tuple[str, ...] = (),
) -> contents.Contents:
    if read.unread:
        names = [errors.show(name) for name in read.unread]
        notes = (
            *notes,
            f"tensors were given to what is not read: {errors.listing(names, 20)}",
        )
    return contents.Contents(read.root, {}, size, calls=read.calls, notes=notes)


def _of_arrays(data: file_bytes.Data) -> str:
    """What a file of NumPy's arrays is, with or without a line of text before them."""
    if data[:6] == npy_header.MAGIC:
        header = npy_header.read(data[: npy_header.MOST])
        if not npy_header.holds_numbers(header.descr) or len(data) <= header.end:
            return "a single NumPy array"
    return (
        "NumPy arrays without names, one behind the other, as Equinox saves networks: save "
        "them by name with numpy.savez"
    )


def _begins_like(start: bytes) -> str:
    """What only the first bytes of a file are like."""
    if sniffing.begins_as_text(start):
        return "a text"
    return media.kind(start).removeprefix("no model: ")


def _foreign(data: file_bytes.Data) -> str:
    start = bytes(data[: sniffing.HEAD])
    if not start:
        return "an empty file"
    words = b"".join(start.removeprefix(b"\xef\xbb\xbf").lower().split())
    for begins, known in ((start, _FOREIGN), (words, _TEXTS)):
        for magic, meaning in known:
            if begins.startswith(magic):
                return meaning
        if npy_header.MAGIC in start:
            return _of_arrays(data)
    found = unknown.behind(lambda at, count: bytes(data[at : at + count]), len(data))
    if found:
        return found
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    if _ONNX.match(start):
        return "an ONNX file"

    def whole() -> pickle_walk.Read:
        return pickle_walk.reading(data)

    told = sniffing.other_kind(start, whole)
    if told == sniffing.TEXT:
        return "a text, no checkpoint: the download may have failed"
    if _ZLIB.match(start):
        return "a zlib stream: unpack it first"
    if told or (told := unknown.companion(start, whole)):
        return f"not a checkpoint: {told.removeprefix('no model: ')}"
    if told := _begins_like(start):
        return f"not a checkpoint: it begins like {told} and does not go on as one"
    if not any(start):
        return f"not a checkpoint: its first {len(start):,} bytes are zeros"
    return f"not a checkpoint: it starts with {errors.show(start[:16])}"
