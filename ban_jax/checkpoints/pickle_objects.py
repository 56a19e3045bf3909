"""What a pickle may make: data for the names we know, inert objects for the rest.

The functions here are all that a name in a file can lead to. They get a budget and the
arguments as data, and return data.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ban_jax.checkpoints import errors, limits, tensor


class Symbol:
    """A name found in a file: `module.name`. Inert."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Placeholder:
    """An object that is not a tensor or plain data; remembers what was put into it.

    Attributes:
      kind: the name of its class in the file.
      state: what BUILD gave it: the `__dict__` of an instance, as plain data.
      items: what SETITEMS gave it, for subclasses of dict.
    """

    __slots__ = ("items", "kind", "state")

    def __init__(self, kind: str):
        self.kind = kind
        self.state: Any = None
        self.items: dict[str, Any] | None = None


class Dtype:
    """A NumPy dtype named in the file."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code = code
        self.order = "<"


class EmptyArray:
    """A NumPy array before BUILD gave it its content."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


def array(
    budget: limits.Budget, shape: Any, dtype: Any, fortran: Any, data: Any
) -> Any:
    """A NumPy array as a tensor, or a placeholder where it is not one of numbers."""
    budget.spend(400)
    known = isinstance(dtype, Dtype) and dtype.code in _NUMPY_CODES
    if not known or type(shape) is not tuple or not isinstance(data, memoryview):
        return Placeholder("array")
    name = _NUMPY_CODES[dtype.code]
    storage = tensor.Storage(name, 0, "array", data)
    storage.count = len(data) // storage.itemsize
    storage.order = dtype.order
    strides = None
    if fortran is True:
        strides = [1] * len(shape)
        for axis in range(1, len(shape)):
            strides[axis] = strides[axis - 1] * count(shape[axis - 1])
    return tensor.Tensor(storage, shape, strides)


def count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise errors.CheckpointError(f"{errors.show(value)} is not a size")
    return value


def _ordered_dict(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    made: dict[str, Any] = {}
    budget.spend(232)
    pairs = arguments[0] if arguments else []
    if type(pairs) is list:
        # The list was paid for once but can be used often: this copy is charged again.
        budget.spend(100 * len(pairs))
        for pair in pairs:
            if type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) is str:
                made[pair[0]] = pair[1]
    return made


def _default_dict(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    budget.spend(232)
    return {}


def _first(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """torch.Size(sizes), Parameter(data, ...): the first argument is the data."""
    return arguments[0] if arguments else ()


def _tensor(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) < 4 or not isinstance(arguments[0], tensor.Storage):
        return Placeholder("tensor without a readable storage")
    storage, offset, shape, strides = arguments[:4]
    if type(shape) is not tuple or type(strides) is not tuple:
        raise errors.CheckpointError("a tensor whose sizes are not a tuple")
    budget.spend(200 + 80 * len(shape))
    return tensor.Tensor(storage, shape, strides, offset)


def _tensor_subclass(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_from_type_v2(function, type, arguments, state)."""
    if len(arguments) < 3 or not isinstance(arguments[0], Symbol):
        return Placeholder("tensor subclass")
    if arguments[0].text in _TENSORS and type(arguments[2]) is tuple:
        return _tensor(budget, arguments[2])
    return Placeholder(arguments[0].text)


def reconstructor(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    known = arguments and isinstance(arguments[0], Symbol)
    return Placeholder(arguments[0].text if known else "object")


def _encode(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes."""
    if len(arguments) == 2 and type(arguments[0]) is str and arguments[1] == "latin1":
        budget.spend(len(arguments[0]) + 100)
        return memoryview(arguments[0].encode("latin-1"))
    return Placeholder("_codecs.encode")


def _dtype(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    code = arguments[0] if arguments else None
    return Dtype(code) if type(code) is str and len(code) < 8 else Placeholder("dtype")


def _scalar(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], Dtype):
        return Placeholder("numpy scalar")
    dtype, data = arguments
    if dtype.code not in _NUMPY_CODES or not isinstance(data, memoryview):
        return Placeholder("numpy scalar")
    numpy_dtype = np.dtype(dtype.code).newbyteorder(dtype.order)
    if len(data) != numpy_dtype.itemsize:
        raise errors.CheckpointError("a NumPy scalar of the wrong length")
    return np.frombuffer(data, numpy_dtype)[0].item()


def _reconstruct(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    return EmptyArray()


def _from_buffer(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 4:
        return Placeholder("array")
    data, dtype, shape, order = arguments
    return array(budget, shape, dtype, order == "F", data)


_NUMPY_CODES = {
    code: name for name, code in tensor.DTYPES.items() if name != tensor.BFLOAT16
} | {"b1": "bool"}
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
CALLS: dict[str, Callable[[limits.Budget, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type_v2": _tensor_subclass,
    "copyreg._reconstructor": reconstructor,
    "copy_reg._reconstructor": reconstructor,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
"""What the names in a file mean. The keys are compared as text; nothing is imported."""

_INERT_MODULES = (
    "__torch__.",  # TorchScript's own classes: no Python stands behind them
    "torch.jit._pickle.",
    "torch.nn.modules.",
    "torch.nn.parallel.data_parallel.",
    "torch.nn.parallel.distributed.",
)
_INERT = frozenset(
    """
    argparse.Namespace collections.Counter collections.deque copyreg.__newobj__
    copy_reg.__newobj__ datetime.date datetime.datetime datetime.time
    datetime.timedelta datetime.timezone decimal.Decimal fractions.Fraction
    pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
    pathlib.PureWindowsPath types.SimpleNamespace uuid.UUID PIL.Image.Image
    torch.device torch.Tensor torch.Generator torch.serialization._get_layout
    torch.storage.UntypedStorage torch.storage.TypedStorage torch.nn.parameter.Buffer
    torch.optim.swa_utils.AveragedModel
    torch.utils.data.dataset.Subset torch.utils.data.dataset.TensorDataset
    """.split()
) | {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in (
        "bool bytearray bytes complex dict float frozenset int list object range set "
        "slice str tuple"
    ).split()
}


def is_inert(name: str) -> bool:
    """Whether loading what `name` makes runs no code that the file chose.

    True for the reconstructions of `CALLS`, the rest of PyTorch's `_rebuild_*`
    functions, plain data types of Python, and PyTorch's layers, which are made without
    calling their constructors. Anything else, a class of the writer's own among them,
    is reported.
    """
    return (
        name in CALLS
        or name in _INERT
        or name.startswith(_INERT_MODULES)
        or name.startswith("torch._utils._rebuild_")
    )
