"""The page of a comparison: detectors side by side on models whose truth is known."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe

from ban_jax import records
from ban_jax.report import (
    compared_table,
    environment,
    fields,
    numerals,
    plots,
    settings,
)
from ban_jax.storage import atomic

LONGEST_REASON = 200


class Cell(NamedTuple):
    """How a detector did on one group: text, and how warm its background is."""

    told: str
    more: str
    warmth: str


class Group(NamedTuple):
    """One attack and architecture: a cell per detector."""

    attack: str
    architecture: str
    models: int
    is_clean: bool
    cells: Sequence[Cell]


def write_comparison(path: records.PathLike, told: Mapping[str, Any]) -> None:
    """Writes the page in one atomic step.

    Args:
      path: the file.
      told: what `comparison.json` says, see `commands.compare`.
    """
    atomic.write(path, render(told).encode())


def render(told: Mapping[str, Any]) -> str:
    """The whole page as text."""
    told = records.finite(told)
    methods = told["methods"]
    script = environment.static("page.js")
    return (
        environment.templates()
        .get_template("compared.html.j2")
        .render(
            title="Detectors compared",
            style=environment.static("page.css"),
            script=script,
            policy=environment.policy(script),
            outcome=outcome(methods),
            told=told,
            heads=compared_table.HEADS,
            meanings=compared_table.MEANINGS,
            methods=[(one, compared_table.cells(one)) for one in methods],
            roc=plots.roc({one["name"]: _points(one) for one in methods}),
            scatter=scatter(methods),
            groups=groups(methods),
            unjudged=unjudged(methods),
            panels=panels(told),
        )
    )


def outcome(methods: Sequence[fields.Record]) -> str:
    """Which detector tells backdoored from clean models best, in one sentence."""
    known = [one for one in methods if one["total"]["auc"] is not None]
    if not known:
        return "No detector could be judged."
    best = max(known, key=lambda one: one["total"]["auc"]["value"])
    value = numerals.share(best["total"]["auc"]["value"])
    alike = [
        one["name"]
        for one in known
        if one is not best
        and one["total"]["auc"]["value"] == best["total"]["auc"]["value"]
    ]
    if alike:
        return f"{', '.join([best['name'], *alike])} share the largest AUC, {value}."
    return f"{best['name']} has the largest AUC, {value}."


def scatter(methods: Sequence[fields.Record]) -> markupsafe.Markup:
    """Of the detectors whose time and AUC are known."""
    return plots.scatter(
        {
            one["name"]: (one["seconds"], one["total"]["auc"]["value"])
            if one["seconds"] and one["total"]["auc"] is not None
            else None
            for one in methods
        }
    )


def _points(method: fields.Record) -> list[plots.Point]:
    return [(float(a), float(b)) for a, b in method["roc"]]


def groups(methods: Sequence[fields.Record]) -> list[Group]:
    """A row per attack and architecture: how many of each were flagged."""
    keys = dict.fromkeys(
        (row["attack"], row["architecture"]) for one in methods for row in one["rows"]
    )
    found = []
    for attack, architecture in keys:
        rows = [
            next(
                row
                for row in one["rows"]
                if (row["attack"], row["architecture"]) == (attack, architecture)
            )
            for one in methods
        ]
        is_clean = attack == "clean"
        found.append(
            Group(
                attack,
                architecture,
                rows[0]["models"],
                is_clean,
                [_cell(row, is_clean) for row in rows],
            )
        )
    return found


def _cell(row: fields.Record, is_clean: bool) -> Cell:
    """`3/5`, with the target's share and what could not be judged below."""
    flagged, more = row["flagged"], []
    if row["right_target"] is not None:
        more.append(f"target {row['right_target']['hits']}")
    if row["inconclusive"]:
        more.append(f"? {row['inconclusive']}")
    wrong = flagged["hits"] if is_clean else flagged["total"] - flagged["hits"]
    rate = wrong / flagged["total"]
    warmth = "alarm" if rate > 0.5 else "doubt" if rate else ""
    return Cell(f"{flagged['hits']}/{flagged['total']}", ", ".join(more), warmth)


class Unjudged(NamedTuple):
    """Candidates that a detector could not judge, and why."""

    name: str
    reasons: Sequence[tuple[str, str]]


def unjudged(methods: Sequence[fields.Record]) -> list[Unjudged]:
    """Of each detector that left some."""
    found = []
    for one in methods:
        reasons = [
            (str(line["model"]), str(line["reason"])[:LONGEST_REASON])
            for line in one["candidates"]
            if line["verdict"] == "inconclusive"
        ]
        if reasons:
            found.append(Unjudged(one["name"], reasons))
    return found


def panels(told: Mapping[str, Any]) -> list[settings.Panel]:
    """What was asked for, the settings of each detector, and versions."""
    found = [settings.Panel("What was asked for", settings.pairs(told["flags"]))]
    for one in told["methods"]:
        for cost in one["costs"]:
            known = {**cost["config"], **(cost["budget"] or {})}
            panel = settings.Panel(
                f"{one['name']}, {cost['architecture']}", settings.pairs(known)
            )
            # Architectures that share all settings share a panel.
            if known and panel.pairs not in [other.pairs for other in found]:
                found.append(panel)
    found.append(settings.Panel("Versions", settings.pairs(told["versions"])))
    return [panel for panel in found if panel.pairs]
