"""Damaged checkpoints of every format: each is read or refused, within its bounds.

    python -m benchmarks.mutants --files 100000

Files of all formats, harmless and hostile, are changed by a few bytes, cut, stretched,
spliced with one another or given other numbers, each from `--seed` and its number. Counted
is what must not be: exceptions other than `CheckpointError`, more than `--seconds-per-mib`,
more memory than `limits` promises, code that ran. Time is the process's own, so that a busy
machine does not count. A `zoo.json` lies beside each file and is damaged as well. Ctrl-C
ends the run early; the result says how many files it read.
"""

import collections
import dataclasses
import io
import os
import pathlib
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import flax.serialization
import numpy as np
import tyro

from ban_jax import checkpoints
from ban_jax.checkpoints import hashing, limits
from benchmarks import _odd_archives, _odd_pickles, _timing

TESTDATA = pathlib.Path(_timing.CHECKOUT) / "tests/checkpoints/testdata"
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += (
    "socket.connect",
    "ctypes.dlopen",
    "pty.spawn",
    "shutil.rmtree",
    "os.remove",
)
"""Events of Python's audit that no reading causes."""
SIZES = (0, 1, 2, 127, 128, 255, 256, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is read.

    Attributes:
      files: how many, of all formats together.
      first: number of the first one; a run can be done in parts.
      seed: makes the changes.
      seconds_per_mib: bound on the time of a file; one of less than a MiB has as much.
      folders: one file in so many is an Orbax folder, which takes longest.
      results: folder of the result file; empty: none is written.
    """

    files: int = 10_000
    first: int = 0
    seed: int = 0
    seconds_per_mib: float = 2.0
    folders: int = 200
    results: str = "benchmarks/results"


def originals(marker: str) -> dict[str, bytes]:
    """Whole files by name; the hostile ones are to make the file `marker`."""
    found = {
        path.name: path.read_bytes()
        for path in sorted(TESTDATA.iterdir())
        if path.suffix != ".json"
    }
    read = checkpoints.read(TESTDATA / "zip.pt")
    flat = {k: np.asarray(v) for k, v in hashing.flatten(read.variables).items()}
    folder = pathlib.Path(tempfile.mkdtemp())
    checkpoints.write_safetensors(folder / "a", read.variables, read.spec)
    found["model.safetensors"] = (folder / "a").read_bytes()
    shutil.rmtree(folder)
    found["model.msgpack"] = flax.serialization.msgpack_serialize(
        hashing.unflatten(flat)
    )
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, **{key: value for key, value in flat.items()})
        found[name] = file.getvalue()
    command = _odd_pickles.text(f"touch {marker}")
    for name, call in {
        "reduce": b"cos\nsystem\n(" + command + b"tR",
        "inst": b"(" + command + b"ios\nsystem\n",
        "obj": b"(cos\nsystem\n" + command + b"o",
        "stack": b"\x8c\x02os\x8c\x06system\x93" + command + b"\x85R",
    }.items():
        body = b"\x80\x02}(" + _odd_pickles.text("w") + call + b"u."
        entries = [("m/data.pkl", body), ("m/version", b"3\n")]
        found[f"{name}.pt"] = _odd_archives.zipped(random.Random(0), 0, entries)
    for kind in _odd_archives.FORMATS:
        for index in range(6):
            found[f"{kind} {index}"] = _odd_archives.make(kind, 0, index)
    return found


# Changes. Each takes the generator, the content, and another file's.


def _flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 3, 30))):
        data[_place(rng, data)] = rng.randrange(256)


def _cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[_place(rng, data) :]


def _drop(rng: random.Random, data: bytearray, other: bytes) -> None:
    start = _place(rng, data)
    del data[start : start + rng.choice((1, 4, 64, 4096))]


def _insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    start = _place(rng, data)
    data[start:start] = rng.randbytes(rng.choice((1, 4, 64, 4096)))


def _repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    start = _place(rng, data)
    piece = data[start : start + rng.choice((1, 2, 16, 256))]
    data[start:start] = piece * rng.choice((1, 16, 256))


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, theirs = _place(rng, data), _place(rng, other)
    size = rng.choice((4, 64, 1024, 65536))
    data[start : start + size] = other[theirs : theirs + size]


def _number(rng: random.Random, data: bytearray, other: bytes) -> None:
    start = _place(rng, data)
    form = rng.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
    width = struct.calcsize(form)
    value = rng.choice(SIZES) & (2 ** (8 * width) - 1)
    data[start : start + width] = struct.pack(form, value)


def _operations(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Pickle opcodes, at a place where one may stand."""
    start = _place(rng, data)
    codes = b"().0123NRQbceghijlopqrstuad}]\x81\x85\x86\x87\x88\x89\x93\x94\x95"
    data[start:start] = bytes(rng.choice(codes) for _ in range(rng.choice((1, 8, 500))))


CHANGES: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip,
    _cut,
    _drop,
    _insert,
    _repeat,
    _splice,
    _number,
    _operations,
)


def _place(rng: random.Random, data: bytes | bytearray) -> int:
    """Somewhere, mostly near the ends: that is where the structure is."""
    if not data:
        return 0
    mode = rng.choice((0, len(data), len(data) // 2))
    return min(int(rng.triangular(0, len(data), mode)), len(data) - 1)


def mutate(files: dict[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """Changed file `index`, and the name of what it was made of."""
    rng = random.Random(f"{seed}/{index}")
    models = [name for name in files if " " not in name]
    name = rng.choice(sorted(files if rng.random() < 0.3 else models))
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            rng.choice(CHANGES)(rng, data, files[rng.choice(sorted(files))])
    return name, bytes(data)


class _Audit:
    """Counts forbidden events while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: Any) -> None:
        if self.on and event in FORBIDDEN:
            self.seen.append(event)


def read(path: pathlib.Path, audit: _Audit) -> dict[str, Any]:
    """Reads a file and says how that went."""
    size = sum(x.stat().st_size for x in [path, *path.rglob("*")] if x.is_file())
    error: Exception | None = None
    # Traced throughout: to stop while a thread allocates may end Python 3.11 itself.
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    audit.on = True
    start = time.process_time()
    try:
        checkpoints.read(path)
    except Exception as caught:  # of any type: all but one are what is looked for
        error = caught
    seconds = time.process_time() - start
    audit.on = False
    peak = tracemalloc.get_traced_memory()[1] - before
    return {
        "size": size,
        "error": error,
        "seconds": seconds,
        "peak": peak,
        "most": 11 * size + 66 * limits.MIB + limits.JSON_OBJECTS,
    }


def main(flags: Flags) -> int:
    machine = _timing.hardware()
    audit = _Audit()
    work = pathlib.Path(tempfile.mkdtemp())
    marker = str(work / "ran")
    files = originals(marker)
    variables = checkpoints.read(TESTDATA / "zip.pt")
    orbax = work / "orbax"
    checkpoints.write_orbax(orbax, variables.variables, variables.spec)
    inside = sorted(path for path in orbax.rglob("*") if path.is_file())
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[dict[str, Any]] = []
    slowest, largest = 0.0, 0.0
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))
    for index in range(flags.first, flags.first + flags.files):
        if stopped:
            break
        rng = random.Random(f"{flags.seed}/{index}/beside")
        beside = bytearray(b'[{"name": "model", "clean_accuracy": 0.9}]')
        _flip(rng, beside, b"")
        (work / "zoo.json").write_bytes(beside * rng.choice((1, 1, 1, 50_000)))
        if index % flags.folders == 0:
            name, path = "orbax", work / "folder"
            shutil.copytree(orbax, path)
            target = path / rng.choice(inside).relative_to(orbax)
            content = {"orbax": target.read_bytes()}
            target.write_bytes(mutate({**files, **content}, flags.seed, index)[1])
        else:
            name, data = mutate(files, flags.seed, index)
            path = work / "model.pt"
            path.write_bytes(data)
        found = read(path, audit)
        error, seconds = found["error"], found["seconds"]
        allowed = flags.seconds_per_mib * max(1, found["size"] / limits.MIB)
        slowest = max(slowest, seconds / max(1, found["size"] / limits.MIB))
        largest = max(largest, found["peak"] / found["most"])
        faults = [
            f"{type(error).__name__}: {error}"
            if error is not None and not isinstance(error, checkpoints.CheckpointError)
            else "",
            f"{seconds:.2f} s" if seconds > allowed else "",
            f"{found['peak']:,} bytes" if found["peak"] > found["most"] else "",
            "ran" if os.path.exists(marker) or audit.seen else "",
        ]
        counts["refused" if error is not None else "read"] += 1
        if any(faults):
            told = "; ".join(filter(None, faults))
            wrong.append({"index": index, "made of": name, "fault": told})
            print(index, name, told, flush=True)
        if path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(work)
    result = {
        "settings": dataclasses.asdict(flags),
        "outcomes": dict(counts),
        "faults": wrong,
        "slowest_seconds_per_mib": round(slowest, 3),
        "largest_share_of_the_memory_bound": round(largest, 3),
    }
    print(result)
    if flags.results:
        _timing.write_result("mutants", result, machine=machine, folder=flags.results)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags)))
