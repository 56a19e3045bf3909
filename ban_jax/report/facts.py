"""What is known of a candidate in names and values."""

from typing import Any, NamedTuple

from ban_jax.report import fields, judgement, text
from ban_jax.report.subject import Subject

_DRAWN = ("curves", "histogram", "histogram_without_noise", "patch")
_MOST_NUMBERS = 12
_MOST_CHARACTERS = 200


class Fact(NamedTuple):
    """A name and a value.

    Attributes:
      name: in plain words.
      value: as text.
      is_long: whether it needs a line of its own, such as a hash.
    """

    name: str
    value: str
    is_long: bool = False


def facts(subject: Subject) -> list[Fact]:
    """All that is known; what is missing is left out."""
    record = subject.record

    def field(name: str) -> str:
        value = record.get(name)
        return "" if value in (None, "") else str(value)

    def measured(name: str, form: str) -> str:
        return _measured(record.get(name), form)

    source = field("threshold_source")
    unusual = "Suspected target" if subject.is_flagged else "Most unusual class"
    config = fields.mapping(record.get("config"))
    told = [
        Fact(unusual, subject.target),
        Fact("Score", measured("score", "{:.3f}") + _interval(record)),
        Fact(
            "Threshold",
            measured("threshold", "{:.3f}") + (f" ({source})" if source else ""),
        ),
        Fact("Suspicious above", measured("suspicious_above", "{:.3f}")),
        Fact("p-value", _p_value(record)),
        Fact("q-value", measured("q_value", "{:.2g}")),
        Fact("Baseline", field("baseline")),
        Fact("Compared with", field("compared_with")),
        Fact("Mode", field("mode")),
        Fact("Noise radius ε", _measured(config.get("epsilon"), "{:g}")),
        Fact("Clean accuracy", measured("clean_accuracy", "{:.1%}").replace("%", " %")),
        Fact(
            "Clean images used", field("num_probe") if record.get("num_probe") else ""
        ),
        Fact("Architecture", fields.architecture(record, "{}, width {}")),
        Fact("Classes", field("num_classes")),
        Fact("Pixel normalisation", _normalisation(record)),
        Fact("Work", measured("forward_equivalents", "{:,.0f} image forward passes")),
        Fact("Time", measured("seconds", "{:.2f} s")),
        Fact("Seed", field("seed")),
        *_of_the_detector(record),
        Fact(
            "Asks to call, when loaded by pickle",
            ", ".join(fields.calls(record)),
            is_long=True,
        ),
        Fact("File", field("path"), is_long=True),
        Fact("SHA-256 of the weights", field("sha256"), is_long=True),
        Fact("Hash of the settings", field("config_hash"), is_long=True),
    ]
    return [fact for fact in told if fact.value]


def _interval(record: fields.Record) -> str:
    ends = judgement.interval(record)
    return f", 95 % from {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _p_value(record: fields.Record) -> str:
    found = fields.number(record.get("p_value"))
    if found is None:
        return ""
    models = fields.number(record.get("p_models"))
    told = f"at most {found:.2g}" if judgement.is_smallest(record) else f"{found:.2g}"
    return told + (f", from {text.count(int(models), 'clean model')}" if models else "")


def _of_the_detector(record: fields.Record) -> list[Fact]:
    """What the detector alone has to tell, as far as it is short and no chart shows it."""
    info = fields.mapping(record.get("info"))
    rest = {name: value for name, value in info.items() if name not in _DRAWN}
    return [
        Fact(name.replace("_", " "), _brief(value))
        for name, value in fields.flat(rest).items()
    ]


def _brief(value: Any) -> str:
    """A scalar or a short vector as text; nothing for what is longer."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, str):
        return value if len(value) <= _MOST_CHARACTERS else ""
    items = fields.listed(value)
    if len(items) > _MOST_NUMBERS or any(isinstance(v, list | dict) for v in items):
        return ""
    return ", ".join("–" if item is None else _brief(item) for item in items)


def _measured(value: Any, form: str) -> str:
    found = fields.number(value)
    return "" if found is None else form.format(found)


def _normalisation(record: fields.Record) -> str:
    found = fields.mapping(record.get("normalisation"))
    parts = [
        ", ".join(f"{v:.3g}" for v in fields.numbers(found.get(key)) if v is not None)
        for key in ("mean", "std")
    ]
    if not all(parts):
        return str(found.get("source") or "")
    source = f" (from {found['source']})" if found.get("source") else ""
    return f"mean {parts[0]}; std {parts[1]}{source}"
