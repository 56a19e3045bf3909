"""Which calls of a pickle are worth telling: all but the known and harmless ones."""

import itertools
import re
from typing import Any

from ban_jax.checkpoints import errors, limits, pickle_objects, reconstructions, tensor

MAX_CALLS = 1000
"""Names remembered of those a file asks to call."""
NEW_OBJECT = ("copyreg.__newobj__", "copy_reg.__newobj__")
CALLING = frozenset(
    """
    collections.defaultdict copyreg.__newobj__ copy_reg.__newobj__
    copyreg._reconstructor copy_reg._reconstructor
    torch._tensor._rebuild_from_type_v2 torch._tensor._rebuild_from_type
    torch.tensor._rebuild_from_type_v2 torch.tensor._rebuild_from_type
    """.split()
)
"""Of the known names, those that in Python call what they are given."""
_RUNNING = frozenset(("torch.fx.graph_module.reduce_graph_module",))
"""Of the known names, those that in Python run code from the file."""
QUIET = frozenset(reconstructions.CALLS) - CALLING - _RUNNING
"""The names of every checkpoint, of which nothing is told."""
_CLASSES = re.compile(
    r"(torch\.nn\.modules|torch\.nn\.parallel|torch\.optim|torch\.ao\.nn(\.\w+)*"
    r"|torchvision\.(models|transforms|ops|datasets)(\.\w+)*|timm\.(models|layers))"
    r"\.[a-z0-9_]+\.[A-Z]\w*"
    # TorchScript's own: no Python stands behind them.
    r"|__torch__\.[\w.]+"
)
"""Classes of well-known libraries, one name below a module: no way further inside."""
_INERT = frozenset(
    """
    collections.deque argparse.Namespace datetime.date datetime.datetime
    datetime.time datetime.timedelta datetime.timezone decimal.Decimal
    fractions.Fraction types.SimpleNamespace
    pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
    pathlib.PureWindowsPath uuid.UUID PIL.Image.Image
    numpy.random._pickle.__generator_ctor numpy.random._pickle.__randomstate_ctor
    numpy.random._pickle.__bit_generator_ctor numpy.random._mt19937.MT19937
    torch.device torch.Generator torch.serialization._get_layout
    torch.storage.UntypedStorage torch.storage.TypedStorage
    torch.utils.data.dataset.Subset torch.utils.data.dataset.TensorDataset
    torch.jit._pickle.build_boollist torch.jit._pickle.build_doublelist
    torch.jit._pickle.build_intlist torch.jit._pickle.build_tensorlist
    torch.jit._pickle.build_tensor_from_id torch.jit._pickle.restore_type_tag
    """.split()
) | {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in (
        "bool bytearray bytes complex dict float frozenset int list object range "
        "set slice str tuple"
    ).split()
}


_VALUES = re.compile(
    r"torch\.((cuda|sparse|storage|cuda\.sparse)\.)?[A-Z]\w*(Tensor|Storage)|torch\.Tensor"
    r"|torch\.(bool|b?float\d\w*|complex\d+|q?u?int\d\w*|bits\d\w*|per_\w+_affine\w*"
    r"|per_\w+_symmetric|strided|sparse_[a-z]+|jagged|\w+_format|channels_last\w*)"
    r"|torch\.(relu|sigmoid|tanh|softmax)_?|torch\.nn\.(functional|init)\.\w+"
    r"|torch\._C\._nn\.\w+|numpy\.(ndarray|generic|bool_?|str_|bytes_|object_|void"
    r"|u?int\d*|u?intc|float\d+|complex\d+|datetime64|timedelta64)"
)
"""Types and functions of PyTorch and NumPy that files refer to as plain values."""
_DATASETS = re.compile(r"torchvision\.datasets\.")
"""Classes whose constructors fetch and unpickle files; their instances are plain data."""
ONLY_IMPORTED = " (imported, not called)"
"""What is said behind the name of what is loaded with its module and nothing more."""


def is_inert(name: str) -> bool:
    """Whether loading what `name` makes runs no code that the file chose.

    True for the known reconstructions, plain data types of Python, and the layers of
    well-known libraries. Anything else is reported, a class of the writer's own too:
    its module is imported and its methods run.
    """
    return (
        name in QUIET
        or name in CALLING
        or name in _INERT
        or _CLASSES.fullmatch(name) is not None
    )


class Calls:
    """Names that a pickle asks to call or import, each once, in the file's order.

    Attributes:
      asked: those worth telling.
      imported: those worth telling for which a module is loaded, called or not.
      unread: those given tensors, which are therefore not read.
    """

    __slots__ = ("asked", "budget", "imported", "known", "unread")

    def __init__(self, budget: limits.Budget):
        self.budget = budget
        self.asked: dict[str, None] = {}
        self.imported: dict[str, None] = {}
        self.known: set[str] = set()
        self.unread: dict[str, None] = {}

    @property
    def told(self) -> tuple[str, ...]:
        """What is asked for: calls, and then what is imported without one."""
        more = [name for name in self.imported if name not in self.asked]
        return (*self.asked, *(name + ONLY_IMPORTED for name in more))[:MAX_CALLS]

    def imports(self, name: str) -> None:
        """Remembers a name: its module is imported, which runs the module."""
        if name in self.known:
            return
        if len(self.known) < MAX_CALLS:
            self.budget.spend(160)
            self.known.add(name)
        if not is_inert(name) and not _VALUES.fullmatch(name):
            self._add(self.imported, name)

    def note(self, name: str, arguments: Any, new: bool = False) -> None:
        """Remembers a call of a name that is not `QUIET`.

        Args:
          name: the function or class.
          arguments: that it is given.
          new: whether an instance is made without its constructor.

        Raises:
          CheckpointError: for PyTorch's tensor classes, whose numbers would be missed.
        """
        if name.startswith("torch.") and name.endswith("Tensor"):
            raise errors.CheckpointError(
                f"the pickle makes a new {errors.show(name)}, which torch.save does not"
            )
        if name not in CALLING:
            if _holds_numbers(arguments):
                self._add(self.unread, name)
            if not is_inert(name) or (_DATASETS.match(name) and not new):
                self._add(self.asked, name)
        # A harmless class may call what it is given (`LambdaLR` does, to begin with).
        if type(arguments) is tuple and name not in QUIET:
            for argument in arguments[:8]:
                if isinstance(argument, pickle_objects.Symbol):
                    if not is_inert(argument.text):
                        self._add(self.asked, argument.text)

    def _add(self, names: dict[str, None], name: str) -> None:
        if name not in names and len(names) < MAX_CALLS:
            self.budget.spend(160)
            names[name] = None


def _holds_numbers(arguments: Any) -> bool:
    """Whether tensors are among the first arguments, directly or one level down."""
    if type(arguments) is not tuple:
        return False
    for argument in arguments[:8]:
        parts: Any = (argument,)
        if type(argument) is dict:
            parts = itertools.islice(argument.values(), 8)
        elif type(argument) in (list, tuple):
            parts = argument[:8]
        if any(isinstance(part, tensor.Tensor | tensor.Storage) for part in parts):
            return True
    return False
