"""What a program is made from, as text that is the same in every process.

Two functions get one text only where they compute the same: their code is this package's,
whose sources are part of the text, and all that they carry along is spelled out. A function
from elsewhere has no text, since nobody can tell here when its code changes.
"""

import dataclasses
import enum
import functools
import hashlib
import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import ban_jax

PACKAGE = "ban_jax"
LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "optax", "chex")
"""Whose code is traced besides this package's."""
_VARIABLES = ("JAX_", "FLAX_", "XLA_")
_DEPTH = 20


class Unnamed(ValueError):
    """Something has no text that says all of it; says what."""


def name(value: Any, depth: int = _DEPTH) -> str:
    """All that decides what a static value does, as text.

    Args:
      value: numbers, text, containers, dataclasses (Flax modules among them) and functions
        of this package with what they close over, partial or not.
      depth: of nesting that is still looked into.

    Raises:
      Unnamed: for anything else.
    """
    if depth < 0:
        raise Unnamed("nested too deeply")
    told = functools.partial(name, depth=depth - 1)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        if type(value).__module__ in ("builtins", "numpy"):
            return f"{type(value).__name__}:{value!r}"
    if isinstance(value, enum.Enum):
        return f"{_class(type(value))}.{value.name}"
    if isinstance(value, np.dtype):
        return f"dtype:{value.str}"
    if isinstance(value, types.FunctionType):
        return _function(value, depth - 1)
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial({', '.join(map(told, parts))})"
    if isinstance(value, types.MethodType):
        return f"{told(value.__self__)}.{value.__func__.__qualname__}"
    if isinstance(value, tuple | list):
        return f"{_class(type(value))}[{', '.join(map(told, value))}]"
    if isinstance(value, set | frozenset):
        return f"{_class(type(value))}[{', '.join(sorted(map(told, value)))}]"
    if isinstance(value, Mapping):
        pairs = [f"{told(key)}: {told(item)}" for key, item in value.items()]
        return f"{_class(type(value))}[{', '.join(pairs)}]"
    if dataclasses.is_dataclass(value):
        fields = [
            f"{field.name}={told(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
        ]
        return f"{_class(type(value))}({', '.join(fields)})"
    raise Unnamed(f"a {type(value).__module__}.{type(value).__qualname__}")


def steady(text: str) -> str:
    """A text that holds no address of this process.

    Raises:
      Unnamed: where it does.
    """
    if " at 0x" in text:
        raise Unnamed(f"something without a text of its own, {text[:200]}")
    return text


def digest(*parts: str) -> str:
    """SHA-256 of texts, with this package's sources and all that tracing hangs on."""
    told = [*parts, _sources(), *map(_version, LIBRARIES), *_surroundings()]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _function(function: types.FunctionType, depth: int) -> str:
    """A function with what it closes over, and what tells lambdas of one line apart."""
    code, where = function.__code__, f"{function.__module__}.{function.__qualname__}"
    if not _is_ours(function.__module__):
        raise Unnamed(f"the function {where}")
    if "<locals>" not in where and "<lambda>" not in where:
        if _found(function.__module__, function.__qualname__) is not function:
            raise Unnamed(f"what took the place of {where}")
    elif not any(code.co_filename.startswith(folder + os.sep) for folder in _folders()):
        raise Unnamed(f"the function {where} of {code.co_filename}")
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    carried = (cells, function.__defaults__, function.__kwdefaults__, _code(code))
    return f"{where}:{code.co_firstlineno}({name(carried, depth)})"


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does: its operations, and the names and numbers they point at."""

    def told(constant: Any) -> Any:
        if isinstance(constant, types.CodeType):
            return _code(constant)
        if isinstance(constant, frozenset):  # in an order of its own in each process
            return ("frozenset", *sorted(map(repr, constant)))
        return repr(constant)

    return code.co_code, code.co_names, tuple(map(told, code.co_consts))


def _class(kind: type) -> str:
    """A class of this package or of a library, under its own name."""
    where = f"{kind.__module__}.{kind.__qualname__}"
    known = kind.__module__.partition(".")[0] in ("builtins", *LIBRARIES)
    if not known and not _is_ours(kind.__module__):
        raise Unnamed(f"the class {where}")
    if _found(kind.__module__, kind.__qualname__) is not kind:
        raise Unnamed(f"what took the place of the class {where}")
    return where


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _found(module: str, qualified: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


@functools.cache
def _folders() -> list[str]:
    """Of this package: that of the networks stands apart in a checkout."""
    networks = importlib.util.find_spec(f"{PACKAGE}.models")
    found = networks.submodule_search_locations if networks else None
    return [os.path.abspath(path) for path in (*ban_jax.__path__, *(found or ()))]


@functools.cache
def _sources() -> str:
    """Hash of every source file of this package."""
    found = hashlib.sha256()
    for folder in map(pathlib.Path, _folders()):
        for path in sorted(folder.rglob("*.py")):
            found.update(f"\0{path.relative_to(folder)}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _version(library: str) -> str:
    return f"{library} {getattr(sys.modules.get(library), '__version__', None)}"


def _surroundings() -> list[str]:
    """Python's version, JAX's settings as this thread has them, and what they come from."""
    settings = {
        key: getattr(jax.config, key, value)
        for key, value in jax.config.values.items()
        if "cache" not in key and "dump" not in key
    }
    variables = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(_VARIABLES) and "CACHE" not in key
    }
    return [
        sys.version,
        repr(sorted(settings.items())),
        repr(sorted(variables.items())),
    ]
