"""Pickles that PyTorch can load and torch.save does not write, made from a seed.

A grammar: every value is written in one of the ways the restricted unpickler of
`torch.load(weights_only=True)` knows, mostly an ordinary one. Storages are described again
and differently, sizes leave them, objects are filled in twice, names spell each other.
"""

import random
import struct

STORAGES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "QInt8Storage": 1,
}
DTYPES = (
    "float32 float64 float16 bfloat16 int64 int16 uint8 uint16 uint32 uint64 bool "
    "float8_e4m3fn float8_e5m2 complex64"
).split()
NAMES = ("conv.weight", "conv.bias", "fc.weight", "fc.bias", "model", "net", "a", "b")


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + raw


def symbol(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *arguments: bytes) -> bytes:
    return symbol(name) + tuple_of(*arguments) + b"R"


def integers(values) -> bytes:
    return tuple_of(*map(integer, values))


class Pickle:
    """Writes one object; `storages` then says what its storages need.

    Args:
      rng: decides everything.
      odd: how likely each odd choice is.
      legacy: whether persistent ids are those of legacy files.
    """

    def __init__(self, rng: random.Random, odd: float, legacy: bool = False):
        self.rng = rng
        self.odd = odd
        self.legacy = legacy
        self.storages: dict[str, tuple[str, int]] = {}
        self.views: list[tuple[str, str, int, int]] = []
        self.memo = 0

    def oddly(self, share: float = 1.0) -> bool:
        return self.rng.random() < self.odd * share

    def kept(self, value: bytes) -> bytes:
        """The value, put into the memo or not."""
        if self.memo < 250 and self.rng.random() < 0.3:
            self.memo += 1
            return value + b"q" + bytes([self.memo - 1])
        return value

    def whole(self) -> bytes:
        return b"\x80\x02" + self.container(0) + b"."

    def value(self, depth: int) -> bytes:
        if self.memo and self.rng.random() < 0.08:
            return b"h" + bytes([self.rng.randrange(self.memo)])
        draw = self.rng.random()
        if draw < 0.55 or depth > 3:
            return self.kept(self.tensor())
        if draw < 0.85:
            return self.kept(self.container(depth + 1))
        return self.rng.choice(
            [b"N", b"\x88", integer(7), text("x"), b"G" + struct.pack(">d", 0.5), b")"]
        )

    def key(self) -> bytes:
        rng = self.rng
        if self.oddly():
            return rng.choice(
                [
                    integer(rng.randrange(3)),
                    b"\x88",
                    b"G" + struct.pack(">d", 1.0),
                    b"N",
                    call("_codecs.encode", text("pbai.jrvtug"), text("rot13")),
                    call("_codecs.encode", text("fc.bias"), text("latin1")),
                    call("builtins.complex", b"G" + struct.pack(">d", 1), integer(0)),
                    integers((1, 2)),
                    b"U\x02\xc3\xa9",
                    text("\ud800"),
                    integer(2**40),
                ]
            )
        name = rng.choice(NAMES)
        if rng.random() < 0.05:
            return b"U" + bytes([len(name)]) + name.encode()
        return text(name)

    def pairs(self, depth: int) -> list[tuple[bytes, bytes]]:
        count = self.rng.randrange(1, 5)
        return [(self.key(), self.value(depth)) for _ in range(count)]

    def container(self, depth: int) -> bytes:
        rng = self.rng
        draw = rng.random()
        if draw < 0.1 and depth:
            items = [self.value(depth) for _ in range(rng.randrange(3))]
            if rng.random() < 0.5:
                return tuple_of(*items)
            return b"](" + b"".join(items) + b"e"
        pairs = self.pairs(depth)
        flat = b"".join(key + value for key, value in pairs)
        listed = b"](" + b"".join(
            rng.choice([tuple_of, lambda *x: b"](" + b"".join(x) + b"e"])(*pair)
            for pair in pairs
        ) + b"e"  # fmt: skip
        ordered = "collections.OrderedDict"
        if self.oddly():
            made = rng.choice(
                [
                    call(ordered, listed),
                    symbol("UserList.OrderedDict") + b")R(" + flat + b"u",
                    call(ordered, b"}(" + flat + b"u"),
                    call(ordered, tuple_of(*(tuple_of(*pair) for pair in pairs))),
                    call("collections.Counter", b"}(" + flat + b"u"),
                    call("collections.Counter", b"](" + text("a") + text("a") + b"e"),
                    symbol(ordered) + tuple_of(listed) + b"\x81",
                    symbol("collections.Counter") + b")\x81",
                    call("builtins.set", b"](" + text("a") + b"e"),
                    call(
                        "torch._tensor._rebuild_from_type_v2",
                        symbol(ordered),
                        symbol(ordered),
                        tuple_of(listed),
                        b"}",
                    ),
                    b"}(" + flat + b"u(" + flat + b"u",
                ]
            )
        elif draw < 0.4:
            made = symbol(ordered) + b")R(" + flat + b"u"
        elif draw < 0.5:
            made = b"}" + b"".join(key + value + b"s" for key, value in pairs)
        else:
            made = b"}(" + flat + b"u"
        if draw < 0.4 and rng.random() < 0.3:
            name = rng.choice(["items", "keys"]) if self.oddly() else "_metadata"
            made += b"}" + text(name) + b"}sb"
        return made

    # Storages and tensors.

    def storage(self) -> tuple[bytes, int, str]:
        """A persistent id, the elements it announces, and the class it names."""
        rng = self.rng
        if self.storages and rng.random() < 0.3:
            key = rng.choice(sorted(self.storages))
            kind, count = self.storages[key]
            if self.oddly():
                kind = rng.choice(sorted(STORAGES))
            if self.oddly():
                count = max(0, count + rng.choice([-3, -1, 1, 5]))
        else:
            key = str(len(self.storages))
            if self.oddly(0.5):
                key = rng.choice(["A", "a", "0\0x", "../0", "00", "", "data.pkl"])
            ordinary = "FloatStorage" if rng.random() < 0.6 else "LongStorage"
            kind = rng.choice(sorted(STORAGES)) if rng.random() < 0.4 else ordinary
            count = rng.choice([0, 1, 4, 6, 12, 24])
            self.storages.setdefault(key, (kind, count))
        module = "torch.cuda" if rng.random() < 0.05 else "torch"
        if self.oddly():
            module, kind = "torch.storage", "UntypedStorage"
            if key in self.storages and self.storages[key][0] in STORAGES:
                count *= STORAGES[self.storages[key][0]]
        parts = [text("storage"), symbol(f"{module}.{kind}"), text(key)]
        parts += [text(rng.choice(["cpu", "cpu", "cuda:0"])), integer(count)]
        if self.legacy:
            parts.append(b"N")
            if rng.random() < 0.15 and count:
                first = rng.randrange(count)
                size = rng.randrange(count - first + 1)
                view = f"v{len(self.views)}"
                if self.views and self.oddly(5):
                    view = rng.choice(self.views)[0]
                if self.oddly():
                    view = rng.choice([key, "0", "1"])
                self.views.append((view, key, first, size))
                parts[-1] = tuple_of(text(view), integer(first), integer(size))
                count = size
        elif self.oddly(0.3):
            parts.append(b"N")
        return self.kept(tuple_of(*parts) + b"Q"), count, kind

    def layout(self, count: int) -> tuple[int, list[int], list[int]]:
        """Offset, sizes and strides, most of them within `count` elements."""
        rng = self.rng
        sizes = rng.choice([[], [1], [2], [2, 3], [3, 2], [4], [2, 2, 1], [0], [12]])
        total = 1
        for size in sizes:
            total *= size
        if total > count and not self.oddly():
            sizes = [count]
            total = count
        strides, step = [], 1
        for size in reversed(sizes):
            strides.insert(0, step)
            step *= size
        if rng.random() < 0.15:
            strides = [rng.choice([0, 1, *strides]) for _ in strides]
        if rng.random() < 0.1:
            sizes, strides = sizes[::-1], strides[::-1]
        offset = rng.randrange(count - total + 1) if total < count else 0
        if self.oddly(0.3):
            offset += rng.choice([1, 7, 2**33])
        return offset, sizes, strides

    def tensor(self) -> bytes:
        rng = self.rng
        stored, count, kind = self.storage()
        offset, sizes, strides = self.layout(count)
        shape = integers(sizes)
        if self.oddly():
            shape = rng.choice(
                [
                    call("torch.Size", shape),
                    b"](" + b"".join(map(integer, sizes)) + b"e",
                    symbol("torch.Size") + tuple_of(shape) + b"\x81",
                ]
            )
        four = stored, integer(offset), shape, integers(strides)
        hooks = b"\x89" + call("collections.OrderedDict")
        metadata = b""
        if self.oddly():
            bit = rng.choice(["neg", "conj", "other"])
            metadata = b"}" + text(bit) + rng.choice([b"\x88", b"\x89"]) + b"s"
        plain = call("torch._utils._rebuild_tensor_v2", *four, hooks + metadata)
        if not self.oddly(2):
            if rng.random() < 0.1:
                plain = call("torch._utils._rebuild_parameter", plain, hooks)
            return plain + (self.filled(four, plain) if self.oddly(0.5) else b"")
        return rng.choice(
            [
                call("torch._utils._rebuild_tensor", *four),
                call(
                    "torch._utils._rebuild_tensor_v3",
                    *four,
                    hooks,
                    symbol(f"torch.{rng.choice(DTYPES)}"),
                    metadata,
                ),
                call(
                    "torch._utils._rebuild_parameter_with_state",
                    plain,
                    hooks,
                    self.state(plain),
                ),
                call(
                    "torch._tensor._rebuild_from_type_v2",
                    symbol("torch._utils._rebuild_tensor_v2"),
                    symbol("torch.nn.parameter.Parameter"),
                    tuple_of(*four, hooks),
                    self.state(plain),
                ),
                call(
                    "torch._utils._rebuild_qtensor",
                    *four,
                    tuple_of(
                        symbol("torch.per_tensor_affine"),
                        b"G" + struct.pack(">d", 0.5),
                        integer(0),
                    ),
                    hooks,
                ),
                call(
                    "torch._utils._rebuild_meta_tensor_no_storage",
                    symbol("torch.float32"),
                    shape,
                    integers(strides),
                    b"\x89",
                ),
                self.on_device(plain),
                call(
                    "torch._utils._rebuild_sparse_tensor",
                    call("torch.serialization._get_layout", text("torch.sparse_coo")),
                    tuple_of(
                        call(
                            "torch._utils._rebuild_tensor_v2",
                            *(four[0], integer(0), integers([1, 0]), integers([1, 1])),
                            hooks,
                        ),
                        plain,
                        integers([4]),
                    ),
                ),
                call("torch.nn.parameter.Parameter", plain, b"\x89"),
                symbol("torch.nn.parameter.Parameter")
                + tuple_of(plain, b"\x89")
                + b"\x81",
                symbol("torch.nn.parameter.Parameter") + b")\x81",
                call("torch.FloatTensor", b"](" + integer(1) + integer(2) + b"e"),
                call(
                    "torch._tensor._rebuild_from_type_v2",
                    symbol(f"torch.{rng.choice(['Float', 'Long', ''])}Tensor"),
                    symbol("torch.Tensor"),
                    tuple_of(b"](" + integer(1) + integer(2) + b"e"),
                    b"}",
                ),
                call("torch.Tensor", integer(0)),
                call("torch.storage.UntypedStorage", integer(4)),
            ]
        )

    def on_device(self, plain: bytes) -> bytes:
        if self.legacy:
            return (
                plain  # PyTorch converts it before its elements are there, and crashes
            )
        return call(
            "torch._utils._rebuild_device_tensor_from_cpu_tensor",
            plain,
            symbol(f"torch.{self.rng.choice(DTYPES[:4])}"),
            text("cpu"),
            b"\x89",
        )

    def state(self, other: bytes) -> bytes:
        """Attributes of a tensor, harmless or not."""
        if not self.oddly(5):
            return b"}" + text("tag") + integer(1) + b"s"
        made = (
            b"}" + text(self.rng.choice(["data", "real", "grad", "T"])) + other + b"s"
        )
        return made if self.rng.random() < 0.5 else tuple_of(b"N", made)

    def filled(self, four: tuple[bytes, ...], other: bytes) -> bytes:
        """BUILD, which replaces what a tensor holds, or an attribute of a storage."""
        return (
            self.rng.choice(
                [
                    tuple_of(b"\x89", b"\x89", b"N"),
                    tuple_of(*four),
                    tuple_of(other, b"\x89", b"N", b"\x89", b"N"),
                    tuple_of(other),
                    b"}" + text("data") + other + b"s",
                ]
            )
            + b"b"
        )
