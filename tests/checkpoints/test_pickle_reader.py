"""The pickle machine: hostile pickles do nothing and cost little."""

import collections
import os
import pickle
import struct
import time
import tracemalloc

import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import (
    limits,
    pickle_objects,
    pickle_reader,
    reading,
    tensor,
)
from tests.checkpoints import builders


def load(data: bytes):
    return pickle_reader.PickleMachine(
        memoryview(data), limits.objects(len(data))
    ).load()


class Command:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def commands(path) -> dict[str, bytes]:
    """Per opcode, a pickle that is to make the file `path`."""
    shell = f"touch {path}"
    call = b"cos\nsystem\n"
    body = builders.text(shell)
    evaluate = builders.text(f"__import__('os').system({shell!r})")
    return {
        "reduce": b"\x80\x02" + call + b"(" + body + b"tR.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + body + b"tR.",
        "inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "obj": b"(" + call + body + b"o.",
        "newobj": b"\x80\x02" + call + b"(" + body + b"t\x81.",
        "newobj ex": b"\x80\x04" + call + b"(" + body + b"t}\x92.",
        "eval": b"\x80\x02c__builtin__\neval\n(" + evaluate + b"tR.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR("
        + body + b"tR.",
        "build setattr": b"\x80\x02ctypes\nSimpleNamespace\n)\x81}(Vf\n" + call
        + b"ub(" + body + b"tR.",
        "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0d__import__.os\x93("
        + body + b"tR.",
        "protocol 0": pickle.dumps(Command(shell), 0),
        "protocol 5": pickle.dumps(Command(shell), 5),
    }  # fmt: skip


@pytest.mark.parametrize("opcode", commands("x"))
def test_a_pickle_that_would_run_a_command_runs_nothing(opcode, tmp_path):
    marker = tmp_path / "ran"
    load(commands(marker)[opcode])
    assert not marker.exists()


@pytest.mark.parametrize(
    "opcode", ["reduce", "stack global", "inst", "obj", "protocol 0", "protocol 5"]
)
def test_those_commands_do_run_in_python_itself(opcode, tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(commands(marker)[opcode])
    assert marker.exists()


@pytest.mark.parametrize("opcode", commands("x"))
def test_weights_beside_a_command_are_read_and_the_command_is_not_run(opcode, tmp_path):
    marker = tmp_path / "ran"
    body = commands(marker)[opcode]
    body = (body[2:] if body[:1] == b"\x80" else body)[:-1]
    if opcode == "protocol 5":
        body = body[9:]
    state = builders.state_dict()
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state, {"zz": body}))
    assert checkpoints.read(path).spec == builders.SPEC
    assert not marker.exists()


def test_extension_codes_are_inert():
    for opcode in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        made = load(b"\x80\x02" + opcode + b".")
        assert made.text == "copyreg.extension_1"
        called = load(b"\x80\x02" + opcode + b")R.")
        assert isinstance(called, pickle_objects.Placeholder)


def test_state_given_to_an_inert_object_is_kept_as_data():
    made = load(
        b"\x80\x02cargparse\nNamespace\n)\x81}" + builders.text("lr") + b"K\x05sb."
    )
    assert made.kind == "argparse.Namespace"
    assert made.state == {"lr": 5}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_survives_every_protocol(protocol):
    data = {
        "text": "grün \U0001f600",
        "int": [0, 1, -1, 255, 65536, 2**31, -(2**40), 2**100],
        "float": (1.5, -0.0, 1e300),
        "none": [None, True, False],
        "empty": [(), {}, []],
        "nested": {"a": {"b": [{"c": (1, 2, 3, 4)}]}},
    }
    assert load(pickle.dumps(data, protocol)) == data


def test_ordered_dicts_become_dicts_in_order():
    made = load(pickle.dumps(collections.OrderedDict([("b", 1), ("a", 2)]), 2))
    assert list(made) == ["b", "a"]


def test_keys_that_are_neither_text_nor_small_numbers_are_themselves_alone():
    data = {1: 2, (3,): 4, "a": 5, None: 6, 2**40: 7, -1: 8, b"b": 9, 1.5: 10}
    found = load(pickle.dumps(data, 4))
    assert list(found.values()) == list(data.values())
    plain = {key: value for key, value in found.items() if isinstance(key, str | int)}
    assert plain == {1: 2, "a": 5}
    assert load(b"(K\x01VA\nI01\nVB\nd.") == {1: "B"}
    assert load(b"(K\x01VA\nF1.0\nVB\nd.") == {1: "B"}


def cost(data: bytes) -> tuple[float, int]:
    """Seconds and peak bytes of an attempt to load."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        load(data)
    except checkpoints.CheckpointError:
        pass
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


def laughs(opener: bytes, closer: bytes) -> bytes:
    """An object that holds ten of an object that holds ten ... fifty times over."""
    body = b"]q\x00"
    for level in range(1, 51):
        body += (
            opener + (b"h" + bytes([level - 1])) * 10 + closer + b"q" + bytes([level])
        )
    return b"\x80\x02" + body + b"."


BOMBS = {
    "deep lists": b"\x80\x02" + b"]" * 150_000 + b"a" * 149_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 150_000 + b".",
    "deep dicts": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 50_000 + b"N"
    + b"s" * 50_000 + b".",
    "deep objects": b"\x80\x02" + b"ca\nb\n)\x81" * 50_000 + b"b" * 49_999 + b".",
    "deep calls": b"\x80\x02ca\nb\n" + b")R" * 150_000 + b".",
    "deep marks": b"\x80\x02" + b"(" * 150_000 + b"t" * 150_000 + b".",
    "tuples of laughs": laughs(b"(", b"t"),
    "lists of laughs": laughs(b"](", b"e"),
    "tuple keys of laughs": laughs(b"(", b"t")[:-1] + b"}h\x32Ns.",
    "many lists": b"\x80\x02" + b"]" * 400_000 + b".",
    "many memos": b"\x80\x02N" + b"\x94" * 400_000 + b".",
    "duplicates": b"\x80\x02]" + b"2" * 400_000 + b".",
    "repeated copies": b"\x80\x02](" + b"N" * 100_000 + b"eq\x00"
    + b"0ccollections\nOrderedDict\nh\x00\x85R" * 5_000 + b".",
    "many names": b"\x80\x02" + b"cos\nsystem\n0" * 80_000 + b".",
    "names and no end": b"\x80\x02" + b"(ios\nx\n0" * 60_000,
    "far memo": b"\x80\x02Nr\xff\xff\xff\xff.",
    "long announced": b"\x80\x02X\xff\xff\xff\xff.",
    "longer announced": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
    "big integer": b"\x80\x02\x8b" + struct.pack("<I", 2_000_000)
    + b"\x7f" * 2_000_000 + b".",
    "big text integer": b"I" + b"9" * 4_000 + b"\n.",
    "colliding integers": b"\x80\x02}(" + b"".join(
        b"\x8a\x0d" + (n * (2**61 - 1)).to_bytes(13, "little") + b"N"
        for n in range(1, 50_000)
    ) + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_cost_time_and_memory_in_proportion_to_their_size(bomb):
    seconds, peak = cost(BOMBS[bomb])
    assert peak < limits.OBJECT_SLACK + 4 * len(BOMBS[bomb]) + limits.MIB
    assert seconds < 30  # tracing makes it several times slower


def test_a_pickle_of_too_many_operations_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "MAX_OPERATIONS", 1000)
    with pytest.raises(checkpoints.CheckpointError, match="more than 1,000 operations"):
        load(b"\x80\x02" + b"N0" * 1000 + b"N.")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x020.",
        b"\x80\x02t.",
        b"\x80\x02(.",
        b"\x80\x02(N.",
        b"\x80\x02h\x05.",
        b"\x80\x02NR.",
        b"\x80\x02NNs.",
        b"\x80\x02}(Nu.",
        b"\x80\x02N(Ne.",
        b"\x80\x02\xff.",
        b"\x80\x02cos\n",
        b"\x80\x02NN\x93.",
    ],
)
def test_damaged_pickles_are_named_as_such(data):
    with pytest.raises(checkpoints.CheckpointError):
        load(data)


@pytest.mark.parametrize(
    ("opcode", "names"),
    [
        ("reduce", "os.system"),
        ("stack global", "os.system"),
        ("inst", "os.system"),
        ("obj", "os.system"),
        ("newobj", "os.system"),
        ("newobj ex", "os.system"),
        ("eval", "__builtin__.eval"),
        ("getattr", "builtins.getattr os.__dict__"),
        ("dotted name", "builtins.__import__.os"),
        ("protocol 0", "posix.system"),
    ],
)
def test_what_a_pickle_asks_to_call_is_remembered_by_name(opcode, names):
    machine = pickle_reader.PickleMachine(
        memoryview(commands("x")[opcode]), limits.objects(0)
    )
    machine.load()
    assert set(machine.calls.asked) == set(names.split())


def test_known_reconstructions_are_no_calls_worth_telling():
    body = (
        builders.state_pickle(builders.state_dict())[:-1]
        + b"ctorch.nn.modules.conv\nConv2d\n)\x81}b"
        + b"cargparse\nNamespace\n)\x81}b\x86."
    )
    machine = pickle_reader.PickleMachine(
        memoryview(body),
        limits.objects(2**20),
        lambda _: tensor.Storage("float32", 2**40),
    )
    machine.load()
    assert not machine.calls.asked


def test_a_class_of_the_writers_own_is_named_however_it_is_made():
    for body in (
        b"cnets\nNet\n)\x81.",
        b"ccopy_reg\n_reconstructor\n(cnets\nNet\nc__builtin__\nobject\nNtR.",
    ):
        machine = pickle_reader.PickleMachine(memoryview(body), limits.objects(0))
        machine.load()
        assert list(machine.calls.asked) == ["nets.Net"]


def test_the_names_called_reach_the_reader_of_either_layout(tmp_path):
    state = builders.state_dict()
    body = b"cos\nsystem\n(" + builders.text("true") + b"tR"
    path = tmp_path / "model.pt"
    path.write_bytes(builders.torch_file(state, {"zz": body}))
    assert reading._contents(str(path)).calls == ("os.system",)
