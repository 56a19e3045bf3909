"""Programs that an earlier process traced, so that this one need not.

Tracing and lowering hold Python up for longer than JAX takes to load the executable from
its own cache. What they give, StableHLO as `jax.export` writes it, is kept in a file named
after all that decides it (`naming`); JAX compiles it, or finds the executable, as ever.
The first process takes the same way, so that all compile the same program.

A file is data and never pickled. It is taken when it is a file of this user that nobody
else can write to, bears its own name inside, and is whole; else a warning says why not and
the program is traced anew.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import export

from ban_jax.population import memory, naming
from ban_jax.storage import atomic, compile_cache

FORMAT = 1
LARGEST = 256 << 20
"""Bytes of a file that are read at most."""


class Program:
    """A compiled program of the leaves of trees, called with the trees.

    Args:
      compiled: `(leaves of the members, leaves of what is shared) -> leaves`.
      result: description of the result's structure, from `described`.
      needed: see below, where it is known.

    Attributes:
      needed: bytes it takes on one device; None where XLA does not say.
      out_info: shapes and types of its result.
    """

    def __init__(
        self, compiled: jax.stages.Compiled, result: Any, needed: int | None = None
    ):
        self._compiled = compiled
        self._result = result
        self.needed = memory.needed(compiled) if needed is None else needed
        self.out_info = rebuilt(result, jax.tree.leaves(compiled.out_info))

    def __call__(self, members: Any, shared: Any) -> Any:
        found = self._compiled(
            *(tuple(jax.tree.leaves(one)) for one in (members, shared))
        )
        return rebuilt(self._result, found)


class Traced(NamedTuple):
    """A program that is not compiled yet.

    Attributes:
      blob: an `Exported`, serialized.
      result: description of the result's structure, from `described`.
      needed: bytes that it took on one device, which XLA is slow to tell; None: unknown.
    """

    blob: bytes
    result: Any
    needed: int | None = None


@functools.cache
def _can_serialize() -> bool:
    """`jax.export` writes with a package that JAX does not require."""
    return importlib.util.find_spec("flatbuffers") is not None


def are_kept() -> bool:
    """Whether this process keeps what it traces."""
    return compile_cache.traced() is not None and _can_serialize()


def trace(
    function: Callable[[Any, Any], Any],
    structures: Sequence[Any],
    leaves: Sequence[Any],
    told: Mapping[str, Any],
) -> Traced:
    """A function of `(members, shared)`, traced and lowered.

    Args:
      function: pure.
      structures: of the two trees.
      leaves: shapes of theirs, two tuples.
      told: to `jax.jit`.

    Raises:
      ValueError: where the program cannot be kept.
    """
    results: list[Any] = []

    def on_leaves(*flat: Any) -> Any:
        result = function(*map(jax.tree.unflatten, structures, flat))
        results.append(described(result))
        return tuple(jax.tree.leaves(result))

    exported = export.export(jax.jit(on_leaves, **told))(*leaves)
    return Traced(bytes(exported.serialize()), results[0])


def compiled(
    traced: Traced, name: str, leaves: Sequence[Any], told: Mapping[str, Any]
) -> Program:
    """A traced program, compiled or found among JAX's executables.

    Args:
      traced: the program.
      name: that it has in JAX's messages.
      leaves: as it was traced with.
      told: as it was traced with.

    Raises:
      Exception: whatever JAX raises for a program of another version.
    """
    exported = export.deserialize(bytearray(traced.blob))

    def call(*flat: Any) -> Any:
        return exported.call(*flat)

    call.__name__ = name
    made = jax.jit(call, **told).lower(*leaves).compile()
    return Program(made, traced.result, traced.needed)


def path_of(key: str) -> str | None:
    """The file of a program; None where none are kept."""
    folder = compile_cache.traced()
    return os.path.join(folder, f"{key}.program") if folder else None


def read(key: str) -> Traced | None:
    """What an earlier process of this user kept under a key; None where there is nothing.

    Warns where there is something that cannot be used.
    """
    path = path_of(key)
    if path is None or not os.path.lexists(path):
        return None
    try:
        return _checked(_own_bytes(path), key)
    except (OSError, ValueError) as error:
        ignored(path, error)
        return None


def ignored(path: str, error: Exception) -> None:
    """Warns of a file that is not used."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    warnings.warn(
        f"{path}: is not used, the program is traced anew: {reason}", stacklevel=3
    )


def keep(key: str, traced: Traced) -> None:
    """Writes a program for later processes; one that cannot be written is not kept."""
    path = path_of(key)
    if path is None:
        return
    head = {
        "format": FORMAT,
        "key": key,
        "sha256": hashlib.sha256(traced.blob).hexdigest(),
        "result": traced.result,
        "needed": traced.needed,
    }
    with contextlib.suppress(OSError, atomic.OutputError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # As `_own_bytes` asks, whatever the umask.
        atomic.write(path, [json.dumps(head).encode(), b"\n", traced.blob], mode=0o600)


def _own_bytes(path: str) -> bytes:
    """A file that nobody else has a hand in.

    Raises:
      ValueError: for any other.
      OSError: where it cannot be read.
    """
    if reason := compile_cache.unsafe(os.path.dirname(path)):
        raise ValueError(f"its folder {reason}")
    with open(atomic.own_file(path, os.O_RDONLY), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            raise ValueError("it belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("it can be written to by others (chmod go-w)")
        if status.st_size > LARGEST:
            raise ValueError(
                f"it has {status.st_size} bytes, at most {LARGEST} expected"
            )
        return file.read()


def _checked(data: bytes, key: str) -> Traced:
    """The program in a file's bytes.

    Raises:
      ValueError: where they are not what `keep` wrote under this key.
    """
    head, _, blob = data.partition(b"\n")
    told = json.loads(head)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ValueError(f"it is not a program of format {FORMAT}")
    if told.get("key") != key:
        raise ValueError("it is another program, under this one's name")
    if told.get("sha256") != hashlib.sha256(blob).hexdigest():
        raise ValueError("it is damaged: its hash is not the one it was written with")
    needed = told.get("needed")
    return Traced(blob, told.get("result"), needed if type(needed) is int else None)


def described(tree: Any) -> Any:
    """A tree's structure for JSON; leaves are None, counted in JAX's order.

    Raises:
      ValueError: for a tree of anything but dicts, tuples, lists and named tuples of this
        package.
    """
    if tree is None:
        return {"none": True}
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise ValueError("a result with keys that are no text")
        return {"dict": [[key, described(tree[key])] for key in sorted(tree)]}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        kind = type(tree)
        if _kind(kind.__module__, kind.__qualname__) is not kind:
            raise ValueError(f"a result of {kind.__module__}.{kind.__qualname__}")
        where = [kind.__module__, kind.__qualname__]
        return {"named": [where, [described(one) for one in tree]]}
    if isinstance(tree, tuple | list):
        word = "tuple" if isinstance(tree, tuple) else "list"
        return {word: [described(one) for one in tree]}
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(tree)):
        raise ValueError(f"a result of {type(tree).__name__}")
    return None


def rebuilt(structure: Any, leaves: Sequence[Any]) -> Any:
    """The tree that `described` told the structure of, from its leaves."""
    rest = iter(leaves)

    def build(told: Any) -> Any:
        if told is None:
            return next(rest)
        ((word, parts),) = told.items()
        if word == "none":
            return None
        if word == "dict":
            return {key: build(part) for key, part in parts}
        if word == "named":
            (module, name), items = parts
            return _kind(module, name)(*map(build, items))
        return (tuple if word == "tuple" else list)(map(build, parts))

    return build(structure)


def _kind(module: str, name: str) -> Any:
    """A named tuple of this package.

    Raises:
      ValueError: for anything else.
    """
    if module.partition(".")[0] != naming.PACKAGE:
        raise ValueError(f"a result of {module}.{name}")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and hasattr(found, "_fields")):
        raise ValueError(f"{module}.{name} is no named tuple")
    return found
