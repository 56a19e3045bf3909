"""Names and shapes of a state dict -> the networks in it, under a common naming.

Each architecture says itself what its tensors are called and how it is known
(`ban_jax.models.Architecture`). What is settled here is what programs put around the names
(`naming`), tensor by tensor:

  1. what is kept as several tensors, as weights with masks of pruning, becomes one;
  2. names are taken as they are, or else without the words of wrappers;
  3. under every prefix, the shortest first, a network is looked for; its last layer may
     have another prefix;
  4. what is left over is another name of a tensor in use, pixel constants, an entry of a
     loss or a metric - or unknown, and then no network of the group is accepted.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ban_jax import models
from ban_jax.checkpoints import (
    candidate,
    computed,
    contents,
    errors,
    hashing,
    limits,
    naming,
    network_search,
    pixels,
    tensor,
)
from ban_jax.models import pytorch_names


class Recognised(NamedTuple):
    """A network in a state dict, under the common names.

    Attributes:
      spec: the architecture; None if it is not a known one.
      reason: if None, why.
      tensors: by common name, PyTorch's layout; what no network has by the file's name.
      keys: common name -> the file's name.
      counters: the file's `num_batches_tracked`.
      mean, std: pixel constants beside the network, if there are any.
      clashes: the file's names that would have a common name twice.
      others: names of further architectures that have these tensors.
      root: what the names of the network share, empty or ending in a dot.
      aliases: further names of the file -> the common name of the same tensor.
      left_out: names of the file that are no part of a network, as they are shown.
      notes: what a reader should know.
    """

    spec: candidate.ModelSpec | None
    reason: str
    tensors: dict[str, Any]
    keys: dict[str, str]
    counters: dict[str, tensor.Tensor]
    mean: Any = None
    std: Any = None
    clashes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    root: str = ""
    aliases: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Common names of weights that are not there."""
        assert self.spec is not None
        return [
            name
            for name in network_search.expected(self.spec)
            if name not in self.tensors
        ]

    def identity(self) -> Any:
        """The same for networks that are made of the same tensors."""
        return self.spec, frozenset(
            (name, network_search.identity(value))
            for name, value in self.tensors.items()
        )


def networks(
    group: contents.StateDict,
    architecture: str | None = None,
    kinds: network_search.Kinds | None = None,
) -> list[Recognised]:
    """Finds the networks of a group: architecture, width, classes, channels and stem.

    Args:
      group: named tensors from a file.
      architecture: a name that is taken for granted instead of guessed.
      kinds: met in other groups of the file.

    Returns:
      At least one; a single one without a `spec` where nothing is known.
    """
    counters: dict[str, tensor.Tensor] = {}
    tensors: dict[str, Any] = {}
    origin: dict[str, str] = {}
    ignored: list[str] = []
    if any(name.startswith("params/") for name in group.tensors):
        tensors, origin = _from_flax(group.tensors)
    else:
        for name, value in group.tensors.items():
            if not naming.IGNORED.search(name) or not _may_be_ignored(name, value):
                tensors[name] = value
            elif name.endswith(naming.COUNTER):
                counters[name] = value
            elif "neuron_" in name:
                ignored.append(name)
    tensors, notes = computed.compose(tensors)
    known = (
        [architecture]
        if architecture is not None
        # The newest first: whoever registers a network with the names of ours means theirs.
        else list(reversed(list(models.ARCHITECTURES)))
    )
    best: tuple[network_search.Search, dict[str, Any], dict[str, str]] | None = None
    for spelled in _spellings(tensors):
        values = {new: tensors[name] for new, name in spelled.items()}
        found = network_search.search(values, known, kinds or network_search.Kinds())
        if best is None or len(found.whole) > len(best[0].whole):
            best = found, values, spelled
        if found.whole and not found.rest:
            break
    assert best is not None
    search, values, spelled = best
    names = {new: origin.get(name, name) for new, name in spelled.items()}
    if ignored:
        notes.append(f"{len(ignored)} noises and masks of neurons were left out")
    if not search.whole:
        return [_lacking(search, values, names, counters)]
    return _settled(search, values, names, counters, tuple(notes))


def unknown(reasons: dict[int, tuple[contents.StateDict, str]]) -> str:
    """What is said where no group is a network: the largest's reason, by its size."""
    if not reasons:
        return "holds no named tensors; expected the state dict of a classifier"
    group, reason = reasons[max(reasons)]
    reason = computed.advice(group.tensors) or reason
    empty = sum(not value.size for value in group.tensors.values())
    if 2 * empty > len(group.tensors):
        reason = (
            f"{empty} tensors are empty, as where each process keeps a part: join the "
            "parts, those of DeepSpeed with zero_to_fp32.py"
        )
    first = [
        f"{errors.show(name)} {value.shape}"
        for name, value in list(group.tensors.items())[:8]
    ]
    return (
        f"unknown architecture ({reason}); known: {architectures()}. "
        f"{errors.show(group.path) if group.path else 'The file'} has "
        f"{len(group.tensors)} tensors: {', '.join(first)}, ..."
    )


def architectures() -> str:
    """The known names, for messages."""
    return ", ".join(sorted(models.ARCHITECTURES))


def split(group: contents.StateDict) -> list[contents.StateDict]:
    """A group as it is; of names of a Flax tree among others, each kind by itself.

    What the names of other kinds hold would have no place in the Flax tree.
    """
    trees = tuple(f"{tree}/" for tree in (*hashing.HASHED, "normalisation"))
    flax = {n: v for n, v in group.tensors.items() if n.startswith(trees)}
    rest = {n: v for n, v in group.tensors.items() if n not in flax}
    if len(rest) < 2 or not any(name.startswith("params/") for name in flax):
        return [group]
    return [group._replace(tensors=flax), group._replace(tensors=rest)]


def _may_be_ignored(name: str, value: tensor.Tensor) -> bool:
    """Whether an entry is what its name says: a count, a noise, a mask that keeps all."""
    if "neuron_" not in name:
        return value.size == 1
    if len(value.shape) > 1:
        return False
    if "neuron_mask" not in name:
        return True
    budget = limits.Budget(2**20, "a mask of neurons")
    return bool((value.float32(budget) == 1).all())


def _spellings(tensors: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    """Spelling -> the file's name: as they are, then without the words of wrappers.

    Of two tensors that would have one spelling the second keeps its own, unless it is the
    same tensor: then its name goes first.
    """
    yield {name: name for name in tensors}
    bare: dict[str, str] = {}
    for name in tensors:
        new = naming.without_wrappers(name)
        bare[name if new in bare else new] = name
    if any(new != name for new, name in bare.items()):
        yield bare


def _lacking(
    search: network_search.Search,
    values: Mapping[str, Any],
    names: Mapping[str, str],
    counters: dict[str, tensor.Tensor],
) -> Recognised:
    """The group where no network is whole: what it is nearest to, or why it is none."""
    if not search.partial:
        reason = "; ".join(search.differences) or "no layers named as in any of them"
        return Recognised(None, reason, dict(values), dict(names), counters)
    fit = max(search.partial, key=lambda fit: len(fit.named.tensors))
    tensors = dict(fit.named.tensors)
    keys = {common: names[key] for common, key in fit.named.keys.items()}
    used = set(fit.named.keys.values()) | set(fit.named.clashes)
    for name, value in values.items():
        if name not in used and name not in tensors:
            tensors[name], keys[name] = value, names[name]
    foreign = [name for name in tensors if naming.is_foreign(keys[name])]
    table = network_search.expected(fit.spec) if fit.spec is not None else {}
    for name in foreign:
        if name not in table:
            del tensors[name], keys[name]
    return Recognised(
        fit.spec,
        fit.reason,
        tensors,
        keys,
        counters,
        clashes=tuple(names[key] for key in fit.named.clashes),
        others=fit.others,
        root=fit.root,
    )


def _settled(
    search: network_search.Search,
    values: Mapping[str, Any],
    names: Mapping[str, str],
    counters: Mapping[str, tensor.Tensor],
    notes: tuple[str, ...],
) -> list[Recognised]:
    """The whole networks of a group, each once, with what is left over sorted out."""
    used: dict[Any, tuple[int, str]] = {}
    made: list[dict[str, Any]] = []
    twins: list[str] = []
    for fit in search.whole:
        assert fit.spec is not None
        table = network_search.expected(fit.spec)
        # In the file's order, in which they are written back.
        own = {name: one for name, one in fit.named.tensors.items() if name in table}
        keys = {common: fit.named.keys[common] for common in own}
        identities = {
            common: network_search.identity(value) for common, value in own.items()
        }
        if any(other["identities"] == identities for other in made):
            twins += keys.values()
            continue
        for common, value in own.items():
            used.setdefault(network_search.identity(value), (len(made), common))
        made.append(
            {
                "fit": fit,
                "tensors": own,
                "keys": keys,
                "aliases": [],
                "identities": identities,
            }
        )
    left_out: list[str] = []
    rest = {name: values[name] for name in search.rest}
    for name in [*twins, *rest]:
        owner = used.get(network_search.identity(values[name]))
        if owner is not None:
            made[owner[0]]["aliases"].append((names[name], owner[1]))
            rest.pop(name, None)
    found = pixels.normalisers(rest)
    for one in found:
        for name in one.names:
            rest.pop(name, None)
    for name in [name for name in rest if naming.is_foreign(name)]:
        left_out.append(f"{errors.show(names[name])} {rest.pop(name).shape}")
    return [
        _recognised(one, rest, names, counters, found, left_out, notes) for one in made
    ]


def _recognised(
    one: Mapping[str, Any],
    unknown: Mapping[str, Any],
    names: Mapping[str, str],
    counters: Mapping[str, tensor.Tensor],
    found: list[pixels.Normaliser],
    left_out: list[str],
    notes: tuple[str, ...],
) -> Recognised:
    """One whole network; `unknown` entries make its conversion fail, which names them."""
    fit: network_search.Fit = one["fit"]
    tensors = dict(one["tensors"])
    keys = {common: names[key] for common, key in one["keys"].items()}
    clashes = []
    for name, value in unknown.items():
        common = name if name not in tensors else f"{name} "
        if name in fit.named.clashes:
            clashes.append(names[name])
        else:
            tensors[common], keys[common] = value, names[name]
    constants, doubt = pixels.chosen(found, fit.root)
    unused = [
        errors.show(names[name])
        for other in found
        if constants is None
        or (other.mean, other.std) != (constants.mean, constants.std)
        for name in other.names
    ]
    layers = {key.rpartition(".")[0] for key in keys.values()}
    return Recognised(
        fit.spec,
        "",
        tensors,
        keys,
        {
            name: value
            for name, value in counters.items()
            if name.rpartition(".")[0] in layers
        },
        constants.mean if constants else None,
        constants.std if constants else None,
        tuple(clashes),
        fit.others,
        fit.root,
        tuple(one["aliases"]),
        (*left_out, *unused),
        (*notes, *([doubt] if doubt else [])),
    )


def _from_flax(
    tensors: Mapping[str, tensor.Tensor],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors in PyTorch's layout by common name, and common name -> the file's."""
    renamed: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name, value in tensors.items():
        if name in ("normalisation/mean", "normalisation/std"):
            common = name.replace("/", ".")
        elif name.startswith(tuple(f"{tree}/" for tree in hashing.HASHED)):
            common = pytorch_names.common_name(name)
        else:
            continue
        # Two that would be one keep their own names, which no architecture has.
        common = name if common in renamed else common
        renamed[common] = to_torch_layout(name, value)
        keys[common] = name
    return renamed, keys


def to_torch_layout(name: str, value: tensor.Tensor) -> tensor.Tensor:
    """HWIO -> OIHW and `[F, K]` -> `[K, F]` of kernels, by permuting strides."""
    axes = pytorch_names.axes_to_pytorch(name, len(value.shape))
    units = pytorch_names.unit_axes(name)
    if axes is None and not units:
        return value
    axes = axes or tuple(range(len(value.shape)))
    return tensor.Tensor(
        value.storage,
        [*(value.shape[axis] for axis in axes), *units],
        [*(value.strides[axis] for axis in axes), *units],
        value.offset,
    )
