"""The cells of the verdict table on the terminal."""

from collections.abc import Callable, Mapping, Sequence

import rich.text

from ban_jax.report import fields, glossary, judgement, numerals, text

STYLES = {
    "backdoored": "bold red",
    "suspicious": "bold yellow",
    "inconclusive": "bold magenta",
    "clean": "green",
}

Row = dict[str, rich.text.Text]
"""Name of a column -> its cell."""


def rows(
    records: Sequence[fields.Record],
    class_names: Sequence[str] | None,
    folder: str,
    *,
    with_spread: bool,
    encode: Callable[[str], str],
) -> list[Row]:
    """Every cell of every candidate.

    Args:
      records: results.
      class_names: names of the K classes, for the targets.
      folder: what paths are shown without.
      with_spread: whether scores have their interval beside them.
      encode: makes text of what the output can carry.
    """
    witnesses = glossary.witnesses(judgement.names(records))
    scores = _scores(records, with_spread)
    found = []
    for record, score in zip(records, scores, strict=True):
        verdict = fields.verdict(record)
        style, flagged = STYLES[verdict], verdict in fields.FLAGGED
        target = fields.class_label(
            record.get("target"), class_names, record.get("num_classes")
        )
        told = {
            "verdict": (f"{fields.GLYPHS[verdict]} {verdict}", style),
            "checkpoint": (fields.label(record, folder), ""),
            "architecture": (fields.architecture(record), ""),
            "target": (target if flagged else "", ""),
            "score": (score, style if flagged else ""),
            "threshold": (_number(record, "threshold", numerals.score), ""),
            "p": (judgement.p_value(record), ""),
            "witnesses": (_speaking(record, witnesses), ""),
            "accuracy": (_number(record, "clean_accuracy", "{:.3f}".format), ""),
            "seconds": (_number(record, "seconds", numerals.seconds), ""),
            "remark": (text.sentence(fields.remark(record), 200), "dim"),
        }
        found.append(
            {k: rich.text.Text(encode(v), look) for k, (v, look) in told.items()}
        )
    return found


def _number(record: fields.Record, name: str, show: Callable[[float], str]) -> str:
    found = fields.number(record.get(name))
    return "" if found is None else show(found)


def _scores(records: Sequence[fields.Record], with_spread: bool) -> list[str]:
    """Scores and, where they are asked for, intervals: each below the other."""
    pairs = [
        (
            _number(record, "score", numerals.score),
            judgement.spread(record) if with_spread else "",
        )
        for record in records
    ]
    first, second = (max((len(p[i]) for p in pairs), default=0) for i in (0, 1))
    return [f"{one:>{first}} {other:<{second}}".rstrip() for one, other in pairs]


def _speaking(record: fields.Record, witnesses: Mapping[str, glossary.Witness]) -> str:
    """A letter for each witness that speaks, in a place of its own."""
    found = judgement.speaking(record)
    signs = {True: "{}", False: "·", None: " "}
    return "".join(
        signs[found.get(name)].format(one.letter) for name, one in witnesses.items()
    ).rstrip()
