"""Pictures that are in a record: recovered triggers, triggered images."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ban_jax.report import fields, glossary
from ban_jax.report.subject import Subject

MOST_CLASSES = 20
"""With more classes than this, those with the largest scores are shown."""
_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_END = b"IEND\xaeB`\x82"


class Shot(NamedTuple):
    """One image.

    Attributes:
      uri: the image itself.
      alt: what it shows, for readers who do not see it.
      caption: the class.
    """

    uri: str
    alt: str
    caption: str


class Gallery(NamedTuple):
    """One image per class.

    Attributes:
      title: what they are.
      note: what that means.
      suspected: that of the suspected class, shown large.
      others: those of the other classes.
    """

    title: str
    note: str
    suspected: Shot | None
    others: Sequence[Shot]


def galleries(subject: Subject) -> Iterator[Gallery]:
    """The recovered images of a candidate, by name; those that are no PNG are left out."""
    stored = fields.mapping(subject.record.get("images"))
    for name in stored:
        images = fields.listed(stored[name])
        words = glossary.words(subject.record, name)
        title = words.title[:1].upper() + words.title[1:]
        labels = subject.labels(len(images))
        mark = subject.marked(len(images))
        classes = _choose(subject.record, len(images), mark)
        shots = {
            k: Shot(uri, f"{title}, {labels[k]}", labels[k])
            for k in classes
            if (uri := data_uri(images[k]))
        }
        if not shots:
            continue
        note = words.meaning or "One image per class."
        if len(classes) < len(images):
            note += f" Those of {len(classes)} of {len(images)} classes."
        suspected = None if mark is None else shots.pop(mark, None)
        yield Gallery(title, note, suspected, list(shots.values()))


def data_uri(encoded: Any) -> str | None:
    """The address of an image inside the page; None for what is not a PNG in base64.

    A record may come from anywhere: only what starts and ends as a PNG does gets in.
    """
    if not isinstance(encoded, str):
        return None
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
        return None
    if not data.startswith(_START) or not data.endswith(_END):
        return None
    return f"data:image/png;base64,{encoded}"


def _choose(record: fields.Record, num_classes: int, mark: int | None) -> list[int]:
    """All classes, or the suspected one and those with the largest scores, in order."""
    if num_classes <= MOST_CLASSES:
        return list(range(num_classes))
    scores = fields.numbers(record.get("z"))
    if len(scores) != num_classes:
        scores = [None] * num_classes

    def rank(k: int) -> tuple[bool, float]:
        found = scores[k]
        return k != mark, float("inf") if found is None else -found

    return sorted(sorted(range(num_classes), key=rank)[:MOST_CLASSES])
