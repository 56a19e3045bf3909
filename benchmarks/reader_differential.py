"""Odd but loadable files, read here and by the libraries that define their formats.

    pip install torch
    python -m benchmarks.reader_differential --files 20000

PyTorch files are compared with `torch.load(weights_only=True)`, the others with
safetensors, NumPy and Flax. A file that the library accepts must be read here to the same
tensors under the same names, or be refused; one that it refuses may be refused here or
not. Every file is made from `--seed` and its number, so a difference can be made again.
"""

import collections
import dataclasses
import io
import math
import sys
import warnings
from typing import Any

import flax.serialization
import numpy as np
import safetensors
import tyro

from ban_jax.checkpoints import errors, opening, pickle_objects, tensor
from benchmarks import _odd_archives, _timing

Flat = dict[tuple[str | int, ...], Any]
"""Path -> `(dtype, shape, bytes)`, or None for numbers that are not read."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is compared.

    Attributes:
      files: of each kind of PyTorch file; of the other formats a quarter of it.
      seed: makes the files.
      odd: how likely each oddity is.
      kinds: which formats; none: all.
      show: differences printed.
      results: folder of the result file; empty: none is written.
    """

    files: int = 2000
    seed: int = 0
    odd: float = 0.04
    kinds: tuple[str, ...] = ()
    show: int = 10
    results: str = "benchmarks/results"


def walk(root: Any, leaf: Any) -> Flat:
    """Every tensor of dicts, lists and tuples by its path.

    Args:
      leaf: a value -> its entry, or `...` for what is no tensor.
    """
    found: Flat = {}
    pending: list[tuple[tuple[str | int, ...], Any, tuple[int, ...]]] = [((), root, ())]
    while pending and len(found) < 10_000:
        path, node, above = pending.pop()
        if type(node) is pickle_objects.Placeholder and node.items:
            node = node.items
        if isinstance(node, dict | list | tuple) and type(node) is not np.ndarray:
            if id(node) in above:
                continue
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            # Keys that are no text stay apart here; in the library the last one wins.
            steps = {_step(name): value for name, value in pairs}
            for name, value in steps.items():
                if name is not None:
                    pending.append(((*path, name), value, (*above, id(node))))
            continue
        entry = leaf(node)
        if entry is not ...:
            found[path] = entry
    return found


def _step(name: Any) -> str | int | None:
    """A key as it is compared; None for those of kinds that are not."""
    key = pickle_objects.key(name)
    if not isinstance(key, pickle_objects.OddKey):
        return key
    value = (
        key.value.value if isinstance(key.value, pickle_objects.OddKey) else key.value
    )
    if isinstance(value, int | None):
        return f"<{value!r}>"
    if isinstance(value, bytes | memoryview):
        return f"<{bytes(value)!r}>"
    if isinstance(value, tuple):
        steps = [_step(part) for part in value]
        return None if None in steps else f"<{steps}>"
    return f"<{value!r}>" if isinstance(value, float) and value == value else None


def ours(data: bytes) -> Flat:
    """What this package reads.

    Raises:
      CheckpointError: for what it refuses.
    """

    def leaf(value: Any) -> Any:
        if type(value) is pickle_objects.EmptyArray:
            value = value.value
        if not isinstance(value, tensor.Tensor):
            return ...
        try:
            view = value.view()
        except errors.CheckpointError:
            return None
        return value.storage.dtype, value.shape, _raw(view)

    try:
        return walk(opening.of_bytes(memoryview(data)).root, leaf)
    except opening.DAMAGE as error:
        if isinstance(error, errors.CheckpointError):
            raise
        raise errors.CheckpointError(f"damaged: {error}") from error


def _raw(array: np.ndarray) -> bytes:
    array = np.array(array, order="C")  # a copy in native order
    array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == bool:
        array = array.view(np.uint8) != 0
    return array.tobytes()


def _torch(data: bytes) -> Flat:
    import torch

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return ...
        shape = tuple(value.shape)
        name = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            return name, shape, b"not strided"
        value = value.detach().resolve_conj().resolve_neg().contiguous()
        if name == "bool":
            return name, shape, _raw(value.view(torch.uint8).numpy() != 0)
        raw = value.reshape(-1).view(torch.uint8) if value.numel() else value
        return name, shape, raw.numpy().tobytes() if value.numel() else b""

    return walk(torch.load(io.BytesIO(data), "cpu", weights_only=True), leaf)


_SAFE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SAFE |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"}
_SAFE |= {"U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool"}
_SAFE |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64"}


def _safetensors(data: bytes) -> Flat:
    return {
        (name,): (
            _SAFE.get(one["dtype"], one["dtype"]),
            tuple(one["shape"]),
            bytes(byte != 0 for byte in one["data"])
            if one["dtype"] == "BOOL"
            else bytes(one["data"]),
        )
        for name, one in safetensors.deserialize(data)
    }


def _array(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        return ...
    return value.dtype.name, value.shape, _raw(np.asarray(value))


def _npz(data: bytes) -> Flat:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {(name,): _array(archive[name]) for name in archive.files}


def _msgpack(data: bytes) -> Flat:
    restored = flax.serialization.msgpack_restore(data)
    return walk(restored, lambda value: _array(value))


LIBRARIES = {
    "torch zip": _torch,
    "torch legacy": _torch,
    "safetensors": _safetensors,
    "npz": _npz,
    "msgpack": _msgpack,
}


def compare(kind: str, data: bytes) -> tuple[str, str]:
    """How a file is read: the outcome, and what differs where something does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = LIBRARIES[kind](data)
    except Exception as error:  # of any type: what it cannot load is no yardstick
        theirs = None
        why = f"{type(error).__name__}: {error}"
    try:
        mine = ours(data)
    except errors.CheckpointError as error:
        return ("refused by both", "") if theirs is None else ("refused", str(error))
    if theirs is None:
        return "read where the library refuses", why
    named = [path for path, entry in mine.items() if entry is None]
    for path in {*mine, *theirs}:
        if path not in mine or path not in theirs:
            where = "the library" if path in theirs else "this package"
            return "different", f"{path} is there for {where} alone"
        if mine[path] is not None and mine[path] != theirs[path]:
            return "different", f"{path}: {mine[path]} and {theirs[path]}"
    return ("same, some by name alone", str(named)) if named else ("same", "")


def main(flags: Flags) -> int:
    kinds = flags.kinds or tuple(LIBRARIES)
    outcomes: dict[str, dict[str, int]] = {}
    refused: dict[str, collections.Counter[str]] = {}
    different = []
    for kind in kinds:
        counts: collections.Counter[str] = collections.Counter()
        reasons: collections.Counter[str] = collections.Counter()
        files = flags.files if "torch" in kind else math.ceil(flags.files / 4)
        for index in range(files):
            data = _odd_archives.make(kind, flags.seed, index, flags.odd)
            outcome, told = compare(kind, data)
            counts[outcome] += 1
            if outcome == "refused":
                reasons["".join(c for c in told if not c.isdigit())[:60]] += 1
            if outcome == "different":
                different.append({"kind": kind, "index": index, "told": told})
                if len(different) <= flags.show:
                    print(f"{kind} {index}: {told}", file=sys.stderr)
        outcomes[kind] = dict(counts)
        refused[kind] = reasons
        print(kind, dict(counts), flush=True)
    if flags.results:
        import torch

        found = {
            "outcomes": outcomes,
            "refused_here_alone": {
                kind: dict(reasons.most_common(20)) for kind, reasons in refused.items()
            },
            "different": different,
            "files": sum(sum(counts.values()) for counts in outcomes.values()),
            "settings": dataclasses.asdict(flags),
            "torch": torch.__version__,
        }
        _timing.write_result("reader_differential", found, folder=flags.results)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags)))
