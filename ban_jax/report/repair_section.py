"""The part of the page about repairs: a table, and triggered images with predictions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ban_jax.report import fields, images, outcome, repairs, text

_MESSAGE = 400


class Row(NamedTuple):
    """One repaired candidate, or why it was not.

    Attributes:
      label: its path as the page shows it.
      error: why it was not repaired, on one line.
      verdicts: before and after.
      figures: one per column, as text.
    """

    label: str
    error: str
    verdicts: tuple[str, str]
    figures: Sequence[str]


class Prediction(NamedTuple):
    """What a model took an image for, when, and whether that is what it shows."""

    when: str
    answer: str
    is_right: bool


class Shot(NamedTuple):
    """A triggered image; without `uri` it could not be shown."""

    uri: str | None
    shows: str
    predictions: Sequence[Prediction]


class Card(NamedTuple):
    """Notes on one model, triggered images, and what it took them for."""

    title: str
    notes: Sequence[str]
    shots: Sequence[Shot]


class Section(NamedTuple):
    """What the template `repairs` shows."""

    summary: str
    columns: Sequence[repairs.Column]
    rows: Sequence[Row]
    cards: Sequence[Card]


def answer(repaired: Sequence[fields.Record], judged: Sequence[fields.Record]) -> str:
    """The page's outcome in one sentence: what is known goes before what a scan finds."""
    works = repairs.still_works(repaired)
    if works:
        where = text.count(works, "repaired checkpoint")
        return f"The known trigger still works in {where}."
    return outcome.answer(judged)


def section(
    repaired: Sequence[fields.Record], class_names: Sequence[str] | None
) -> Section | None:
    """Everything about repairs; None without any."""
    if not repaired:
        return None
    folder = fields.common_folder(repaired)
    cards = [_card(record, folder, class_names) for record in repaired]
    return Section(
        repairs.summary(repaired),
        repairs.COLUMNS,
        [_row(record, folder) for record in repaired],
        [card for card in cards if card.notes or card.shots],
    )


def _row(record: fields.Record, folder: str) -> Row:
    error = record.get("error")
    return Row(
        fields.label(record, folder),
        text.sentence(error, _MESSAGE) if error else "",
        repairs.verdicts(record),
        [repairs.before_and_after(record, column) for column in repairs.COLUMNS],
    )


def _card(
    record: fields.Record, folder: str, class_names: Sequence[str] | None
) -> Card:
    title = fields.label(record, folder)
    shown = fields.listed(record.get("shown"))
    if shown:
        kind = fields.mapping(record.get("attack")).get("kind", "the attack")
        title += f": images with the trigger of {kind}"
    notes = [str(note) for note in fields.listed(record.get("notes"))]
    shots = [_shot(fields.mapping(one), record, class_names) for one in shown]
    return Card(title, notes, shots)


def _shot(
    one: fields.Record, record: fields.Record, class_names: Sequence[str] | None
) -> Shot:
    def name(value: Any) -> str:
        return fields.class_label(value, class_names, record.get("num_classes"))

    predictions = [
        Prediction(when, name(one.get(when)), one.get(when) == one.get("label"))
        for when in ("before", "after")
    ]
    shows = f"shows {name(one.get('label'))}"
    return Shot(images.data_uri(one.get("png")), shows, predictions)
