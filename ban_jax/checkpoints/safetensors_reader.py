"""safetensors: a length, a JSON header, raw tensors. The header is not believed."""

import math
from typing import Any

from ban_jax.checkpoints import errors, file_bytes, json_text, limits, tensor

MAX_HEADER = limits.MIB
"""Bytes; some ten thousand tensors. JSON takes up to thirty times its size."""
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": tensor.BFLOAT16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
}


def looks_like(data: file_bytes.Data) -> bool:
    """Whether `data` starts with a header length and the brace of its JSON."""
    return len(data) > 8 and data[8] == 0x7B and data[7] == 0 and data[6] == 0


def read(data: file_bytes.Data) -> tuple[dict[str, tensor.Tensor], dict[str, str]]:
    """Tensors by name, views of `data`, and the file's own metadata.

    Raises:
      CheckpointError: unless the tensors cover the file exactly, none overlapping.
    """
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or length > MAX_HEADER:
        raise errors.CheckpointError(
            f"the safetensors header announces {length:,} bytes; the file has "
            f"{len(data) - 8:,} behind the length, and at most {MAX_HEADER:,} are read"
        )
    try:
        header = json_text.loads(bytes(data[8 : 8 + length]), unique=True)
    except ValueError as error:
        raise errors.CheckpointError(f"the safetensors header is {error}") from None
    if type(header) is not dict:
        raise errors.CheckpointError("the safetensors header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or not all(
        type(value) is str for value in metadata.values()
    ):
        raise errors.CheckpointError("the safetensors __metadata__ is not all text")
    content = len(data) - 8 - length
    tensors, spans = {}, []
    for name, described in header.items():
        tensors[name], span = _tensor(name, described, data, 8 + length)
        spans.append(span)
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise errors.CheckpointError(
                f"a safetensors entry starts at byte {start:,} where the one before it "
                f"ends at {position:,}: entries must neither overlap nor leave holes"
            )
        position = end
    if position != content:
        raise errors.CheckpointError(
            f"the safetensors entries end at byte {position:,} of {content:,}"
        )
    return tensors, metadata


def _tensor(
    name: str, described: Any, data: file_bytes.Data, begin: int
) -> tuple[tensor.Tensor, tuple[int, int]]:
    """One entry; its offsets count from byte `begin` of the file."""
    label = f"safetensors entry {errors.show(name)}"
    if type(described) is not dict:
        raise errors.CheckpointError(f"{label} is not a JSON object")
    dtype: Any = described.get("dtype")
    shape: Any = described.get("shape")
    offsets: Any = described.get("data_offsets")
    if type(dtype) is not str or dtype not in _DTYPES:
        raise errors.CheckpointError(
            f"{label} has dtype {errors.show(dtype)}, expected one of "
            + ", ".join(sorted(_DTYPES))
        )
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise errors.CheckpointError(f"{label} has a damaged shape or data_offsets")
    start, end = offsets
    if not start <= end <= len(data) - begin:
        raise errors.CheckpointError(
            f"{label} lies at bytes {start:,} to {end:,} of {len(data) - begin:,}: the "
            "file is cut off"
        )
    storage = tensor.Storage(
        _DTYPES[dtype], math.prod(shape), name, data, start=begin + start
    )
    if storage.count * storage.itemsize != end - start:
        raise errors.CheckpointError(
            f"{label} of shape {shape} and dtype {dtype} needs "
            f"{storage.count * storage.itemsize:,} bytes, the header gives it "
            f"{end - start:,}"
        )
    return tensor.Tensor(storage, shape), (start, end)


def _sizes(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) <= limits.MAX_RANK
        and all(type(size) is int and 0 <= size < 2**48 for size in value)
    )
