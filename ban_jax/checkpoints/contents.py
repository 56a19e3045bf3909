"""What lies in a file, and which part of it may be the classifier."""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    errors,
    hashing,
    limits,
    optimizer_slots,
    pickle_objects,
    tensor,
    watchdog,
)

PREFERRED = (
    "netC",
    "model_state_dict",
    "net_state_dict",
    "model",
    "state_dict",
    "net",
    "classifier",
)
"""Where the programs of the field keep the classifier, in the order in which the
released loaders look (BAN: netC, model_state_dict, model; FeatureRE: net_state_dict;
UNICORN: state_dict; kuangliu: net). Generators and triggers beside it (netG, netM) are
passed over because their layers match no architecture."""
MAX_DEPTH = 12
"""Containers inside containers in which classifiers are looked for."""
MAX_MODULE_DEPTH = 16
MAX_NAME = 300
"""Characters; longer names belong to no model and are passed over."""
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
"""Names that are shown, and that a part of a file can be asked for by."""
_CONTAINERS = (dict, list, tuple, pickle_objects.Placeholder)
_FLAX_PARAMETERS = re.compile(r"(\w+_)?params(_\w+)?")
"""Besides `params` itself, as `ema_params` or `params_ema` of a training state."""
_STATISTIC = "running_mean"
_MAX_JOINED = 4
"""Dicts that parts of one network are kept in: a backbone, a neck and a head."""
_MAX_STEPS = 2_000_000
"""Entries looked at: objects may share parts, so the file's size is no bound."""


class Contents(NamedTuple):
    """A file, read.

    Attributes:
      root: nested dicts, lists and placeholders, tensors at the leaves.
      metadata: the file's own remarks, if its format has a place for them.
      size: bytes of the file.
      compressed: whether its tensors may take more bytes than the file.
      calls: what its pickle asks to call or to make when Python's own pickle loads it,
        apart from the known reconstructions: qualified names such as `os.system`, each
        once, in the file's order. Nothing of it is run here.
      notes: what a reader should know of how it was read.
      part: which part of what it is, where the rest is not there.
    """

    root: Any
    metadata: Mapping[str, str]
    size: int
    compressed: bool = False
    calls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    part: str = ""


class StateDict(NamedTuple):
    """A group of named tensors in a file.

    Attributes:
      path: how to get there from the root, such as `netC`; empty for the root.
      tensors: by name; Flax trees have slashes in their names.
    """

    path: str
    tensors: dict[str, tensor.Tensor]


def state_dicts(root: Any) -> tuple[list[StateDict], list[str]]:
    """All groups of at least two named tensors, the likeliest classifier first.

    Returns:
      The groups, and what is to be said of places that were not looked into.

    Raises:
      CheckpointError: for an object with more parts than any checkpoint has.
    """
    order = {name: rank for rank, name in enumerate(PREFERRED)}

    def rank(group: StateDict) -> tuple[float, int]:
        steps = group.path.split("/") if group.path else []
        # BAN's loader tries the whole object after netC, model_state_dict and model.
        last = len(order) if steps else order["model"] + 0.5
        return min((order.get(step, last) for step in steps), default=last), len(steps)

    search = _Search()
    found = _with_buffers(sorted(search.run(root), key=rank))
    deep = f"what lies more than {MAX_DEPTH} containers deep was not looked into"
    return found, [deep] if search.cut else []


def _with_buffers(found: list[StateDict]) -> list[StateDict]:
    """The groups, with running statistics that lie in a dict of their own joined.

    `{"params": ..., "buffers": ...}` is one network. The likeliest parameters that lack
    them have them; averages of these stay apart.
    """
    kept = list(found)
    for buffers in found:
        layers = [
            name.removesuffix(_STATISTIC)
            for name in buffers.tensors
            if name.endswith(_STATISTIC)
        ]
        for place, group in enumerate(kept):
            if (
                layers
                and buffers.path.rpartition("/")[0] == group.path.rpartition("/")[0]
                and not buffers.tensors.keys() & group.tensors.keys()
                and all(f"{layer}weight" in group.tensors for layer in layers)
            ):
                kept[place] = group._replace(
                    tensors={**group.tensors, **buffers.tensors}
                )
                kept = [one for one in kept if one is not buffers]
                break
    return kept


def joined(groups: list[StateDict]) -> list[StateDict]:
    """Groups that lie in one dict, as one: `{"backbone": ..., "head": ...}`.

    Their names begin with that of the part they were in, as a module's would.
    """
    beside: dict[str, dict[str, dict[str, tensor.Tensor]]] = {}
    for group in groups:
        parent, _, name = group.path.rpartition("/")
        if name:
            beside.setdefault(parent, {})[name] = group.tensors
    return [
        StateDict(
            path,
            {
                f"{name}.{key}": one
                for name in parts
                for key, one in parts[name].items()
            },
        )
        for path, parts in beside.items()
        if 1 < len(parts) <= _MAX_JOINED
    ]


class _Search:
    """Breadth first, without recursion, each object once, with a bound on the work."""

    def __init__(self) -> None:
        self.steps = 0
        self.budget = limits.names()
        self.cut = False

    def entries(self, node: Any) -> Iterator[tuple[str, Any]]:
        """Names and values inside a dict, a list or a placeholder."""
        if isinstance(node, pickle_objects.Placeholder):
            state = node.state
            # Instances with slots: (the __dict__, the slots).
            for part in state if type(state) is tuple else (state,):
                if type(part) is dict:
                    yield from self.entries(part)
            if node.items:
                yield from self.entries(node.items)
            return
        if type(node) not in (dict, list, tuple):
            return  # a number or a single tensor is the whole file
        pairs: Iterable[tuple[Any, Any]]
        pairs = node.items() if type(node) is dict else enumerate(node)
        watchdog.check()
        for name, value in pairs:
            self.steps += 1
            if self.steps > _MAX_STEPS:
                raise errors.CheckpointError(
                    f"more than {_MAX_STEPS:,} objects inside objects"
                )
            if type(value) is pickle_objects.EmptyArray:
                value = value.value
            if not isinstance(name, str) or len(name) <= MAX_NAME:
                yield str(name), value

    def run(self, root: Any) -> Iterator[StateDict]:
        pending: collections.deque[tuple[str, Any, int]]
        pending = collections.deque([("", root, 0)])
        seen: set[int] = set()
        while pending:
            path, node, depth = pending.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            beside = self.entries(node)
            tensors: dict[str, tensor.Tensor] = {}
            if optimizer_slots.is_optimizer(node):
                yield from self.slots(f"{path}/state" if path else "state", node)
            if isinstance(node, pickle_objects.Placeholder):
                tensors, attributes = self.module(node)
                if len(tensors) > 1:
                    yield StateDict(path, tensors)
                    beside = iter(attributes)
            elif type(node) is dict and (trees := _flax_trees(node)):
                for name, tree in trees.items():
                    found = self.flax(tree)
                    if len(found) > 1:
                        tensors = found
                        yield StateDict("/".join(filter(None, (path, name))), found)
                if tensors:
                    told = {
                        id(part) for tree in trees.values() for part in tree.values()
                    }
                    beside = (one for one in beside if id(one[1]) not in told)
            if len(tensors) < 2:
                tensors = {
                    name: value
                    for name, value in self.entries(node)
                    if isinstance(value, tensor.Tensor)
                }
                self.budget.spend(100 * len(tensors))
                if len(tensors) > 1:
                    yield StateDict(path, tensors)
            for name, value in beside:
                if not self.may_hold(value):
                    continue
                if depth >= MAX_DEPTH:
                    self.cut = True
                    break
                name = name if _PLAIN.fullmatch(name) else "?"
                self.budget.spend(150 + len(path) + len(name))
                pending.append((f"{path}/{name}" if path else name, value, depth + 1))

    def may_hold(self, value: Any) -> bool:
        """Whether tensors may lie in a value: plain data is most of some files."""
        if isinstance(value, pickle_objects.Placeholder):
            return True
        if type(value) not in _CONTAINERS:
            return False
        return any(
            isinstance(one, (tensor.Tensor, *_CONTAINERS))
            for _, one in self.entries(value)
        )

    def slots(self, path: str, node: dict[str, Any]) -> Iterator[StateDict]:
        """What an optimizer keeps under one name for its parameters, by their order."""
        for name, values in optimizer_slots.weights_of(node["state"]).items():
            self.budget.spend(100 * len(values))
            name = name if _PLAIN.fullmatch(name) else "?"
            tensors = {str(place): value for place, value in enumerate(values)}
            if len(tensors) > 1:
                yield StateDict(f"{path}/{name}", tensors)

    def flax(self, node: dict[str, Any]) -> dict[str, tensor.Tensor]:
        """`params/...` and `batch_stats/...` of a Flax tree."""
        found: dict[str, tensor.Tensor] = {}
        pending = [
            (name, node[name], 0)
            for name in (*hashing.HASHED, "normalisation")
            if type(node.get(name)) is dict
        ]
        while pending:
            path, value, depth = pending.pop()
            for name, child in self.entries(value):
                if isinstance(child, tensor.Tensor):
                    self.budget.spend(300 + 2 * len(path))
                    found[f"{path}/{name}"] = child
                elif type(child) is dict and depth < MAX_MODULE_DEPTH:
                    self.budget.spend(150 + 2 * len(path))
                    pending.append((f"{path}/{name}", child, depth + 1))
        return found

    def module(
        self, node: pickle_objects.Placeholder
    ) -> tuple[dict[str, tensor.Tensor], list[tuple[str, Any]]]:
        """The state dict of a whole pickled module, from its parameters and buffers.

        Scripted modules keep tensors and submodules as plain attributes; PyTorch's own
        keep them in `_parameters`, `_buffers` and `_modules`.

        Returns:
          The tensors, and the other attributes that are containers or objects.
        """
        found: dict[str, tensor.Tensor] = {}
        attributes: list[tuple[str, Any]] = []
        pending = collections.deque([("", node, 0)])
        while pending:
            prefix, module, depth = pending.popleft()
            groups: list[Any] = []
            objects: list[tuple[str, Any]] = []
            for name, value in self.entries(module):
                if name in ("_parameters", "_buffers", "_modules"):
                    groups.append(value)
                elif type(value) in (dict, list, tuple) and value:
                    self.budget.spend(150 + len(prefix))
                    attributes.append((prefix + name, value))
                elif isinstance(value, pickle_objects.Placeholder):
                    self.budget.spend(150 + len(prefix))
                    objects.append((prefix + name, value))
            if groups:  # they are no submodules, and may be networks of their own
                attributes += objects
            for group in groups or [module]:
                if type(group) not in (dict, pickle_objects.Placeholder):
                    continue
                for name, value in self.entries(group):
                    if isinstance(value, tensor.Tensor):
                        self.budget.spend(300 + 2 * len(prefix))
                        found[prefix + name] = value
                    elif (
                        isinstance(value, pickle_objects.Placeholder)
                        and depth < MAX_MODULE_DEPTH
                    ):
                        self.budget.spend(150 + 2 * (len(prefix) + len(name)))
                        pending.append((f"{prefix}{name}.", value, depth + 1))
        return found, attributes


def _flax_trees(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> collections of the networks of a Flax training state; the main one has none.

    `{"params": ..., "batch_stats": ..., "ema_params": ...}` has two.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in node.items():
        if type(name) is not str or type(value) is not dict or _is_torch(value):
            continue
        if match := _FLAX_PARAMETERS.fullmatch(name):
            before, after = (part or "" for part in match.groups())
            statistics = node.get(f"{before}batch_stats{after}")
            label = "" if name == "params" else name
            found[label] = {"params": value}
            if type(statistics) is dict:
                found[label]["batch_stats"] = statistics
    if "" in found and type(node.get("normalisation")) is dict:
        found[""]["normalisation"] = node["normalisation"]
    return found if "" in found else {}


def _is_torch(node: dict[Any, Any]) -> bool:
    """Whether a dict is named as PyTorch names tensors: `{"params": state_dict}`."""
    return any(
        isinstance(value, tensor.Tensor) and "." in str(name)
        for name, value in node.items()
    )
