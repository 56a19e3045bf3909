"""Kinds of malicious files that other scanners list: nothing runs, all of it is told.

The kinds are those of the suites of picklescan, modelscan and fickling: how a call is
written, what is called, and what the pickle is packed in. Each is made here, byte by byte,
around a call that would leave a mark if anything made it.
"""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.baselines import findings
from ban_jax.checkpoints import call_names, discovery, opening
from tests.checkpoints import builders, unsafe_names


def argument(mark):
    return builders.text(f"touch {mark}")


def opcodes(module, name, mark):
    """The ways in which a pickle can ask for a call, as bodies without header and STOP."""
    given, symbol = argument(mark), builders.symbol(module, name)
    stacked = builders.text(module) + builders.text(name) + b"\x93"
    line = f"(S'touch {mark}'\n".encode()
    return {
        "reduce": symbol + given + b"\x85R",
        "reduce text": symbol + line + b"tR",
        "stack global": stacked + given + b"\x85R",
        "inst": line + b"i" + f"{module}\n{name}\n".encode(),
        "obj": b"(" + symbol + given + b"o",
        "newobj": symbol + given + b"\x85\x81",
        "newobj ex": symbol + given + b"\x85}\x92",
        "memo": symbol + b"q\0" + b"0" + b"h\0" + given + b"\x85R",
        "build": symbol + given + b"\x85R}b",
        "reconstructor": b"ccopy_reg\n_reconstructor\n"
        + b"("
        + symbol
        + symbol
        + given
        + b"tR",
        "rebuilt from type": b"ctorch._tensor\n_rebuild_from_type_v2\n("
        + symbol
        + symbol
        + given
        + b"\x85}tR",
        "given to a class": b"ctorch.optim.lr_scheduler\nLambdaLR\n(N" + symbol + b"tR",
    }


CALLED = (
    ("posix", "system"),
    ("os", "system"),
    ("nt", "system"),
    ("__builtin__", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("__builtin__", "apply"),
    ("builtins", "__import__"),
    ("subprocess", "run"),
    ("runpy", "_run_code"),
    ("socket", "create_connection"),
    ("sys", "exit"),
    ("requests.api", "get"),
    ("httplib", "HTTPSConnection"),
    ("aiohttp.client", "ClientSession"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("importlib", "import_module"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch.utils.bottleneck.__main__", "run_cprofile"),
    ("torch._dynamo.guards", "GuardBuilder.get"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("torch.utils.collect_env", "run"),
    ("torch.nn.modules.module", "warnings.sys.exit"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "getlincoef"),
    ("timeit", "timeit"),
    ("trace", "Trace.run"),
    ("profile", "Profile.runctx"),
    ("cProfile", "run"),
    ("code", "InteractiveInterpreter.runcode"),
    ("idlelib.pyshell", "ModifiedInterpreter.runcommand"),
    ("lib2to3.pgen2.grammar", "Grammar.loads"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("ssl", "get_server_certificate"),
    ("webbrowser", "open"),
    ("pydoc", "pipepager"),
    ("__main__", "Payload"),
)


def state(called):
    """A whole model's pickle, and its storages, with a call before it."""
    arrays = builders.state_dict()
    body = called + b"0" + builders.state_pickle(arrays)[2:-1]
    content = {str(i): array.tobytes() for i, array in enumerate(arrays.values())}
    return body, content


def zipped(*entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def legacy(called, at):
    """A legacy PyTorch file, one of whose five pickles makes the call."""
    magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
    bodies = [magic, b"M\xe9\x03", b"}", b"}", b"]"]
    bodies[at] = called + b"0" + bodies[at]
    return b"".join(builders.pickle(body) for body in bodies)


def array_of_objects(pickled):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    return file.getvalue() + pickled


def containers(called):
    """What a pickle with a call is found in: file name -> content."""
    bare = builders.pickle(called)
    body, storages = state(called)
    model = builders.torch_zip(builders.pickle(body), storages)
    plain = builders.torch_file(builders.state_dict())
    good = {"archive/data.pkl": builders.state_pickle(builders.state_dict())}
    return {
        "bare.pkl": bare,
        "bare": bare,
        "headless.pkl": called + b".",
        "protocol4.pickle": b"\x80\x04\x95" + struct.pack("<Q", len(called) + 1)
        + called + b".",
        "broken.pkl": bare[:-1] + b"\xff\xff not a pickle",
        "cut.pkl": bare[:-1],
        "two.pkl": pickle.dumps([1], 2) + bare,
        "trailing.pkl": bare + bytes(100),
        "model.pt": model,
        "unnamed": model,
        "clean_weights.png": model,
        "checkpoint.pt": builders.torch_zip(bare, {}),
        "broken.pt": builders.torch_zip(bare[:-1], {}),
        "beside.pt": zipped(*good.items(), ("archive/extra.pkl", bare)),
        **{f"legacy{at}.pt": legacy(called, at) for at in range(5)},
        "archive.zip": zipped(("data.pkl", bare)),
        "archive_inside.zip": zipped(("a/model.pt", model), ("a/good.pt", plain)),
        "deflated.zip": zipped(("m.pkl", bare), compression=zipfile.ZIP_DEFLATED),
        "array.npy": array_of_objects(bare),
        "arrays.npz": zipped(("a.npy", array_of_objects(bare))),
    }  # fmt: skip


def asked(path):
    """What is told of the calls of a file; None where it is judged without any."""
    try:
        found = checkpoints.read(path)
    except checkpoints.CheckpointError as error:
        return error.calls, str(error)
    return (found.calls, "") if found.calls else None


def all_told(folder, name):
    """Every file is met, and tells of the call `name`."""
    found = discovery.search([folder])
    met = {path.split("!/")[0] for path in found.paths}
    assert met == {os.path.join(folder, one) for one in os.listdir(folder)}
    told_of = set()
    for path in found.paths:
        told = asked(path)
        if told is None:
            assert path.endswith("!/a/good.pt")
            continue
        file = os.path.basename(path.split("!/")[0])
        assert name in told[0], (path, told)
        told_of.add(file)
    assert told_of == set(os.listdir(folder))


@pytest.mark.parametrize("kind", sorted(opcodes("posix", "system", "x")))
def test_every_way_to_ask_for_a_call_is_told(tmp_path, kind):
    mark, folder = tmp_path / "mark", tmp_path / "files"
    folder.mkdir()
    called = opcodes("posix", "system", mark)[kind]
    for name in ("bare.pkl", "headless.pkl", "model.pt", "legacy3.pt", "broken.pkl"):
        (folder / name).write_bytes(containers(called)[name])
    all_told(str(folder), "posix.system")
    assert not mark.exists()


def test_every_name_is_told(tmp_path):
    mark, folder = tmp_path / "mark", tmp_path / "files"
    folder.mkdir()
    for module, name in CALLED:
        called = opcodes(module, name, mark)["stack global"]
        path = folder / "bare.pkl"
        path.write_bytes(builders.pickle(called))
        told, message = asked(path)
        assert f"{module}.{name}" in told, message
        assert findings.sentence(told).startswith(f"asks to call {module}.{name}")
    assert not mark.exists()


def test_a_call_is_told_whatever_it_is_packed_in(tmp_path):
    mark, folder = tmp_path / "mark", tmp_path / "files"
    folder.mkdir()
    called = opcodes("posix", "system", mark)["reduce"]
    for name, content in containers(called).items():
        (folder / name).write_bytes(content)
    all_told(str(folder), "posix.system")
    assert not mark.exists()


def test_the_magic_number_may_be_made_by_a_call(tmp_path):
    called = builders.symbol("__builtin__", "eval") + builders.text("1") + b"\x85R"
    rest = [b"M\xe9\x03", b"}", opcodes("posix", "system", "x")["reduce"], b"]"]
    path = tmp_path / "bypass.pt"
    path.write_bytes(b"".join(builders.pickle(body) for body in [called, *rest]))
    told, _ = asked(path)
    assert set(told) == {"__builtin__.eval", "posix.system"}


def test_archives_with_odd_flags_are_never_clean(tmp_path):
    called = opcodes("posix", "system", tmp_path / "mark")["reduce"]
    whole = bytearray(zipped(("archive/data.pkl", builders.pickle(called))))
    central = whole.index(b"PK\1\2")
    for flag in (0x1, 0x20, 0x40):
        for places in ((6,), (central + 8,), (6, central + 8)):
            odd = bytearray(whole)
            for place in places:
                odd[place] |= flag
            for name in ("odd.pt", "odd.zip", "odd"):
                path = tmp_path / name
                path.write_bytes(odd)
                (met,) = discovery.search([str(path)]).paths
                assert asked(met) is not None
    assert not (tmp_path / "mark").exists()


def told_of_bytes(content):
    try:
        return opening.of_bytes(memoryview(content)).calls
    except checkpoints.CheckpointError as error:
        return error.calls


FORMS = {
    "bare": builders.pickle,
    "headless": lambda called: called + b".",
    "zip": lambda called: builders.torch_zip(builders.pickle(called), {}),
    "legacy": lambda called: legacy(called, 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_name_that_other_scanners_list_is_told_called_or_not(form):
    untold = []
    for module, attribute in unsafe_names.ALL:
        written = f"{module}.{attribute}"
        symbol = builders.symbol(module, attribute)
        stacked = builders.text(module) + builders.text(attribute) + b"\x93"
        for called in (symbol + b")R", stacked + builders.text("x") + b"\x85R"):
            if written not in told_of_bytes(FORMS[form](called)):
                untold.append(f"{written} called")
        for imported in (symbol, b"}" + builders.text("key") + stacked + b"s"):
            told = told_of_bytes(FORMS[form](imported))
            if f"{written}{call_names.ONLY_IMPORTED}" not in told:
                untold.append(f"{written} imported")
    assert not untold


def test_types_that_files_refer_to_as_values_are_no_finding():
    values = (
        ("torch", "float32"), ("torch", "bfloat16"), ("torch", "strided"),
        ("torch", "FloatStorage"), ("torch.nn.functional", "relu"),
        ("numpy", "ndarray"), ("numpy", "float64"), ("builtins", "int"),
        ("torch.nn.modules.activation", "ReLU"), ("collections", "OrderedDict"),
    )  # fmt: skip
    for module, name in values:
        for form in (
            builders.symbol(module, name),
            b"]" + builders.symbol(module, name),
        ):
            assert told_of_bytes(builders.pickle(form)) == ()


def test_a_data_set_is_made_by_a_call_and_restored_without_one():
    """The constructors of torchvision fetch files and unpickle them."""
    dataset = builders.symbol("torchvision.datasets.cifar", "CIFAR10")
    name = "torchvision.datasets.cifar.CIFAR10"
    made = dataset + builders.text("x") + b"\x85R"
    restored = dataset + b")\x81}b"
    assert told_of_bytes(builders.pickle(made)) == (name,)
    assert told_of_bytes(builders.pickle(restored)) == ()


def test_a_number_of_the_extension_registry_is_told():
    for code in (b"\x82\x05", b"\x83\x05\0", b"\x84\x05\0\0\0"):
        called = code + builders.text("x") + b"\x85R"
        assert told_of_bytes(builders.pickle(called)) == ("copyreg.extension_5",)
