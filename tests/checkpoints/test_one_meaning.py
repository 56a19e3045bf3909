"""A file means here what it means to the library that defines its format, or is refused.

Each case is of a kind that `benchmarks/reader_differential.py` found or that was found by
reading PyTorch's loader: files it loads to other tensors than a plain reading suggests.
"""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import opening, pickle_objects, tensor, torch_reader
from tests.checkpoints import builders

ONES, TWOS = np.ones(4, np.float32), np.full(4, 2, np.float32)
OF_ONES = builders.tensor(builders.storage("0", 4), [4], [1])
OF_TWOS = builders.tensor(builders.storage("1", 4), [4], [1])
STORAGES = {"0": ONES.tobytes(), "1": TWOS.tobytes()}
ORDERED = builders.symbol("collections", "OrderedDict")
PARTS = builders.storage("0", 4) + builders.integer(0) + builders.numbers([4])
PARTS += builders.numbers([1])
HOOKS = b"\x89" + ORDERED + b")R"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return builders.symbol(module, name) + b"(" + b"".join(arguments) + b"tR"


def zipped(value: bytes, **more: bytes) -> bytes:
    body = builders.pickle(builders.dictionary({"w": value}))
    return builders.torch_zip(body, {**STORAGES, **more})


def root(data: bytes):
    return opening.of_bytes(memoryview(data)).root


def numbers(data: bytes) -> list[float]:
    """What lies under `w`, as float32."""
    found = root(data)["w"]
    return found.view().astype(np.float32).reshape(-1).tolist()


def refused(data: bytes, words: str) -> None:
    with pytest.raises(checkpoints.CheckpointError, match=words):
        root(data)


def not_read(data: bytes, words: str) -> None:
    """The tensor is there, and says why its numbers are not."""
    found = root(data)["w"]
    assert isinstance(found, tensor.Tensor)
    with pytest.raises(checkpoints.CheckpointError, match=words):
        found.view()


def test_the_plain_file_all_others_are_made_of():
    assert numbers(zipped(OF_ONES)) == [1, 1, 1, 1]


# Storages.


@pytest.mark.parametrize(
    "kinds", [("FloatStorage", "IntStorage"), ("X", "FloatStorage")]
)
def test_one_storage_of_two_dtypes_is_refused(kinds):
    pair = b"".join(
        builders.tensor(builders.storage("0", 4, kind), [4], [1]) for kind in kinds
    )
    refused(zipped(pair + b"\x86"), "described in two ways")


def test_a_storage_of_bytes_is_read_as_the_dtype_that_is_asked_for():
    stored = builders.symbol("torch.storage", "UntypedStorage")
    stored = builders.storage("0", 16).replace(b"ctorch\nFloatStorage\n", stored)
    four = stored + builders.integer(2) + builders.numbers([2]) + builders.numbers([1])
    made = call(
        "torch._utils", "_rebuild_tensor_v3", four, HOOKS,
        builders.symbol("torch", "uint16"),
    )  # fmt: skip
    assert numbers(zipped(made)) == ONES.view(np.uint16)[2:4].tolist()


def test_big_endian_elements_are_not_read_as_another_dtype():
    """PyTorch swaps the bytes of a storage by the dtype that the storage has."""
    made = call(
        "torch._utils", "_rebuild_tensor_v3", PARTS, HOOKS,
        builders.symbol("torch", "uint16"),
    )  # fmt: skip
    entries = [
        (name, b"big" if str(name).endswith("byteorder") else raw)
        for name, raw in entries_of(made)
    ]
    not_read(archive(entries), "big-endian float32, read as uint16")


@pytest.mark.parametrize("bit", ["neg", "conj", "new"])
@pytest.mark.parametrize("value", [b"\x88", b"\x89"])
def test_a_tensor_with_a_bit_set_is_not_read_as_if_it_had_none(bit, value):
    """PyTorch negates where the bit is named, even as False."""
    metadata = b"}" + builders.text(bit) + value + b"s"
    made = call("torch._utils", "_rebuild_tensor_v2", PARTS, HOOKS, metadata)
    not_read(zipped(made), f"bits '{bit}' set")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (call("torch._utils", "_rebuild_qtensor", PARTS, b")", HOOKS), "quantised"),
        (
            call(
                "torch._utils", "_rebuild_sparse_tensor", b"N",
                b"(NN" + builders.numbers([4]) + b"t",
            ),
            "sparse",
        ),
        (
            call(
                "torch._utils", "_rebuild_meta_tensor_no_storage", b"N",
                builders.numbers([4]), builders.numbers([1]), b"\x89",
            ),
            "on no device",
        ),
        (
            call(
                "torch._utils", "_rebuild_device_tensor_from_cpu_tensor", OF_ONES,
                builders.symbol("torch", "bfloat16"),
            ),
            "float32 kept for bfloat16",
        ),
        (
            builders.tensor(builders.storage("0", 4, "QInt8Storage"), [4], [1]),
            "in QInt8Storage",
        ),
        (
            call(
                "torch._tensor", "_rebuild_from_type_v2",
                builders.symbol("torch", "FloatTensor"),
                builders.symbol("torch", "Tensor"), b"](K\x01e\x85", b"}",
            ),
            "made by 'torch.FloatTensor'",
        ),
    ],
)  # fmt: skip
def test_tensors_that_are_not_read_keep_their_shape_and_say_what_they_are(made, words):
    not_read(zipped(made), words)
    assert root(zipped(made))["w"].shape in ((4,), ())


def test_a_tensor_of_another_device_is_read():
    made = call(
        "torch._utils", "_rebuild_device_tensor_from_cpu_tensor", OF_ONES,
        builders.symbol("torch", "float32"), builders.text("xla:0"), b"\x89",
    )  # fmt: skip
    assert numbers(zipped(made)) == [1, 1, 1, 1]


# Objects filled in after they were made.

DATA = b"}" + builders.text("data") + OF_TWOS + b"s"


@pytest.mark.parametrize(
    "made",
    [
        OF_ONES + b"(" + PARTS + b"tb",
        OF_ONES + b"(" + OF_TWOS + b"tb",
        OF_ONES + b"(" + OF_TWOS + b"\x89N\x89Ntb",
        OF_ONES + b"(" + OF_TWOS + b"\x89Ntb",
        OF_ONES + DATA + b"b",
        builders.storage("0", 4) + DATA + b"b",
    ],
)
def test_numbers_replaced_after_a_tensor_was_made_are_refused(made):
    refused(zipped(made), "changes a tensor after making it")


@pytest.mark.parametrize("state", [DATA, b"N" + DATA + b"\x86"])
@pytest.mark.parametrize("kind", ["parameter", "subclass"])
def test_numbers_replaced_by_an_attribute_are_refused(kind, state):
    if kind == "parameter":
        made = call(
            "torch._utils", "_rebuild_parameter_with_state", OF_ONES, HOOKS, state
        )
    else:
        made = call(
            "torch._tensor", "_rebuild_from_type_v2",
            builders.symbol("torch._utils", "_rebuild_tensor_v2"), b"N",
            b"(" + PARTS + HOOKS + b"t", state,
        )  # fmt: skip
    refused(zipped(made), "replaces the numbers of a tensor by one of its attributes")


def test_harmless_attributes_are_no_reason_to_refuse():
    state = b"}" + builders.text("tag") + b"K\x01s"
    made = call("torch._utils", "_rebuild_parameter_with_state", OF_ONES, HOOKS, state)
    assert numbers(zipped(made)) == [1, 1, 1, 1]
    old = OF_ONES + b"\x89\x89N\x87b"
    assert numbers(zipped(old)) == [1, 1, 1, 1]


def test_a_parameter_to_be_filled_in_is_refused():
    made = builders.symbol("torch.nn.parameter", "Parameter") + b")\x81"
    refused(zipped(made), "without data")


@pytest.mark.parametrize("name", ["FloatTensor", "Tensor"])
def test_new_tensors_of_a_list_are_refused(name):
    refused(zipped(call("torch", name, b"](K\x01K\x02e")), "which torch.save does not")


# Dicts.

PAIRS = b"](" + builders.text("k") + OF_ONES + b"\x86e"


@pytest.mark.parametrize(
    "made",
    [
        ORDERED + PAIRS + b"\x85R",
        ORDERED + b"(" + PAIRS[2:-1] + b"t\x85R",
        ORDERED + b"}" + builders.text("k") + OF_ONES + b"s\x85R",
        builders.symbol("collections", "Counter") + b"}" + builders.text("k") + OF_ONES
        + b"s\x85R",
        call("torch._tensor", "_rebuild_from_type_v2", ORDERED, ORDERED,
             PAIRS + b"\x85", b"}"),
        builders.symbol("UserList", "OrderedDict") + PAIRS + b"\x85R",
    ],
)  # fmt: skip
def test_every_way_to_make_a_dict_of_tensors_is_read(made):
    assert list(root(zipped(made))["w"]) == ["k"]


def test_an_ordered_dict_made_without_its_constructor_is_empty():
    assert root(zipped(ORDERED + PAIRS + b"\x85\x81"))["w"] == {}


@pytest.mark.parametrize("made", [b"]K\x07a", b"K\x07", b"](](K\x01ee"])
def test_a_dict_of_anything_else_is_refused(made):
    refused(zipped(ORDERED + made + b"\x85R"), "makes a dict of")


@pytest.mark.parametrize("key", [b"K\x01", b"\x88", b"G" + struct.pack(">d", 1.0)])
def test_numbers_that_are_equal_are_one_key(key):
    made = b"}K\x01" + OF_ONES + b"s" + key + OF_TWOS + b"s"
    found = root(zipped(made))["w"]
    assert list(found) == [1] and found[1].view()[0] == 2


def test_a_complex_key_is_refused():
    key = call("builtins", "complex", b"K\x01")
    refused(zipped(b"}" + key + OF_ONES + b"s"), "complex number is the key")


def test_a_text_spelled_by_a_codec_is_refused():
    made = call("_codecs", "encode", builders.text("pbai1"), builders.text("rot13"))
    refused(zipped(b"}" + made + OF_ONES + b"s"), "encodes a text as 'rot13'")


def test_text_of_python_2_is_decoded_as_pytorch_does():
    assert list(root(zipped(b"}U\x02\xc3\xa9Ns"))["w"]) == ["é"]
    assert list(root(zipped(b"}U\x01\xe9Ns"))["w"]) == ["é"]


def test_a_dict_with_a_method_of_its_own_is_refused():
    made = b"}}" + builders.text("items") + b"Nsb"
    refused(zipped(made), "replaces a method of a dict")
    assert root(zipped(b"}}" + builders.text("_metadata") + b"Nsb"))["w"] == {}


# Zip archives.


def archive(entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, raw in entries:
            out.writestr(name, raw)
    return file.getvalue()


def entries_of(value: bytes) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(io.BytesIO(zipped(value))) as made:
        return [(name, made.read(name)) for name in made.namelist()]


@pytest.mark.parametrize("name", ["archive/DATA/0", "Archive/data.pkl"])
def test_names_that_differ_in_case_alone_are_refused(name):
    data = archive([*entries_of(OF_ONES), (name, TWOS.tobytes())])
    refused(data, "differ in case alone")


def test_a_byte_order_in_other_letters_counts():
    entries = [
        (str(name).replace("byteorder", "ByteOrder"), b"big" if len(raw) == 6 else raw)
        for name, raw in entries_of(OF_ONES)
    ]
    swapped = np.frombuffer(ONES.tobytes(), ">f4").astype(np.float32).tolist()
    assert numbers(archive(entries)) == swapped


@pytest.mark.parametrize("attribute", [0, 0x10])
def test_a_folder_with_bytes_in_it_is_refused(attribute):
    """PyTorch's reader leaves the storage of such an entry as it found the memory."""
    entry = zipfile.ZipInfo("archive/data/" + ("0" if attribute else ""))
    entry.external_attr = attribute
    entries = [e for e in entries_of(OF_ONES) if e[0] != "archive/data/0"]
    refused(archive([*entries, (entry, ONES.tobytes())]), "is a folder that holds 16")


def test_bytes_before_the_archive_are_refused():
    data = b"PK\3\4" + bytes(60) + archive([*entries_of(OF_ONES)])
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.namelist()  # Python's reader does not mind
    refused(data, "directory should lie at|starts at byte")


@pytest.mark.parametrize("extra", [
    struct.pack("<HHBL", 0x7075, 11, 1, 0) + b"w2.npy",
    struct.pack("<HHQ", 1, 8, 0) * 2,
])  # fmt: skip
def test_a_second_name_or_size_of_an_entry_is_refused(extra):
    entry = zipfile.ZipInfo("w.npy")
    entry.extra = extra
    refused(archive([(entry, b"")]), "a second name or two sets of sizes")


def test_a_wrong_checksum_in_a_pytorch_file_is_a_note(tmp_path):
    state = builders.state_dict()
    data = bytearray(builders.torch_file(state))
    raw = state["linear.weight"].tobytes()
    data[data.index(raw)] ^= 1
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    read = checkpoints.read(path)
    assert any("1 storages have another checksum" in note for note in read.notes)
    path.write_bytes(builders.torch_file(state))
    assert not any("checksum" in note for note in checkpoints.read(path).notes)


# Legacy files.


def legacy(
    value: bytes,
    *,
    magic: int = torch_reader._MAGIC,
    little: bytes = b"\x88",
    keys: tuple[str, ...] = ("0", "1"),
) -> bytes:
    system = b"}" + builders.text("little_endian") + little + b"s"
    listed = b"](" + b"".join(map(builders.text, keys)) + b"e"
    parts = (
        b"\x8a\x0a" + magic.to_bytes(10, "little"), b"M\xe9\x03", system,
        builders.dictionary({"w": value}), listed,
    )  # fmt: skip
    data = b"".join(map(builders.pickle, parts))
    for key in keys:
        data += struct.pack("<q", 4) + STORAGES[key]
    return data


def part(key: str, name: str, first: int, count: int) -> bytes:
    """A tensor over elements `[first, first + count)` of a storage."""
    view = (
        b"(" + builders.text(name) + builders.integer(first) + builders.integer(count)
    )
    stored = builders.storage(key, 4)[:-2] + view + b"ttQ"
    return builders.tensor(stored, [count], [1])


ALL = b"(" + OF_ONES + OF_TWOS + b"t"


def test_the_plain_legacy_file_all_others_are_made_of():
    found = root(legacy(ALL))["w"]
    assert [value.view()[0] for value in found] == [1, 2]
    assert (
        root(legacy(b"(" + ALL + part("1", "v", 1, 2) + b"t"))["w"][1].view().size == 2
    )


@pytest.mark.parametrize(
    "other",
    [part("0", "v", 1, 2), part("0", "v", 0, 3), part("1", "v", 0, 2)],
)
def test_one_view_of_two_extents_is_refused(other):
    refused(legacy(b"(" + ALL + part("0", "v", 0, 2) + other + b"t"), "in two ways")


@pytest.mark.parametrize("first", [True, False])
def test_a_view_named_like_a_storage_is_refused(first):
    view = part("0", "1", 0, 2)
    refused(legacy(b"(" + (view + ALL if first else ALL + view) + b"t"), "in two ways")


def test_a_legacy_file_is_little_endian_whatever_its_system_says():
    assert root(legacy(ALL, little=b"\x89"))["w"][0].view()[0] == 1


def test_another_magic_number_is_refused():
    # The right number lies near the start, but is not the first object.
    data = legacy(ALL, magic=1)
    real = b"\x8a\x0a" + torch_reader._MAGIC.to_bytes(10, "little")
    refused(b"\x80\x02" + real + b"0" + data[2:], "magic number and protocol")


def test_a_file_that_is_a_tar_archive_and_a_pickle_is_refused():
    """torch.load asks for the archive first."""
    room = builders.text("\0" * 500)  # the header's other fields lie in a text
    data = bytearray(legacy(b"(" + room + ALL + b"t"))
    assert len(root(bytes(data))["w"]) == 2
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    refused(bytes(data), "a tar archive")


# Other formats.


def test_npz_checksums_are_checked():
    file = io.BytesIO()
    np.savez(file, w=ONES)
    data = bytearray(file.getvalue())
    data[data.index(ONES.tobytes())] ^= 1
    with pytest.raises(zipfile.BadZipFile), np.load(io.BytesIO(data)) as loaded:
        loaded["w"]
    refused(bytes(data), "another checksum")


def npy(descr: str = "<f4", shape: str = "(4,)", version: int = 1) -> bytes:
    header = (
        f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    )
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + ONES.tobytes()


def test_one_array_of_an_npz_that_numpy_finds_under_two_names_is_refused():
    both = archive([("a.npy", npy()), ("a.npy.npy", npy())])
    refused(both, "reads in two ways")
    assert list(root(archive([("a.npy", npy()), ("b.npy", npy())]))) == ["a", "b"]


def test_a_name_that_numpy_decodes_otherwise_is_refused():
    data = archive([("aa.npy", npy())]).replace(b"aa.npy", "é.npy".encode())
    refused(data, "reads in two ways")
    assert list(root(archive([("é.npy", npy())]))) == ["é"]


@pytest.mark.parametrize("array", [npy("2f4", "(2,)"), npy(version=4), npy("xf4")])
def test_array_headers_that_numpy_reads_otherwise_are_refused(array):
    with pytest.raises(checkpoints.CheckpointError):
        root(archive([("w.npy", array)]))


def msgpack_array(kind: int) -> bytes:
    body = b"\x93\x91\x04\xa7float32\xc4\x10" + ONES.tobytes()
    return b"\xc7" + bytes([len(body), kind]) + body


@pytest.mark.parametrize("kind", [1, 3])
def test_a_scalar_of_flax_that_is_a_whole_array_is_read(kind):
    assert numbers(b"\x81\xa1w" + msgpack_array(kind)) == [1, 1, 1, 1]


def test_an_array_in_chunks_is_refused():
    name = b"\x81\xb9__msgpack_chunked_array__\xc3"
    assert len(name) == 28
    refused(b"\x81\xa1w" + name, "in chunks")


@pytest.mark.parametrize("key", [b"\xc4\x01w", b"\x01", b"\xc0"])
def test_a_msgpack_key_that_is_no_text_is_refused(key):
    refused(b"\x82\xa1a\xc0" + key + b"\xc0", "is no text or occurs twice")


def test_eight_bit_floats_are_refused_by_name(tmp_path):
    state = builders.state_dict()
    index = list(state).index("linear.bias")
    made = call(
        "torch._utils", "_rebuild_tensor_v3",
        builders.storage(str(index), 5, "UntypedStorage").replace(
            b"ctorch\n", b"ctorch.storage\n"
        ) + builders.integer(0) + builders.numbers([5]) + builders.numbers([1]),
        HOOKS, builders.symbol("torch", "float8_e4m3fn"),
    )  # fmt: skip
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state, {"linear.bias": made}))
    with pytest.raises(
        checkpoints.CheckpointError, match=r"linear\.bias.*float8_e4m3fn"
    ):
        checkpoints.read(path)


def test_quantised_weights_are_refused_by_name(tmp_path):
    state = builders.state_dict()
    index = str(list(state).index("linear.bias"))
    stored = builders.storage(index, 5, "QInt8Storage")
    four = stored + b"K\x00" + builders.numbers([5]) + builders.numbers([1])
    made = call("torch._utils", "_rebuild_qtensor", four, b")", HOOKS)
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state, {"linear.bias": made}))
    with pytest.raises(checkpoints.CheckpointError, match=r"linear\.bias.*quantised"):
        checkpoints.read(path)


# What is not read says so.


def test_what_is_given_to_an_unknown_constructor_is_named(tmp_path):
    made = call("mylib", "Quantised", OF_ONES)
    content = opening.of_bytes(memoryview(zipped(made)))
    assert content.calls == ("mylib.Quantised",)
    assert content.notes == (
        "tensors were given to what is not read: 'mylib.Quantised'",
    )
    path = tmp_path / "model.pt"
    path.write_bytes(zipped(made))
    with pytest.raises(checkpoints.CheckpointError, match=r"mylib\.Quantised"):
        checkpoints.read(path)


def test_the_code_of_a_graph_module_is_told_of_and_its_weights_are_read():
    body = (
        b"}"
        + builders.text("_parameters")
        + b"}"
        + builders.text("w")
        + OF_ONES
        + b"ss"
    )
    made = call(
        "torch.fx.graph_module", "reduce_graph_module", body, builders.text("x")
    )
    content = opening.of_bytes(memoryview(zipped(made)))
    assert content.calls == ("torch.fx.graph_module.reduce_graph_module",)
    assert isinstance(content.root["w"], pickle_objects.Placeholder)
    assert list(content.root["w"].state["_parameters"]) == ["w"]


def test_a_deflated_entry_is_checked_after_it_was_inflated():
    file = io.BytesIO()
    np.savez_compressed(file, w=ONES)
    data = bytearray(file.getvalue())
    crc = struct.pack("<L", zlib.crc32(npy_of(file)))
    at = data.index(b"PK\1\2") + 16
    assert data[at : at + 4] == crc
    data[at] ^= 1
    refused(bytes(data), "another checksum")


def npy_of(file: io.BytesIO) -> bytes:
    with zipfile.ZipFile(file) as opened:
        return opened.read("w.npy")
