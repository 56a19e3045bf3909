"""Where in a list of tensors networks are, architecture by architecture.

Under every prefix of the names, the shortest first, each architecture is asked whether the
tensors are its own; where only the last layer is missing, it is looked for elsewhere.
"""

import functools
import threading
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ban_jax import models
from ban_jax.checkpoints import candidate, errors, naming

MAX_KINDS = 8
"""Architectures, widths and class counts that differ, in one file."""
_MAX_PARTIAL = 8
"""Networks that lack something, in one group: no more are looked at."""
_MAX_KEPT = 1 << 19
"""Bytes of names and shapes that are remembered: a stranger's million names are not."""
_tracing = threading.Lock()


class Named(NamedTuple):
    """Tensors under the common names of one architecture.

    Attributes:
      tensors: by common name, PyTorch's layout.
      keys: common name -> the spelling it was found under.
      clashes: spellings that would have a common name twice.
    """

    tensors: dict[str, Any]
    keys: dict[str, str]
    clashes: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Common name -> shape."""
        return {name: value.shape for name, value in self.tensors.items()}


class Fit(NamedTuple):
    """An architecture that fits the tensors under a prefix.

    Attributes:
      root: the prefix.
      architecture: its name.
      spec: the network; None where sizes cannot be read off, and `reason` says why.
      reason: see `spec`.
      named: its tensors, and those under the prefix that are not its own.
      others: further architectures that fit.
    """

    root: str
    architecture: str
    spec: candidate.ModelSpec | None
    reason: str
    named: Named
    others: tuple[str, ...] = ()


class Kinds:
    """The kinds of networks met in one file, of which there is a bound.

    What a network is made of comes from tracing it, which takes a fraction of a second.
    """

    def __init__(self) -> None:
        self._met: set[candidate.ModelSpec] = set()

    def expected(
        self, spec: candidate.ModelSpec
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `expected`."""
        self._met.add(spec)
        if len(self._met) > MAX_KINDS:
            raise errors.CheckpointError(
                f"tensors as of more than {MAX_KINDS} kinds of networks"
            )
        return expected(spec)

    def is_whole(self, fit: Fit) -> bool:
        """Whether every weight is there, in its shape."""
        if fit.spec is None:
            return False
        shapes = fit.named.shapes
        table = self.expected(fit.spec)
        return all(shapes.get(name) == shape for name, (_, shape) in table.items())


class Search(NamedTuple):
    """What one spelling of the names led to.

    Attributes:
      whole: networks of which all is there.
      partial: those that lack something, found where there was no whole one.
      rest: spellings of which no whole network has the tensor.
      differences: how the tensors differ from known architectures.
    """

    whole: list[Fit]
    partial: list[Fit]
    rest: list[str]
    differences: list[str]


def expected(spec: candidate.ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Common name -> (our name, shape in PyTorch's layout) of every weight."""
    with _tracing:  # threads that read files of one kind must not all trace it
        return _expected(spec)


@functools.lru_cache(maxsize=256)
def _expected(spec: candidate.ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    return models.architecture.shapes_of(spec.create())


def search(values: Mapping[str, Any], known: list[str], kinds: Kinds) -> Search:
    """Networks under every prefix."""
    found = Search([], [], [], [])
    rest = dict.fromkeys(values)
    heads = _linear_layers(values)
    for root, names in naming.prefixes(values):
        if not rest:
            break
        inside = {name[len(root) :]: values[name] for name in names if name in rest}
        if len(inside) < 2:
            continue
        fit = _fit(root, inside, known, found.differences)
        if fit is None:
            continue
        if not kinds.is_whole(fit):
            fit = _with_head(fit, heads, kinds) or fit
        if kinds.is_whole(fit):
            found.whole.append(fit)
            assert fit.spec is not None
            for common in expected(fit.spec):
                rest.pop(fit.named.keys[common], None)
        else:
            found.partial.append(fit)
            if len(found.partial) >= _MAX_PARTIAL:
                break
    if len(known) == 1 and not found.whole and not found.partial:
        # An architecture that was taken for granted: it is said what is missing.
        root = naming.common_prefix(values)
        inside = {name[len(root) :]: value for name, value in values.items()}
        named = _named(models.ARCHITECTURES[known[0]], root, inside)
        found.partial.append(Fit(root, known[0], *_spec(known[0], named), named))
    return found._replace(rest=list(rest))


def _linear_layers(values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Layer -> weight `[K, F]` and bias `[K]` of what can be a last layer."""
    layers = {}
    for name, value in values.items():
        layer, _, leaf = name.rpartition(".")
        bias = values.get(f"{layer}.bias")
        if (
            leaf == "weight"
            and len(value.shape) == 2
            and bias is not None
            and bias.shape == value.shape[:1]
            and not naming.is_foreign(layer)
        ):
            layers[layer] = (value, bias)
    return layers


def _fit(
    root: str, inside: Mapping[str, Any], known: list[str], differences: list[str]
) -> Fit | None:
    """The architecture of the tensors under a prefix.

    Args:
      root: the prefix.
      inside: the tensors under it, without it.
      known: names of architectures to try.
      differences: collects how the tensors differ.
    """
    shapes = tuple((name, value.shape) for name, value in inside.items())
    size = sum(64 + len(name) + 32 * len(shape) for name, shape in shapes)
    match = _match if size <= _MAX_KEPT else _match.__wrapped__
    asked = tuple((name, models.ARCHITECTURES[name]) for name in known)
    fitting, found = match(shapes, asked)
    for difference in found:
        if difference not in differences:
            differences.insert(0, difference)
    if not fitting:
        return None
    (name, are_own), *others = fitting
    if are_own:
        inside = {one: inside[one] for one in inside if not naming.is_foreign(one)}
    named = _named(models.ARCHITECTURES[name], root, inside)
    return Fit(
        root, name, *_spec(name, named), named, tuple(other for other, _ in others)
    )


@functools.lru_cache(maxsize=32)
def _match(
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    known: tuple[tuple[str, models.Architecture], ...],
) -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...]]:
    """Which architectures fit; the files of a folder are mostly of the same few.

    Args:
      shapes: of the tensors, by name.
      known: architectures to try, by name.

    Returns:
      Each that fits, and whether only without names of what is no network's; how the
      tensors differ from the others.
    """
    inside = dict(shapes)
    own = {name: inside[name] for name in inside if not naming.is_foreign(name)}
    fitting, differences = [], []
    for name, architecture in known:
        for subset in (inside, own) if len(own) < len(inside) else (inside,):
            names, _ = _renamed(architecture, subset)
            difference = architecture.difference(
                {common: subset[bare] for common, bare in names.items()}
            )
            if difference is None:
                fitting.append((name, subset is own))
                break
            if difference:
                differences.append(difference)
    return tuple(fitting), tuple(differences)


def _named(
    architecture: models.Architecture, root: str, inside: Mapping[str, Any]
) -> Named:
    """The tensors under the names an architecture gives them."""
    names, clashes = _renamed(architecture, inside)
    return Named(
        {common: inside[bare] for common, bare in names.items()},
        {common: root + bare for common, bare in names.items()},
        tuple(root + bare for bare in clashes),
    )


def _renamed(
    architecture: models.Architecture, inside: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Common name -> the name it was found under, and names that would have one twice."""
    names = architecture.rename(list(inside))
    found: dict[str, str] = {}
    clashes = []
    for bare in inside:
        if found.setdefault(names.get(bare, bare), bare) is not bare:
            clashes.append(bare)
    return found, clashes


def _with_head(
    fit: Fit, heads: Mapping[str, tuple[Any, Any]], kinds: Kinds
) -> Fit | None:
    """The same with its last layer, where exactly one layer elsewhere can be it."""
    head = classifier_name(fit.architecture)
    if f"{head}.weight" in fit.named.tensors:
        return None
    made: dict[Any, Fit] = {}
    features = 0
    for layer, (weight, bias) in heads.items():
        if features and weight.shape[1] != features:
            continue
        moved = {f"{layer}.{leaf}" for leaf in ("weight", "bias")}
        keys = {c: k for c, k in fit.named.keys.items() if k not in moved}
        tensors = {common: fit.named.tensors[common] for common in keys}
        tensors |= {f"{head}.weight": weight, f"{head}.bias": bias}
        keys |= {f"{head}.{leaf}": f"{layer}.{leaf}" for leaf in ("weight", "bias")}
        named = Named(tensors, keys, fit.named.clashes)
        spec, reason = _spec(fit.architecture, named)
        if spec is None:
            return None
        if not features:  # the same whatever the number of classes
            features = kinds.expected(spec)[f"{head}.weight"][1][1]
        if weight.shape[1] == features:
            made[identity(weight)] = fit._replace(spec=spec, reason=reason, named=named)
    return made.popitem()[1] if len(made) == 1 else None


def classifier_name(architecture: str) -> str:
    """Common name of the last layer."""
    constructor: Any = models.ARCHITECTURES[architecture].constructor
    made = getattr(constructor, "func", constructor)
    return str(getattr(made, "classifier_name", "linear"))


def _spec(name: str, named: Named) -> tuple[candidate.ModelSpec | None, str]:
    """The network of an architecture that has tensors of these shapes."""
    try:
        fields = models.ARCHITECTURES[name].fields(named.shapes)
        return candidate.ModelSpec.of(name, **fields), ""
    except ValueError as error:
        return None, str(error)


def identity(value: Any) -> tuple[Any, ...]:
    """The same for two names of one tensor."""
    parts = getattr(value, "parts", None)
    if parts is not None:
        return tuple(map(identity, parts))
    return id(value.storage), value.offset, value.shape, value.strides
