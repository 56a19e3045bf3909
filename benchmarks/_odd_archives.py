"""Files around odd pickles and arrays: zip, legacy, safetensors, npz, msgpack.

Each function takes a generator and how likely each oddity is, and returns the bytes of a
file. Most are what the format's own library writes but for one thing or two.
"""

import json
import random
import struct
import zlib

from benchmarks import _odd_pickles

MAGIC = 0x1950A86A20F9469CFC6C


def torch_zip(rng: random.Random, odd: float) -> bytes:
    pickle = _odd_pickles.Pickle(rng, odd)
    data = pickle.whole()
    folder = rng.choice(["archive", "model", "A"])
    entries = [("data.pkl", data)]
    if rng.random() < 0.8:
        order = b"big" if rng.random() < 0.1 else b"little"
        entries.append(("byteorder", order))
    for key, (kind, count) in pickle.storages.items():
        size = count * _odd_pickles.STORAGES.get(kind, 1)
        if rng.random() < odd * 0.5:
            size = max(0, size + rng.choice([-1, 1, 8]))
        entries.append((f"data/{key}", rng.randbytes(size)))
    entries.append(("version", b"3\n"))
    if rng.random() < odd * 0.3:
        entries.append(("constants.pkl", b"\x80\x02)."))
    return zipped(rng, odd, [(f"{folder}/{name}", raw) for name, raw in entries])


def zipped(rng: random.Random, odd: float, entries: list[tuple[str, bytes]]) -> bytes:
    """A zip archive of `(name, content)`, written by hand, with a few things askew."""

    def oddly(share: float = 1.0) -> bool:
        return rng.random() < odd * share

    entries = list(entries)
    if oddly(0.5):
        rng.shuffle(entries)
    if oddly() and entries:
        name, raw = rng.choice(entries)
        twin = rng.choice([name, name.swapcase(), name.upper(), name + "\0x"])
        changed = rng.randbytes(len(raw)) if name.rsplit("/", 1)[-1].isdigit() else raw
        entries.insert(rng.randrange(len(entries) + 1), (twin, changed))
    if oddly() and entries:
        at = rng.randrange(len(entries))
        entries[at] = entries[at][0].swapcase(), entries[at][1]
    out = bytearray(rng.randbytes(rng.randrange(1, 40)) if oddly(0.5) else b"")
    base = rng.choice([0, len(out)])
    central = bytearray()
    align, descriptors = rng.random() < 0.5, rng.random() < 0.3
    for name, raw in entries:
        packed, method = raw, 0
        if oddly(0.3):
            packed, method = zlib.compress(raw, wbits=-15), 8
        crc = zlib.crc32(raw)
        if oddly(0.5):
            crc ^= 1
        flags = 0x8 if descriptors else 0
        raw_name = name.encode("utf-8", "surrogatepass")
        inside = raw_name
        if oddly(0.2):
            inside = b"x" * len(raw_name)
        start = len(out) - (len(out) - base if oddly(0.1) else 0)
        extra = b""
        if align:
            pad = -(len(out) + 34 + len(raw_name)) % 64
            extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        local_sizes = (0, 0, 0) if descriptors else (crc, len(packed), len(raw))
        out += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0, *local_sizes,
            len(inside), len(extra),
        ) + inside + extra + packed  # fmt: skip
        if descriptors:
            out += struct.pack("<4s3L", b"PK\7\x08", crc, len(packed), len(raw))
        if oddly(0.1):
            out += rng.randbytes(5)
        sizes, offset, more = (len(packed), len(raw)), start, b""
        if oddly(0.5):
            more = struct.pack("<HHQQQ", 1, 24, len(raw), len(packed), start)
            sizes, offset = (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF
            if oddly(2):
                more += struct.pack("<HHQQQ", 1, 24, len(raw), len(packed), 0)
        if oddly(0.2):
            other = raw_name.upper()
            field = b"\1" + struct.pack("<L", zlib.crc32(raw_name)) + other
            more += struct.pack("<HH", 0x7075, len(field)) + field
        if oddly(0.1):
            sizes = sizes[0], (sizes[1] + rng.choice([-1, 1])) & 0xFFFFFFFF
        central += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, flags, method, 0, 0, crc, *sizes,
            len(raw_name), len(more), 0, 0, 0, 0x10 if oddly(0.2) else 0, offset,
        ) + raw_name + more  # fmt: skip
    begin = len(out) - (0 if base == 0 or oddly() else base)
    out += central
    count = len(entries)
    if oddly(0.5):
        end64 = len(out)
        out += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), begin
        )
        out += struct.pack("<4sLQL", b"PK\6\7", 0, end64, 1)
        if oddly(5):
            count, begin = 0xFFFF, 0xFFFFFFFF
    comment = rng.choice([b"", b"hello", b"PK\5\6"]) if oddly(0.5) else b""
    out += struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(central), begin, len(comment)
    )
    return bytes(out + comment + (b"tail" if oddly(0.1) else b""))


def legacy(rng: random.Random, odd: float) -> bytes:
    pickle = _odd_pickles.Pickle(rng, odd, legacy=True)
    root = pickle.whole()
    keys = list(pickle.storages)
    if rng.random() < odd:
        keys.append(rng.choice([*keys, *(view[0] for view in pickle.views), "none"]))
    if rng.random() < odd and keys:
        keys.remove(rng.choice(keys))
    rng.shuffle(keys)
    little = b"\x89" if rng.random() < odd else b"\x88"
    system = b"\x80\x02}(" + _odd_pickles.text("protocol_version") + b"M\xe9\x03"
    system += _odd_pickles.text("little_endian") + little + b"u."
    out = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b".\x80\x02M\xe9\x03."
    out += system + root
    out += b"\x80\x02](" + b"".join(map(_odd_pickles.text, keys)) + b"e."
    for key in keys:
        kind, count = pickle.storages.get(key, ("FloatStorage", 4))
        announced = count + (rng.choice([-1, 1]) if rng.random() < odd * 0.3 else 0)
        size = count * _odd_pickles.STORAGES.get(kind, 1)
        out += struct.pack("<q", announced) + rng.randbytes(size)
    return out + (rng.randbytes(5) if rng.random() < odd else b"")


_SAFE = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "U8": 1, "BOOL": 1}
_SAFE |= {"U16": 2, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8, "F4": 1, "X": 1}


def safetensors(rng: random.Random, odd: float) -> bytes:
    def oddly(share: float = 1.0) -> bool:
        return rng.random() < odd * share

    entries, position = [], 0
    for index in range(rng.randrange(1, 6)):
        dtype = rng.choice(list(_SAFE)[:8]) if not oddly() else rng.choice(list(_SAFE))
        shape = rng.choice([[], [2], [2, 3], [0], [1, 1, 4], [0, 2**40]])
        size = _SAFE[dtype]
        for one in shape:
            size *= one
        start, end = position, position + size
        position = end
        if oddly(0.3):
            start += rng.choice([-1, 1])
        if oddly(0.3):
            end += rng.choice([-1, 1])
            position = max(position, end)
        name = f'"{rng.choice(_odd_pickles.NAMES)}{index}"'
        if oddly():
            name = rng.choice(['"\\u0061"', '"a"', '"\\ud800"', '""', '"é"'])
        numbers = [str(start), str(end)]
        if oddly(0.3):
            numbers[1] += rng.choice([".0", "e0", "0"])
        body = f'"dtype":"{dtype}","shape":{json.dumps(shape)}'
        body += f',"data_offsets":[{",".join(numbers)}]'
        if oddly(0.5):
            body += rng.choice([',"extra":1', f',"dtype":"{dtype}"', ',"dtype":"I8"'])
        entries.append(f"{name}:{{{body}}}")
    rng.shuffle(entries)
    if rng.random() < 0.3:
        told = rng.choice(['{"format":"pt"}', '{"a":"b","a":"c"}', '{"a":1}', "null"])
        entries.insert(0, f'"__metadata__":{told if oddly(5) else "{}"}')
    header = "{" + ",".join(entries) + "}"
    raw = header.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8 if not oddly() else rng.randrange(5))
    if oddly(0.3):
        raw = rng.choice([b" ", b"\xef\xbb\xbf"]) + raw
    announced = len(raw) + (rng.choice([-1, 1]) if oddly(0.2) else 0)
    tail = rng.choice([-1, 1, 4]) if oddly(0.3) else 0
    content = rng.randbytes(max(0, min(position, 4096) + tail))
    return struct.pack("<Q", announced) + raw + content


def npz(rng: random.Random, odd: float) -> bytes:
    codes = ["<f4", ">f4", "<f8", "<f2", "<i8", "|u1", "|b1", "<c8", "=f4", "|O", "f4"]
    codes += ["2f4", "<U2", "V4", "float32", "<m8", "|f4"]
    entries = []
    for index in range(rng.randrange(1, 4)):
        descr = rng.choice(codes) if rng.random() < odd * 3 else rng.choice(codes[:7])
        shape = rng.choice([(), (2,), (2, 3), (0,), (3, 2)])
        count = 1
        for size in shape:
            count *= size
        width = int("0" + "".join(filter(str.isdigit, descr[1:]))) or 1
        fortran = "True" if rng.random() < 0.2 else "False"
        shown = repr(shape)
        if rng.random() < odd:
            fortran = rng.choice(["1", "None", fortran])
            shown = rng.choice(["[2]", "(2L,)", "(True,)", "(-1,)", "(2,3)", shown])
        header = (
            f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shown}, }}"
        )
        if rng.random() < odd * 0.5:
            header = header[:-1] + "'shape': (1,), }"
        version = rng.choice([2, 3, 4]) if rng.random() < odd else 1
        raw = header.encode() + b"\n"
        length = struct.pack("<H" if version == 1 else "<I", len(raw))
        raw = b"\x93NUMPY" + bytes([version, 0]) + length + raw
        raw += rng.randbytes(count * width)
        if rng.random() < odd:
            raw = raw[:-1] if rng.random() < 0.5 else raw + b"\0" * rng.randrange(1, 9)
        name = f"{rng.choice(_odd_pickles.NAMES)}{index}.npy"
        if rng.random() < odd:
            name = rng.choice(["a.npy", "a.npy.npy", "é.npy", ".npy", "A.npy"])
        entries.append((name, raw))
    return zipped(rng, odd, entries)


def msgpack(rng: random.Random, odd: float) -> bytes:
    return _map(rng, odd, 0) + (b"\xc0" if rng.random() < odd * 0.3 else b"")


def _packed_text(rng: random.Random, value: str) -> bytes:
    raw = value.encode()
    if rng.random() < 0.7:
        return bytes([0xA0 | len(raw)]) + raw
    return b"\xd9" + bytes([len(raw)]) + raw


def _map(rng: random.Random, odd: float, depth: int) -> bytes:
    count = rng.randrange(1, 5)
    out = bytes([0x80 | count])
    if rng.random() < 0.2:
        out = b"\xde" + struct.pack(">H", count)
    for index in range(count):
        key = _packed_text(rng, f"{rng.choice(_odd_pickles.NAMES)}{index}")
        if rng.random() < odd:
            key = rng.choice([b"\xa1a", b"\x01", b"\xc4\x01a", b"\xc0", b"\xa1\xff"])
        out += key
        draw = rng.random()
        if draw < 0.3 and depth < 3:
            out += _map(rng, odd, depth + 1)
        elif draw < 0.9:
            out += _packed_array(rng, odd)
        else:
            out += rng.choice([b"\x05", b"\xc0", b"\xcb" + bytes(8), b"\x92\x01\x02"])
    if depth and rng.random() < odd * 0.3:
        shape = b"\x81\xa10\x04"
        chunks = b"\x81\xa10" + _packed_array(rng, 0)
        out = b"\x83" + _packed_text(rng, "__msgpack_chunked_array__") + b"\xc3"
        out += _packed_text(rng, "shape") + shape + _packed_text(rng, "chunks") + chunks
    return out


def _packed_array(rng: random.Random, odd: float) -> bytes:
    names = {"float32": 4, "float64": 8, "bfloat16": 2, "int32": 4, "uint8": 1}
    name = rng.choice(list(names))
    width = names[name]
    if rng.random() < odd:
        name = rng.choice(["<f4", ">f4", "f4", "single", "float8_e4m3fn", "O", "U1"])
    shape = rng.choice([[], [4], [2, 2], [1, 4], [0]])
    count = 1
    for size in shape:
        count *= size
    raw = rng.randbytes(count * width)
    sizes = b"".join(bytes([size]) for size in shape)
    if rng.random() < odd and shape:
        sizes = b"\xff" * len(shape) if len(shape) == 1 else sizes[:-1] + b"\xff"
    body = b"\x93" + bytes([0x90 | len(shape)]) + sizes
    body += bytes([0xA0 | len(name)]) + name.encode()
    body += b"\xc4" + bytes([len(raw)]) + raw
    if rng.random() < odd:
        body += b"\xc0"
    kind = rng.choice([2, 3, 3, 7, 255]) if rng.random() < odd else 1
    return b"\xc7" + bytes([len(body), kind]) + body


FORMATS = {
    "torch zip": torch_zip,
    "torch legacy": legacy,
    "safetensors": safetensors,
    "npz": npz,
    "msgpack": msgpack,
}


def make(kind: str, seed: int, index: int, odd: float = 0.04) -> bytes:
    """File `index` of a kind; the same bytes for the same seed."""
    rng = random.Random(f"{seed}/{kind}/{index}")
    return FORMATS[kind](rng, rng.choice([0, odd, odd, 4 * odd]))
