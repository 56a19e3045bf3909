"""Plots beside the result files: small SVGs that come out the same from the same data."""

import os
from collections.abc import Mapping, Sequence

import matplotlib

from benchmarks import _timing

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

STYLE = {"svg.hashsalt": "ban_jax", "svg.fonttype": "none", "font.size": 9}
SIZE = (5.0, 3.0)
"""Inches."""

Points = Sequence[tuple[float, float]]


def lines(
    name: str,
    series: Mapping[str, Points],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    marker: str = "o",
    folder: str | None = None,
) -> str:
    """Draws one line per series, from zero upwards.

    Args:
      name: of the file, without `.svg`.
      series: label -> points.
      x: title of the axis.
      y: title of the axis.
      log_x: whether equal ratios are equally far apart.
      marker: of each point; empty for curves of many.
      folder: `benchmarks/results` when None.

    Returns:
      The file's path.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
        for label, points in series.items():
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
        if log_x:
            ticks = sorted({point[0] for points in series.values() for point in points})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        top = max(point[1] for points in series.values() for point in points)
        axes.set_ylim(0, 1.1 * top)
        if len(series) > 1:
            axes.legend(frameon=False)
        return _finished(figure, axes, name, x, y, folder)


def bars(
    name: str,
    values: Mapping[str, float],
    *,
    x: str,
    log: bool = False,
    folder: str | None = None,
) -> str:
    """Draws one horizontal bar per entry, the first on top; see `lines`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
        drawn = axes.barh(list(values), list(values.values()), log=log)
        axes.bar_label(drawn, fmt=_three_digits, padding=3)
        axes.margins(x=0.15)
        if log:
            axes.set_xlim(left=1)  # the same start whatever the shortest bar
        axes.invert_yaxis()
        return _finished(figure, axes, name, x, "", folder)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _finished(figure, axes, name: str, x: str, y: str, folder: str | None) -> str:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    folder = folder or _timing.RESULTS
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.svg")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
