"""Numbers as people read them."""


def show(value: float | None, unit: str = "number") -> str:
    """A number with as many digits as its unit deserves.

    Args:
      value: None is a dash.
      unit: `share` and `difference` are shown in per cent, `score` with two decimals;
        any other as a plain number.
    """
    # `z` keeps a tiny negative number from being shown as minus zero.
    if value is None:
        return "–"
    if unit == "share":
        digits = 0 if value >= 0.1 or not value else 1
        text = f"{100 * value:z.{digits}f} %"
    elif unit == "difference":
        text = f"{100 * value:+z.1f} %"
    elif unit == "score":
        text = score(value)
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def score(value: float) -> str:
    """A score with two decimals, or in short form where it is huge."""
    return f"{value:z.2f}" if abs(value) < 1e5 else f"{value:.3g}"


def share(value: float) -> str:
    """A probability to two figures, without the zero in front: `.04`, `1`."""
    return f"{value:.2g}".removeprefix("0") or "0"


def half_width(value: float) -> str:
    """`±0.42`, `±3.2` or `±12`: no finer than a reader needs."""
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"±{value:.{digits}f}" if value < 1e5 else f"±{value:.2g}"


def seconds(value: float | None) -> str:
    """Seconds, to two figures below one; nothing where they are not known."""
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
