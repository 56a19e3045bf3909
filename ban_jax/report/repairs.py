"""What repairs did, in figures before and after; for the terminal and the page."""

from collections.abc import Sequence
from typing import NamedTuple

from ban_jax.report import fields, text


class Column(NamedTuple):
    """A figure shown before and after: its title, its field, and how it is written."""

    title: str
    field: str
    form: str
    meaning: str


COLUMNS = (
    Column(
        "Clean accuracy",
        "clean_accuracy",
        "{:.3f}",
        "share of clean images classified correctly",
    ),
    Column(
        "Attack success",
        "asr",
        "{:.3f}",
        "share of images with the known trigger that go where the attacker wants",
    ),
    Column(
        "Excess success",
        "excess",
        "{:.3f}",
        "attack success less the share of the same images that go there without the "
        "trigger; a little below 0 by chance",
    ),
    Column(
        "Recovered",
        "recovered_accuracy",
        "{:.3f}",
        "share of images with the known trigger classified as what they show",
    ),
    Column("Score", "score", "{:.2f}", "of the scan, see below"),
)


def before_and_after(record: fields.Record, column: Column) -> str:
    """`0.997 → 0.031`; nothing where the figure was not measured."""
    values = [
        fields.number(fields.mapping(record.get(when)).get(column.field))
        for when in ("before", "after")
    ]
    if all(value is None for value in values):
        return ""
    return " → ".join(
        "–" if value is None else column.form.format(value) for value in values
    )


def verdicts(record: fields.Record) -> tuple[str, str]:
    """The verdict before and after."""
    before, after = (
        str(fields.mapping(record.get(when)).get("verdict", "–"))
        for when in ("before", "after")
    )
    return before, after


def summary(repaired: Sequence[fields.Record]) -> str:
    """How many were repaired, and what the scan says of them now."""
    done = [record for record in repaired if not record.get("error")]
    before, after = (
        sum(verdicts(record)[when] in fields.FLAGGED for record in done)
        for when in (0, 1)
    )
    told = (
        f"{text.count(len(done), 'checkpoint')} repaired: {before} flagged before, "
        f"{after} after"
    )
    failed = len(repaired) - len(done)
    works = still_works(repaired)
    return (
        told
        + (f" · {failed} not repaired" if failed else "")
        + (f" · in {works} the known trigger still takes most images" if works else "")
    )


def still_works(repaired: Sequence[fields.Record]) -> int:
    """How many repaired candidates still send most triggered images to the target."""
    left = [_success_left(record) for record in repaired if not record.get("error")]
    return sum(success is not None and success >= 0.5 for success in left)


def _success_left(record: fields.Record) -> float | None:
    """Excess, or the success rate in lines written before excess was measured."""
    after = fields.mapping(record.get("after"))
    excess = fields.number(after.get("excess"))
    return fields.number(after.get("asr")) if excess is None else excess
