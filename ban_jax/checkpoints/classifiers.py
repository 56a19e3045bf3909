"""Every classifier among the contents of a file.

Each becomes a candidate of its own: weights beside their running average, the models of an
ensemble, clients beside a global model, two networks of one state dict. What is only
another name of the same tensors is no further classifier.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ban_jax.checkpoints import (
    accounting,
    candidate,
    contents,
    convert,
    errors,
    hashing,
    image_networks,
    limits,
    manifest,
    network_search,
    order,
    part_paths,
    recognise,
    stem_notes,
)

ROOT = "."
"""Name of the part that is the file itself."""
REST = "rest"
"""Name of the part that is all of a file that was neither judged nor recognised."""
_AVERAGE = re.compile(
    r"(^|[^a-z])(ema|swa|avg)|(ema|swa|avg|EMA|SWA)($|[^a-zA-Z])|averag|shadow|polyak|teacher"
)
"""A container's name that says it holds averaged weights. Programs average parameters
alone, and load them over the model: running statistics are the model's own."""


class Part(NamedTuple):
    """A classifier in a file.

    Attributes:
      path: the file's where it is the only one, else see `part_paths`.
      candidate: None where it cannot be converted.
      error: why.
    """

    path: str
    candidate: candidate.Candidate | None
    error: errors.CheckpointError | None = None


class _Found(NamedTuple):
    """A network, and the group it was found in.

    Attributes:
      container: path of the group, see `contents.StateDict`.
      name: of the part.
      network: recognised.
      notes: what is said of this one.
    """

    container: str
    name: str
    network: recognise.Recognised
    notes: tuple[str, ...] = ()


def of(path: str, content: contents.Contents, architecture: str | None) -> list[Part]:
    """The classifiers in a file, the likeliest first.

    Args:
      path: beside which remarks are looked for; empty where there is no file.
      content: of the file.
      architecture: a known name, instead of the recognised one.

    Raises:
      CheckpointError: when there is none, or the only one does not fit.
    """
    try:
        return _of(path, content, architecture)
    except errors.CheckpointError as error:
        if not content.part:
            raise
        raise errors.CheckpointError(
            f"{content.part}; {error}", calls=error.calls, other=error.other
        ) from error


def _of(path: str, content: contents.Contents, architecture: str | None) -> list[Part]:
    found, groups, remarks = _found(content, architecture)
    remarks = [*content.notes, *remarks]
    budget = limits.copies(content.size)
    if content.compressed:
        budget = limits.inflated(content.size)
    if len(found) == 1 and found[0].network.missing():
        return [Part(path, _candidate(path, content, found[0], remarks, budget))]
    judged = [one.network.tensors for one in found]
    passed = image_networks.among(groups)
    rest = accounting.unjudged(content.root, judged, passed)
    remarks += [
        f"{errors.show(one.path)}: a network from images to images, not judged"
        for one in passed
    ]
    if len(found) == 1 and not rest:
        made = _candidate(path, content, found[0], remarks, budget)
        return [Part(path, made)]
    parts = list(_parts(path, content, found, remarks, budget))
    if rest:
        error = errors.CheckpointError("; ".join([rest, *remarks]), calls=content.calls)
        parts.append(Part(part_paths.join(path, _rest_name(found)), None, error))
    return parts


def _rest_name(found: list[_Found]) -> str:
    """A name that no network has."""
    name, taken = REST, {one.name for one in found}
    while name in taken:
        name += "~"
    return name


def _parts(
    path: str,
    content: contents.Contents,
    found: list[_Found],
    remarks: list[str],
    budget: limits.Budget,
) -> Iterator[Part]:
    """A part for each of several; one that does not fit leaves the others alone."""
    for one in found:
        label = part_paths.join(path, one.name)
        try:
            made = _candidate(path, content, one, remarks, budget)
        except errors.CheckpointError as error:
            yield Part(label, None, error)
        else:
            yield Part(label, dataclasses.replace(made, path=label, part_of=path))


def _found(
    content: contents.Contents, architecture: str | None
) -> tuple[list[_Found], list[contents.StateDict], list[str]]:
    """Each network once, the groups, and what is said of others that are none.

    Raises:
      CheckpointError: when there is none.
    """
    kinds = network_search.Kinds()
    whole: list[_Found] = []
    lacking: list[_Found] = []
    unknown: dict[int, tuple[contents.StateDict, str]] = {}
    groups, unseen = contents.state_dicts(content.root)
    groups = [one for group in groups for one in recognise.split(group)]

    def look(group: contents.StateDict) -> None:
        networks = recognise.networks(group, architecture, kinds)
        for network in networks:
            if network.spec is None:
                unknown[len(group.tensors)] = group, network.reason
                continue
            root = network.root.removesuffix(".") if len(networks) > 1 else ""
            name = "/".join(filter(None, (group.path, root))) or ROOT
            one = _Found(group.path, re.sub(r"[^\w./-]", "?", name), network)
            (lacking if network.missing() else whole).append(one)

    for group in groups:
        look(group)
    if not whole:
        for group in contents.joined(groups):
            look(group)
    if not whole and not lacking:
        raise errors.CheckpointError(recognise.unknown(unknown))
    if not whole:
        return lacking[:1], groups, unseen
    whole, bare = _without_statistics(whole)
    lacking += bare
    whole += _averages(whole[0], lacking, groups)
    return _distinct(whole), groups, [*unseen, *_said(whole, lacking)]


def _without_statistics(found: list[_Found]) -> tuple[list[_Found], list[_Found]]:
    """The networks, and those that are another one's parameters alone.

    The latter could be a whole network of layers that keep no statistics; beside the same
    names with statistics they are its averages, or lack them.
    """
    kept, bare = [], []
    for one in found:
        shapes = {name: v.shape for name, v in one.network.tensors.items()}
        other = next((o for o in found if _lacks_statistics(shapes, o)), None)
        if other is None:
            kept.append(one)
        else:
            network = one.network._replace(spec=other.network.spec)
            bare.append(one._replace(network=network))
    return kept, bare


def _lacks_statistics(shapes: dict[str, tuple[int, ...]], other: _Found) -> bool:
    theirs = {name: value.shape for name, value in other.network.tensors.items()}
    more = theirs.keys() - shapes.keys()
    return (
        bool(more)
        and all(".running_" in f".{name}" for name in more)
        and all(theirs.get(name) == shape for name, shape in shapes.items())
    )


def _said(whole: list[_Found], lacking: list[_Found]) -> list[str]:
    """What is named like a network but lacks weights that no average lacks."""
    known = {one.name for one in whole}
    said = []
    for one in lacking:
        assert one.network.spec is not None
        missing = len(one.network.missing())
        total = len(network_search.expected(one.network.spec))
        if one.name not in known and missing < total:
            said.append(
                f"{one.name} is named like {one.network.spec.architecture} but lacks "
                f"{missing} of {total} weights"
            )
    if not said:
        return []
    return [f"the file holds more, which was not judged: {errors.listing(said, 20)}"]


def _distinct(found: list[_Found]) -> list[_Found]:
    """Each set of tensors once, under names that differ."""
    kept: dict[Any, _Found] = {}
    names: set[str] = set()
    for one in found:
        key = one.network.identity()
        if key in kept:
            first = kept[key]
            note = f"{one.name} holds the same tensors as {first.name}"
            kept[key] = first._replace(notes=(*first.notes, note))
            continue
        name, number = one.name, 1
        while name in names:
            number += 1
            name = f"{one.name}~{number}"
        names.add(name)
        kept[key] = one._replace(name=name)
    return list(kept.values())


def _averages(
    main: _Found, lacking: list[_Found], groups: list[contents.StateDict]
) -> Iterator[_Found]:
    """Averages of parameters, with the running statistics of the model they are of."""
    note = f"its running statistics are those of {main.name}: the file averages none"
    for one in lacking:
        missing = one.network.missing()
        if (
            _AVERAGE.search(one.name)
            and one.network.spec == main.network.spec
            and all(".running_" in f".{name}" for name in missing)
        ):
            tensors = {name: main.network.tensors[name] for name in missing}
            keys = {name: main.network.keys[name] for name in missing}
            whole = one.network._replace(
                tensors={**one.network.tensors, **tensors},
                keys={**one.network.keys, **keys},
            )
            yield one._replace(network=whole, notes=(note,))
    table = network_search.expected(main.network.spec) if main.network.spec else {}
    ordered = [
        name
        for name in main.network.tensors
        if name in table and ".running_" not in f".{name}"
    ]
    # Lists, and slots of optimizers, which are in the model's order.
    for group in groups:
        values = list(group.tensors.values())
        is_list = list(group.tensors) == [str(place) for place in range(len(values))]
        if is_list and order.agrees(
            values, [main.network.tensors[name] for name in ordered]
        ):
            averaged = dict(zip(ordered, values, strict=True))
            network = main.network._replace(
                tensors={**main.network.tensors, **averaged}
            )
            yield _Found(group.path, group.path, network, (note,))


def _candidate(
    path: str,
    content: contents.Contents,
    found: _Found,
    remarks: list[str],
    budget: limits.Budget,
) -> candidate.Candidate:
    """One network, converted.

    Raises:
      CheckpointError: when it does not fit.
    """
    network = found.network
    if network.spec is None:
        raise errors.CheckpointError(network.reason)
    variables = convert.convert(network, budget)
    normalisation, source, accuracy, notes = manifest.lookup(path, content, network)
    spec, told = manifest.with_stem(path, network.spec)
    assumed = stem_notes.assumed(spec.create(), told)
    return candidate.Candidate(
        path=path,
        sha256=hashing.weights_hash(variables),
        spec=spec,
        variables=variables,
        normalisation=normalisation,
        normalisation_source=source,
        recorded_accuracy=accuracy,
        names=convert.names_of(found.container, network),
        notes=(
            *assumed,
            *found.notes,
            *remarks,
            *network.notes,
            *_left_out(network),
            *notes,
        ),
        calls=content.calls,
    )


def _left_out(network: recognise.Recognised) -> list[str]:
    """What of a group is not in the candidate."""
    assert network.spec is not None
    notes = []
    if network.left_out:
        told = errors.listing(list(network.left_out), 20)
        notes.append(f"left out, as no part of the network: {told}")
    if network.aliases:
        names = [errors.show(name) for name, _ in network.aliases]
        notes.append(f"further names of the same tensors: {errors.listing(names, 20)}")
    if network.others:
        notes.append(
            f"read as {network.spec.architecture}; its tensors are named like those of "
            f"{', '.join(network.others)} too"
        )
    return notes


def named(parts: list[Part], name: str, path: str) -> Part:
    """The part of a name, which stands for itself and has the path it was asked for by.

    Raises:
      CheckpointError: when there is none of that name, or it does not fit.
    """
    names = [part_paths.split_name(part.path) for part in parts]
    if len(parts) == 1 or name not in names:
        there = errors.listing(names, 20) if len(parts) > 1 else "one, without a name"
        raise errors.CheckpointError(
            f"the file holds no classifier called {errors.show(name)}; there is {there}"
        )
    found = parts[names.index(name)]
    if found.candidate is None:
        assert found.error is not None
        raise found.error
    return Part(path, dataclasses.replace(found.candidate, path=path, part_of=""))


def first(parts: list[Part]) -> candidate.Candidate:
    """The likeliest classifier; its notes name the others.

    Raises:
      CheckpointError: when it does not fit.
    """
    found = parts[0].candidate
    if found is None:
        assert parts[0].error is not None
        raise parts[0].error
    if len(parts) == 1:
        return found
    others = [part_paths.split_name(part.path) for part in parts[1:]]
    note = (
        "the file holds other parts, which were not judged: "
        f"{errors.listing(others, 20)}"
    )
    unread = [str(part.error) for part in parts[1:] if part.error is not None]
    return dataclasses.replace(
        found, path=found.part_of, part_of="", notes=(note, *unread[:5], *found.notes)
    )
