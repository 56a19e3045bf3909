"""The report as one HTML page that needs nothing beside itself.

Paths, messages and class names come from untrusted files: all of them pass through
`candidate.escape`, and the page's own policy forbids every script but ours.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ban_jax import records
from ban_jax.report import candidate, charts, repairs, style, words
from ban_jax.storage import atomic

_MOST_CALLED_OUT = 12
_COLUMNS = (
    "Verdict",
    "Checkpoint",
    "Suspected target",
    "Score",
    "Clean accuracy",
    "Architecture",
    "Seconds",
)


def write_html(
    path: records.PathLike,
    lines: Sequence[words.Record],
    *,
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "Backdoor scan",
    repaired: Sequence[words.Record] = (),
) -> None:
    """Writes the report in one atomic step.

    Args:
      path: the file to write, `report.html` in the output folder.
      lines: results as `records.load` gives them, of any mode, in any order.
      class_names: names of the K classes; used for candidates with K classes.
      settings: what was asked for (data set, split, flags), shown at the end.
      title: the title of the page.
      repaired: lines of a `repairs.jsonl`, told before all else.

    Raises:
      ResultsError: the file cannot be written.
    """
    pieces = _pieces(lines, class_names, settings, title, repaired)
    encoded = (piece.encode(errors="backslashreplace") for piece in pieces)
    atomic.write(path, encoded)


def render(
    records: Sequence[words.Record],
    *,
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "Backdoor scan",
    repaired: Sequence[words.Record] = (),
) -> str:
    """The whole page as text; see `write_html`."""
    return "".join(_pieces(records, class_names, settings, title, repaired))


def _pieces(
    lines: Sequence[words.Record],
    class_names: Sequence[str] | None,
    settings: Mapping[str, Any] | None,
    title: str,
    repaired: Sequence[words.Record],
) -> Iterator[str]:
    """The page from top to bottom; a thousand candidates are never there at once."""
    ordered = sorted(
        (records.finite(record) for record in lines),
        key=lambda record: (
            words.VERDICTS.index(words.verdict(record)),
            str(record.get("path", "")),
        ),
    )
    folder = words.common_folder(ordered)
    contexts = [
        candidate.Context(
            anchor=f"candidate-{place}",
            label=str(record.get("path", "")).removeprefix(folder) or "(no path)",
            class_names=class_names,
        )
        for place, record in enumerate(ordered, start=1)
    ]
    script = base64.b64encode(hashlib.sha256(style.SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; img-src data:; script-src 'sha256-{script}'"
    )
    repaired = [records.finite(line) for line in repaired]
    outcome = repairs.answer(repaired, ordered)
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{candidate.escape(title)}: {candidate.escape(outcome)}"
        f"</title><style>{style.CSS}</style></head>\n<body>"
    )
    yield _opening(ordered, outcome, title, folder, class_names)
    yield "<main>"
    yield repairs.section(repaired, class_names)
    yield f"{_unjudged(ordered, contexts)}{_guide(ordered)}"
    yield _verdicts(ordered, contexts)
    yield from _candidates(ordered, contexts)
    yield f"{_settings(ordered, settings or {})}</main>"
    yield (
        "<footer>Made by ban-jax. This page holds everything it shows; it loads "
        f"nothing.</footer><script>{style.SCRIPT}</script></body></html>\n"
    )


def _opening(
    records: Sequence[words.Record],
    outcome: str,
    title: str,
    folder: str,
    names: Sequence[str] | None,
) -> str:
    """The answer first, then what was asked."""
    counts = words.tally(records)
    bars = "".join(
        f'<i class="{name}" style="flex:{counts[name]}"></i>'
        for name in words.VERDICTS
        if counts[name]
    )
    tally = "".join(
        f'<li class="{name}"><b>{counts[name]:,}</b>{words.GLYPHS[name]} {name}</li>'
        for name in words.VERDICTS
    )
    where = f" · <code>{candidate.escape(folder)}</code>" if folder else ""
    return (
        f"<header><p class=eyebrow>{candidate.escape(title)}{where}</p>"
        f"<h1>{candidate.escape(outcome)}</h1>"
        "<p class=lede>A backdoored image classifier works normally until an image "
        "carries a secret mark; then it answers with a class its attacker chose, the "
        "<strong>target</strong>. This report says which checkpoints behave as if they "
        "had such a target, and which class it would be."
        f"{_suspected(records, names)}</p>"
        f'<div class=share aria-hidden="true">{bars}</div><ul class=tally>{tally}</ul>'
        "</header>"
    )


def _suspected(records: Sequence[words.Record], names: Sequence[str] | None) -> str:
    found = words.targets(records, names)
    return f" <strong>Suspected: {candidate.escape(found)}.</strong>" if found else ""


def _unjudged(
    records: Sequence[words.Record], contexts: Sequence[candidate.Context]
) -> str:
    """The candidates without a verdict, before anything else can be overlooked."""
    unjudged = [
        (record, context)
        for record, context in zip(records, contexts, strict=True)
        if words.verdict(record) == "inconclusive"
    ]
    if not unjudged:
        return ""
    items = []
    for record, context in unjudged[:_MOST_CALLED_OUT]:
        found = words.remark(record) or "No reason is recorded."
        items.append(
            f'<li><a class=path href="#{context.anchor}">'
            f"{candidate.escape(context.label)}</a>"
            f"{candidate.message(words.sentence(found, 400))}"
            f"<p>{candidate.escape(words.advice(record))}</p></li>"
        )
    left = len(unjudged) - len(items)
    if left:
        items.append(f"<li>and {left:,} more, listed in the table below</li>")
    verb = "was" if len(unjudged) == 1 else "were"
    return (
        f"<section class=callout><h2>{words.GLYPHS['inconclusive']} "
        f"{words.count(len(unjudged), 'checkpoint')} {verb} not judged</h2>"
        "<p>Inconclusive is not clean: nothing is known about these files yet.</p>"
        f"<ul>{''.join(items)}</ul></section>"
    )


def _guide(records: Sequence[words.Record]) -> str:
    modes = _explained(words.distinct(records, "mode"), words.MODES)
    baselines = _explained(words.distinct(records, "baseline"), words.BASELINES)
    return (
        "<section><h2>How to read this</h2><div class=guide>"
        "<p><strong>Verdict.</strong> <em>Backdoored</em> means that one class can be "
        "reached far more easily than it should be, as if a hidden shortcut led there. "
        "It is strong suspicion, not proof: unusual training data can look alike. "
        "<em>Clean</em> means that no such class was found by this method, not that "
        "none can exist. <em>Inconclusive</em> means that no judgement was possible."
        "</p>"
        "<p><strong>Score and threshold.</strong> The score says how far the most "
        "unusual class stands out, mostly in multiples of the usual spread between "
        "classes or models. Above the threshold a checkpoint is called "
        "backdoored; a score close to it is a close call, so look at the pictures."
        f"</p><p><strong>How it was measured.</strong> {modes} {baselines}</p>"
        "</div></section>"
    )


def _explained(values: Sequence[str], known: Mapping[str, str]) -> str:
    kind = "Mode" if known is words.MODES else "Baseline"
    return " ".join(
        f"{kind} <em>{candidate.escape(value)}</em>: {candidate.escape(known[value])}"
        + "."
        for value in values
        if value in known
    )


def _verdicts(
    records: Sequence[words.Record], contexts: Sequence[candidate.Context]
) -> str:
    if not records:
        return ""
    top = _largest_score(records)
    head = "".join(
        f"<th{' class=r' if name in _COLUMNS[4:5] + _COLUMNS[6:] else ''} scope=col>"
        f"{name}</th>"
        for name in _COLUMNS
    )
    rows = "".join(_row(*pair, top=top) for pair in zip(records, contexts, strict=True))
    options = "".join(f"<option>{name}</option>" for name in words.VERDICTS)
    return (
        "<section><h2>Verdicts</h2><div class=tools hidden>"
        '<input type=search placeholder="Filter by name, class, architecture" '
        'aria-label="Filter the table"><select aria-label="Show verdict">'
        f'<option value="">all verdicts</option>{options}</select>'
        "<button type=button>Open all</button></div>"
        "<div class=tablewrap><table class=verdicts><thead><tr>"
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _largest_score(records: Sequence[words.Record]) -> float:
    """The right end of the small bars: one extreme score must not flatten the rest."""
    scores = [words.number(record.get("score")) or 0.0 for record in records]
    thresholds = [words.number(record.get("threshold")) or 0.0 for record in records]
    return min(max(scores), 5.0 * max(thresholds) or max(scores))


def _row(record: words.Record, context: candidate.Context, *, top: float) -> str:
    verdict = words.verdict(record)
    flagged = verdict == "backdoored"
    target = words.class_label(
        record.get("target"), context.class_names, record.get("num_classes")
    )
    score = words.number(record.get("score"))
    threshold = words.number(record.get("threshold"))
    shown = "" if score is None else words.score(score)
    if score is not None and threshold is not None:
        shown += charts.mini_score(score, threshold, top)
    accuracy = words.number(record.get("clean_accuracy"))
    seconds = words.number(record.get("seconds"))
    rank = len(words.VERDICTS) - words.VERDICTS.index(verdict)
    return (
        f"<tr{' class=flag' if flagged else ''} data-v={verdict} "
        f"data-c={context.anchor}>"
        f"<td data-s={rank}>{candidate.badge(verdict)}</td>"
        f'<td><a class=path href="#{context.anchor}">'
        f"{candidate.escape(context.label)}</a></td>"
        f"<td>{candidate.escape(target) if flagged else ''}</td>"
        f"<td data-s={_sort_key(score)}>{shown}</td>"
        f"<td class=r data-s={_sort_key(accuracy)}>"
        f"{'' if accuracy is None else f'{100 * accuracy:.1f} %'}</td>"
        f"<td>{candidate.escape(words.architecture(record))}</td>"
        f"<td class=r data-s={_sort_key(seconds)}>"
        f"{words.seconds(record)}</td></tr>"
    )


def _sort_key(value: float | None) -> str:
    return '""' if value is None else f"{value:.6g}"


def _candidates(
    records: Sequence[words.Record], contexts: Sequence[candidate.Context]
) -> Iterator[str]:
    """One section each; the first stands open to show what is inside the others."""
    if not records:
        return
    yield "<section><h2>Checkpoint by checkpoint</h2>"
    for place, (record, context) in enumerate(zip(records, contexts, strict=True)):
        yield candidate.section(record, context, is_open=place == 0)
    yield "</section>"


def _settings(lines: Sequence[words.Record], settings: Mapping[str, Any]) -> str:
    """Settings of the scan, then what the lines say of their own, told once each."""
    panels = [_panel("What was asked for", _flat(records.finite(settings)))]
    for title, field in (("Detection settings", "config"), ("Versions", "versions")):
        groups: dict[str, int] = {}
        for record in lines:
            found = record.get(field)
            if isinstance(found, Mapping) and found:
                key = json.dumps(found, sort_keys=True)
                groups[key] = groups.get(key, 0) + 1
        for key, times in groups.items():
            suffix = f", {words.count(times, 'checkpoint')}" if len(groups) > 1 else ""
            panels.append(_panel(title + suffix, _flat(json.loads(key))))
    panels = [panel for panel in panels if panel]
    if not panels:
        return ""
    return f"<section><h2>Settings and versions</h2>{''.join(panels)}</section>"


def _panel(title: str, pairs: Mapping[str, str]) -> str:
    if not pairs:
        return ""
    items = "".join(
        f"<div><dt>{candidate.escape(name)}</dt><dd>{candidate.escape(value)}</dd></div>"
        for name, value in pairs.items()
    )
    return (
        f"<div class=panel><h3>{candidate.escape(title)}</h3>"
        f"<dl class=pairs>{items}</dl></div>"
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(str(item) for item in value) or "none"
        else:
            flat[f"{prefix}{name}"] = "none" if value is None else str(value)
    return flat
