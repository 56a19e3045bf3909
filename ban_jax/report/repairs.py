"""What repairs did: a table before and after, and triggered images with predictions."""

import os
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import rich.box
import rich.console
import rich.table
import rich.text

from ban_jax.report import candidate, words


class _Column(NamedTuple):
    """A figure shown before and after: its title, its field, and how it is written."""

    title: str
    field: str
    form: str
    meaning: str


_COLUMNS = (
    _Column(
        "Clean accuracy",
        "clean_accuracy",
        "{:.3f}",
        "share of clean images classified correctly",
    ),
    _Column(
        "Attack success",
        "asr",
        "{:.3f}",
        "share of images with the known trigger that go where the attacker wants",
    ),
    _Column(
        "Recovered",
        "recovered_accuracy",
        "{:.3f}",
        "share of images with the known trigger classified as what they show",
    ),
    _Column("Score", "score", "{:.2f}", "of the scan, see below"),
)


def print_repairs(
    repaired: Sequence[words.Record], file: IO[str] | None = None
) -> None:
    """Prints one row per candidate, before and after, and why some were not repaired.

    Args:
      repaired: lines of a `repairs.jsonl`.
      file: where to print, standard output by default.
    """
    console = rich.console.Console(
        file=file, highlight=False, markup=False, emoji=False
    )
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160
    done = [record for record in repaired if not record.get("error")]
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column.title.lower(), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    folder = words.common_folder(repaired)
    for record in done:
        table.add_row(
            words.printable(_label(record, folder)),
            *(" → ".join(_pair(record, column)) for column in _COLUMNS),
            " → ".join(_verdicts(record)),
        )
    if done:
        console.print(table)
    for record in repaired:
        for note in record.get("notes") or ():
            text = f"· {_label(record, folder)}: {note}"
            console.print(rich.text.Text(words.printable(text)), soft_wrap=True)
        if record.get("error"):
            text = f"? {_label(record, folder)}: not repaired: {record['error']}"
            console.print(rich.text.Text(words.printable(text)), soft_wrap=True)
    console.print(summary(repaired), soft_wrap=True)


def summary(repaired: Sequence[words.Record]) -> str:
    """How many were repaired, and what the scan says of them now."""
    done = [record for record in repaired if not record.get("error")]
    before, after = (
        sum(
            words.mapping(record.get(when)).get("verdict") == "backdoored"
            for record in done
        )
        for when in ("before", "after")
    )
    text = (
        f"{words.count(len(done), 'checkpoint')} repaired: {before} flagged before, "
        f"{after} after"
    )
    failed = len(repaired) - len(done)
    works = still_works(repaired)
    return (
        text
        + (f" · {failed} not repaired" if failed else "")
        + (f" · in {works} the known trigger still takes most images" if works else "")
    )


def still_works(repaired: Sequence[words.Record]) -> int:
    """How many repaired candidates still send most triggered images to the target."""
    left = [
        words.number(words.mapping(record.get("after")).get("asr"))
        for record in repaired
        if not record.get("error")
    ]
    return sum(success is not None and success >= 0.5 for success in left)


def answer(repaired: Sequence[words.Record], judged: Sequence[words.Record]) -> str:
    """The page's outcome in one sentence: what is known goes before what a scan finds."""
    works = still_works(repaired)
    if works:
        where = words.count(works, "repaired checkpoint")
        return f"The known trigger still works in {where}."
    return words.answer(judged)


def section(repaired: Sequence[words.Record], class_names: Sequence[str] | None) -> str:
    """The part of the page about repairs; nothing without any."""
    if not repaired:
        return ""
    folder = words.common_folder(repaired)
    head = "".join(
        f'<th scope=col title="{candidate.escape(column.meaning)}">{column.title}</th>'
        for column in _COLUMNS
    )
    rows = "".join(_row(record, folder) for record in repaired)
    cards = "".join(_card(record, folder, class_names) for record in repaired)
    return (
        "<section><h2>Before and after the repair</h2>"
        f"<p>{candidate.escape(summary(repaired))}. Everything below this section is "
        "the scan of the repaired models. Attack success and recovery can be told only "
        "where the trigger is known; without it a clean verdict after a repair is no "
        "proof, for fine-tuning also renews the statistics that the scan listens to.</p>"
        "<div class=tablewrap><table class=repairs><thead><tr><th scope=col>Checkpoint</th>"
        f"<th scope=col>Verdict</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{cards}</section>"
    )


def _row(record: words.Record, folder: str) -> str:
    label = f"<code class=path>{candidate.escape(_label(record, folder))}</code>"
    if record.get("error"):
        return (
            f"<tr><td>{label}</td><td colspan={len(_COLUMNS) + 1}>not repaired: "
            f"{candidate.message(words.sentence(record['error'], 400))}</td></tr>"
        )
    cells = "".join(
        f"<td>{candidate.escape(' → '.join(_pair(record, column)))}</td>"
        for column in _COLUMNS
    )
    verdicts = " → ".join(
        candidate.badge(name) if name in words.VERDICTS else candidate.escape(name)
        for name in _verdicts(record)
    )
    return f"<tr><td>{label}</td><td>{verdicts}</td>{cells}</tr>"


def _card(record: words.Record, folder: str, class_names: Sequence[str] | None) -> str:
    """Notes on one model, triggered images, and what it took them for."""
    shown = record.get("shown")
    notes = "".join(
        f"<li>{candidate.escape(note)}</li>" for note in record.get("notes") or ()
    )
    notes = f"<ul class=notes>{notes}</ul>" if notes else ""
    if not isinstance(shown, list) or not shown:
        label = candidate.escape(_label(record, folder))
        return notes and f"<div class=repair><h3>{label}</h3>{notes}</div>"
    attack = words.mapping(record.get("attack"))
    figures = "".join(_figure(words.mapping(one), record, class_names) for one in shown)
    return (
        f"<div class=repair><h3>{candidate.escape(_label(record, folder))}: images "
        f"with the trigger of {candidate.escape(attack.get('kind', 'the attack'))}"
        f"</h3>{notes}<div class=shots>{figures}</div></div>"
    )


def _figure(
    one: words.Record, record: words.Record, class_names: Sequence[str] | None
) -> str:
    def name(value: Any) -> str:
        return words.class_label(value, class_names, record.get("num_classes"))

    def answer(when: str) -> str:
        right = one.get(when) == one.get("label")
        sign = "✓" if right else "✗"
        return (
            f'<br>{when}: <span class="{"right" if right else "hit"}">'
            f"{candidate.escape(name(one.get(when)))} {sign}</span>"
        )

    told = f"shows {name(one.get('label'))}"
    return (
        f'<figure><img alt="{candidate.escape(told)}" '
        f'src="data:image/png;base64,{candidate.escape(one.get("png", ""))}">'
        f"<figcaption>{candidate.escape(told)}{answer('before')}{answer('after')}"
        "</figcaption></figure>"
    )


def _label(record: words.Record, folder: str) -> str:
    return str(record.get("path", "")).removeprefix(folder) or "(no path)"


def _pair(record: words.Record, column: _Column) -> tuple[str, ...]:
    """The figure before and after; nothing where it was not measured."""
    values = [
        words.number(words.mapping(record.get(when)).get(column.field))
        for when in ("before", "after")
    ]
    if all(value is None for value in values):
        return ()
    return tuple(
        "–" if value is None else column.form.format(value) for value in values
    )


def _verdicts(record: words.Record) -> tuple[str, str]:
    before, after = (
        str(words.mapping(record.get(when)).get("verdict", "–"))
        for when in ("before", "after")
    )
    return before, after
