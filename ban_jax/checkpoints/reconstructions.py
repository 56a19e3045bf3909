"""What the names in a pickle mean: tensors, dicts and numbers; the rest stays inert.

The functions here are all that a name in a file can lead to. They get a budget and the
arguments as data, and return data. Where `torch.load(weights_only=True)` would make
something that is not modelled here, the file is refused, or the tensor is an opaque one
that says what it is: never left out, or a file could hold one model for PyTorch and
another for its reader.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ban_jax.checkpoints import errors, limits, pickle_objects, tensor


def array(
    budget: limits.Budget, shape: Any, dtype: Any, fortran: Any, data: Any
) -> Any:
    """A NumPy array as a tensor, or a placeholder where it is not one of numbers."""
    budget.spend(400)
    if not isinstance(dtype, pickle_objects.Dtype) or dtype.code not in NUMPY_CODES:
        return pickle_objects.odd_array(budget, data)
    if type(shape) is not tuple or not isinstance(data, memoryview):
        return pickle_objects.odd_array(budget, data)
    name = NUMPY_CODES[dtype.code]
    storage = tensor.Storage(name, 0, "array", data)
    storage.count = len(data) // storage.itemsize
    storage.order = dtype.order
    strides = None
    if fortran is True:
        strides = [1] * len(shape)
        for axis in range(1, len(shape)):
            strides[axis] = strides[axis - 1] * pickle_objects.count(shape[axis - 1])
    return tensor.Tensor(storage, shape, strides)


def _dictionary(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """OrderedDict(pairs) and Counter(mapping), as Python fills them."""
    made: dict[str | int | pickle_objects.OddKey, Any] = {}
    budget.spend(232)
    pairs = arguments[0] if arguments else []
    if type(pairs) is dict:
        budget.spend(60 * len(pairs))
        return dict(pairs)
    if type(pairs) not in (list, tuple):
        raise errors.CheckpointError("the pickle makes a dict of something else")
    # The list was paid for once but can be used often: this copy is charged again.
    budget.spend(100 * len(pairs))
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise errors.CheckpointError("the pickle makes a dict of no pairs")
        made[pickle_objects.key(pair[0])] = pair[1]
    return made


def _counter(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """Counter(mapping) is a dict; Counter(list) counts, and no tensor is a count."""
    if arguments and type(arguments[0]) is dict:
        return _dictionary(budget, arguments)
    return _empty(budget, arguments)


def _empty(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """A dict without entries: `defaultdict(factory)`, or what `cls.__new__` makes."""
    budget.spend(232)
    return {}


def _size(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """torch.Size(sizes)."""
    sizes = arguments[0] if arguments else ()
    if type(sizes) not in (tuple, list):
        return pickle_objects.Placeholder("torch.Size")
    budget.spend(8 * len(sizes))
    return tuple(sizes)


def _parameter(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """Parameter(data, ...): the data; `_rebuild_parameter_with_state` adds state."""
    if not arguments:
        raise errors.CheckpointError("a parameter without data, to be filled in later")
    if len(arguments) == 4:
        check_state(arguments[3])
    _check_attributes(budget, *arguments[2:])
    return arguments[0]


def _check_attributes(budget: limits.Budget, *states: Any) -> None:
    """Refuses attributes of a tensor in which other tensors lie: they would be lost."""
    if pickle_objects.holds_objects(budget, states):
        raise errors.CheckpointError(
            "a tensor has other tensors or objects in its attributes, which are not read"
        )


def check_state(state: Any) -> None:
    """Refuses attributes that are the numbers of a tensor under another name.

    PyTorch sets each attribute of the state, and setting `data` or `real` replaces the
    numbers. torch.save writes none of these.
    """
    parts = state if type(state) is tuple else (state,)
    for part in parts:
        if type(part) is dict and not _NUMBERS.isdisjoint(part):
            raise errors.CheckpointError(
                "the pickle replaces the numbers of a tensor by one of its attributes"
            )


def build(budget: limits.Budget, target: Any, state: Any) -> None:
    """BUILD: what an object is given after it was made.

    Raises:
      CheckpointError: where PyTorch would change numbers that are in place already.
    """
    if isinstance(target, pickle_objects.Placeholder):
        if target.state is not None:  # what it had before is accounted for, too
            budget.spend(300)
            target.items = target.items or {}
            target.items[pickle_objects.OddKey(None)] = target.state
        target.state = state
    elif isinstance(target, pickle_objects.Dtype):
        if type(state) is tuple and len(state) > 1 and state[1] in (">", "<", "|"):
            target.order = state[1]
    elif isinstance(target, pickle_objects.EmptyArray) and type(state) is tuple:
        made = array(budget, *state[1:]) if len(state) == 5 else None
        if made is None or target.value is not None:
            made = pickle_objects.odd_array(budget, (target.value, state))
        target.value = made
    elif isinstance(target, tensor.Tensor | tensor.Storage):
        # Old files: (requires_grad, volatile, hooks). Anything else could replace the
        # numbers, as `Tensor.set_` and `Tensor.data = ...` do.
        if type(state) is not tuple or len(state) != 3 or type(state[0]) is not bool:
            raise errors.CheckpointError("the pickle changes a tensor after making it")
    elif type(target) is dict and type(state) is dict:
        # The _metadata of a state dict is of no use here; a method of its own would
        # make the dict look like another one.
        if not _DICT_METHODS.isdisjoint(state):
            raise errors.CheckpointError("the pickle replaces a method of a dict")
        if pickle_objects.holds_objects(budget, state):
            budget.spend(140)
            target[pickle_objects.OddKey(None)] = state
    # Other targets are plain data, which has no attributes.


def _rebuild(
    budget: limits.Budget,
    parts: tuple[Any, ...],
    dtype: str | None = None,
    metadata: Any = None,
) -> Any:
    """A tensor from `(storage, offset, sizes, strides)`."""
    if len(parts) != 4:
        raise errors.CheckpointError("a tensor made of fewer than four parts")
    storage, offset, shape, strides = parts
    if type(shape) not in (tuple, list) or type(strides) not in (tuple, list):
        raise errors.CheckpointError("a tensor whose sizes are not a tuple")
    budget.spend(200 + 80 * len(shape))
    if not isinstance(storage, tensor.Storage):
        known = isinstance(storage, pickle_objects.Placeholder)
        return tensor.opaque(storage.kind if known else "of no storage", shape)
    if dtype is not None:
        if dtype not in tensor.DTYPES:
            return tensor.opaque(dtype, shape)
        budget.spend(120)
        storage = storage.as_dtype(dtype)
    made = tensor.Tensor(storage, shape, strides, offset)
    if metadata:
        if type(metadata) is not dict:
            raise errors.CheckpointError("the metadata of a tensor is damaged")
        # PyTorch sets a bit that is named, even where it is said to be False.
        bits = errors.listing([errors.show(name) for name in metadata], 4)
        return tensor.opaque(f"{storage.dtype} with its bits {bits} set", shape)
    return made


def _tensor(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_tensor_v2(four parts, requires_grad, hooks, metadata), and v1."""
    metadata = arguments[6] if len(arguments) > 6 else None
    _check_attributes(budget, *arguments[5:6])
    return _rebuild(budget, arguments[:4], metadata=metadata)


def _tensor_v3(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_tensor_v3(four parts, requires_grad, hooks, dtype, metadata)."""
    dtype = _dtype_name(arguments[6] if len(arguments) > 6 else None)
    metadata = arguments[7] if len(arguments) > 7 else None
    _check_attributes(budget, *arguments[5:6])
    return _rebuild(budget, arguments[:4], dtype, metadata)


def _dtype_name(value: Any) -> str:
    known = isinstance(value, pickle_objects.Symbol)
    return value.text.removeprefix("torch.") if known else "of an unnamed dtype"


def _quantised(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_qtensor(four parts, quantizer, ...): named, not read."""
    storage = arguments[0] if arguments else None
    if isinstance(storage, pickle_objects.Placeholder):
        return _opaque(budget, f"quantised ({storage.kind})", arguments[2:3])
    return _opaque(budget, "quantised", arguments[2:3])


def _sparse(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_sparse_tensor(layout, (indices, values, size, ...))."""
    data = arguments[1] if len(arguments) > 1 else None
    sizes = data[2:4] if type(data) is tuple else ()
    return _opaque(budget, "sparse", tuple(x for x in sizes if type(x) is tuple)[:1])


def _opaque(budget: limits.Budget, kind: str, shape: Any) -> Any:
    budget.spend(400)
    sizes = shape[0] if shape and type(shape[0]) in (tuple, list) else ()
    return tensor.opaque(kind, sizes)


def _of_kind(
    kind: str, at: int
) -> Callable[[limits.Budget, tuple[Any, ...]], tensor.Tensor]:
    """For the `_rebuild_*` functions whose numbers are not read."""

    def call(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
        return _opaque(budget, kind, arguments[at : at + 1])

    return call


def _on_device(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_device_tensor_from_numpy and _from_cpu_tensor(data, dtype, device, ...).

    What XLA and other devices without storages of their own are saved as.
    """
    data, dtype = (*arguments[:2], None, None)[:2]
    if isinstance(data, pickle_objects.EmptyArray):
        data = data.value
    if not isinstance(data, tensor.Tensor):
        return pickle_objects.Placeholder("device tensor")
    name = _dtype_name(dtype)
    if name == data.storage.dtype:
        return data
    return _opaque(budget, f"{data.storage.dtype} kept for {name}", (data.shape,))


def _tensor_subclass(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_rebuild_from_type_v2(function, type, arguments, state)."""
    if len(arguments) != 4 or not isinstance(arguments[0], pickle_objects.Symbol):
        raise errors.CheckpointError("a tensor subclass that is not made as usual")
    function, _, inner, state = arguments
    call = CALLS.get(function.text)
    check_state(state)
    if call is None:
        return _opaque(budget, f"made by {errors.show(function.text)}", ())
    if call is _tensor_subclass or type(inner) is not tuple:
        raise errors.CheckpointError("a tensor subclass inside another one")
    made = call(budget, inner)
    if type(made) is dict:
        build(budget, made, state)
    else:
        _check_attributes(budget, state)
    return made


def reconstructor(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """copyreg._reconstructor(class, base, state): how protocol 0 makes instances."""
    known = arguments and isinstance(arguments[0], pickle_objects.Symbol)
    made = pickle_objects.Placeholder(arguments[0].text if known else "object")
    if len(arguments) == 3 and type(arguments[2]) is dict:
        made.items = arguments[2]
    elif len(arguments) > 2:
        budget.spend(300)
        made.items = {pickle_objects.OddKey(None): arguments[2:]}
    return made


def _graph_module(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """torch.fx's reduce_graph_module(attributes, imports); its code is not run."""
    made = pickle_objects.Placeholder("torch.fx.graph_module.GraphModule")
    made.state = arguments[0] if arguments else None
    if len(arguments) > 1:
        budget.spend(300)
        made.items = {pickle_objects.OddKey(None): arguments[1:]}
    return made


def _encode(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes.

    Raises:
      CheckpointError: for other codecs, which could spell any text.
    """
    if len(arguments) != 2 or type(arguments[0]) is not str:
        raise errors.CheckpointError("the pickle encodes what is no text")
    if arguments[1] not in ("latin1", "latin-1"):
        raise errors.CheckpointError(
            f"the pickle encodes a text as {errors.show(arguments[1])}"
        )
    budget.spend(len(arguments[0]) + 100)
    return memoryview(arguments[0].encode("latin-1"))


def _dtype(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    code = arguments[0] if arguments else None
    if type(code) is str and len(code) < 8:
        return pickle_objects.Dtype(code)
    return pickle_objects.Placeholder("dtype")


def _scalar(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], pickle_objects.Dtype):
        return pickle_objects.Placeholder("numpy scalar")
    dtype, data = arguments
    if dtype.code not in NUMPY_CODES or not isinstance(data, memoryview):
        return pickle_objects.Placeholder("numpy scalar")
    numpy_dtype = np.dtype(dtype.code).newbyteorder(dtype.order)
    if len(data) != numpy_dtype.itemsize:
        raise errors.CheckpointError("a NumPy scalar of the wrong length")
    return np.frombuffer(data, numpy_dtype)[0].item()


def _reconstruct(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    return pickle_objects.EmptyArray()


def _from_buffer(budget: limits.Budget, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 4:
        return pickle_objects.Placeholder("array")
    data, dtype, shape, order = arguments
    return array(budget, shape, dtype, order == "F", data)


NUMPY_CODES = {code: name for name, code in tensor.NUMPY.items()} | {"b1": "bool"}
"""NumPy's codes for the dtypes it has, without their byte order."""
_NUMBERS = frozenset(("data", "real", "imag", "__class__", "__dict__"))
"""Attributes that change what numbers a tensor holds, or what setting one means."""
_DICT_METHODS = frozenset(dir(dict))
Call = Callable[[limits.Budget, tuple[Any, ...]], Any]
CALLS: dict[str, Call] = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _counter,
    "collections.defaultdict": _empty,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _of_kind("nested", 9),
    "torch._utils._rebuild_meta_tensor_no_storage": _of_kind("on no device", 1),
    "torch._utils._rebuild_wrapper_subclass": _of_kind("a wrapper", 2),
    "torch._utils._rebuild_device_tensor_from_numpy": _on_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _on_device,
    "torch._utils._rebuild_xla_tensor": _on_device,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    "torch._tensor._rebuild_from_type_v2": _tensor_subclass,
    "torch._tensor._rebuild_from_type": _tensor_subclass,
    "torch.tensor._rebuild_from_type_v2": _tensor_subclass,
    "torch.tensor._rebuild_from_type": _tensor_subclass,
    "torch.fx.graph_module.reduce_graph_module": _graph_module,
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
NEW: dict[str, Call] = {
    # `cls.__new__(cls, *arguments)` leaves a dict empty, whatever the arguments.
    "collections.OrderedDict": _empty,
    "collections.Counter": _empty,
}
"""Where making an object without its constructor (NEWOBJ) differs from a call."""
