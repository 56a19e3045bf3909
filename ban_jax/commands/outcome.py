"""What every command leaves behind: an exit code, a table, files in `--out`."""

import contextlib
import contextvars
import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Literal, get_args

import rich.progress

from ban_jax import checkpoints, records, report, verdict
from ban_jax.records import Record, jsonl
from ban_jax.records import passed as passed_files
from ban_jax.report import terminal, text

CLEAN, FLAGGED, INCONCLUSIVE, NOTHING = 0, 1, 2, 3
"""Exit codes of `scan`; a later one wins over an earlier one."""

WRITTEN = ("results.jsonl", passed_files.NAME, "results.csv", "report.html")
"""What a command leaves in `--out`."""
_BAR_WIDTH = 80
_OF_THE_PRINT = ("format", "output", "quiet", "cache_dir", "cache_limit")
"""Flags that change no result."""
_QUIET = contextvars.ContextVar("_QUIET", default=False)
FailOn = Literal["backdoored", "suspicious", "never"]
FAIL_ON: tuple[FailOn, ...] = get_args(FailOn)
"""What `--fail-on` takes: grades, the gravest first, and none."""


def refuse_foreign(path: str) -> None:
    """Refuses to replace a file that is no file of results.

    Raises:
      ResultsError: unless each of its lines is of a result, or there is no such file.
    """
    if os.path.isfile(path):  # opening a pipe would wait
        jsonl.load(path, dict)


def refuse_strange(lines: str, names: Iterable[str] = WRITTEN) -> None:
    """Refuses to replace pages and tables beside which no results lie.

    Every command writes its results first, so what lies there without them is of another
    program, or came with what is scanned.

    Args:
      lines: the file of results that belongs to them.
      names: of the files in its folder that will be replaced.

    Raises:
      ResultsError: for the first such file.
    """
    if os.path.lexists(lines):
        return
    for name in names:
        path = os.path.join(os.path.dirname(lines), name)
        if os.path.lexists(path):
            raise jsonl.ResultsError(
                f"{path}: would be replaced, but no {os.path.basename(lines)} lies beside "
                "it, so no scan wrote it; expected a folder of results or a new one. Move "
                "the file away, or choose another folder with --out"
            )


def exit_code(
    judged: Sequence[Mapping[str, Any]],
    fail_on: FailOn = "suspicious",
    *,
    may_be_none: bool = False,
) -> int:
    """0 nothing to report, 1 something flagged, 2 something inconclusive, which wins; 3
    nothing was judged.

    Args:
      judged: results; those of files that hold no classifier do not count.
      fail_on: the mildest grade that counts as flagged; with `never` what was judged is 0.
      may_be_none: whether it is nothing to report that there is nothing.

    Raises:
      ValueError: for another grade.
    """
    if fail_on not in FAIL_ON:
        found = f"{', '.join(FAIL_ON[:-1])} or {FAIL_ON[-1]}, got {fail_on}"
        raise ValueError(f"--fail-on must be {found}")
    kept, _ = passed_files.divide(judged)
    if not kept and not may_be_none:
        return NOTHING
    if fail_on == "never":
        return CLEAN
    verdicts = {record["verdict"] for record in kept}
    if "inconclusive" in verdicts:
        return INCONCLUSIVE
    grave = FAIL_ON[: FAIL_ON.index(fail_on) + 1]
    return CLEAN if verdicts.isdisjoint(grave) else FLAGGED


def write_reports(
    judged: Sequence[Record],
    out: str,
    class_names: tuple[str, ...] | None,
    settings: dict[str, Any],
    trust: str | None = None,
    passed: Sequence[checkpoints.Passed] = (),
    *,
    show_skipped: bool = False,
    pictured: int = report.PICTURED,
    file: IO[str] | None = None,
) -> None:
    """Prints the table and writes `results.csv` and `report.html`.

    Args:
      judged: results of a whole scan.
      out: the folder, which holds them as `results.jsonl`.
      class_names: names of the K classes.
      settings: what was asked for.
      trust: how often such verdicts were right where the truth is known.
      passed: what else was met, and holds no classifier.
      show_skipped: prints each of these.
      pictured: checkpoints whose evidence the page draws.
      file: where the table is printed, by default standard output.
    """
    records.write_csv(os.path.join(out, "results.csv"), judged)
    judged, others = passed_files.divide(judged)
    passed = sorted([*passed, *others])
    page = os.path.join(out, "report.html")
    steps = report.steps(judged, os.path.join(out, "results.jsonl"), settings)
    told: dict[str, Any] = {"class_names": class_names, "trust": trust, "steps": steps}
    report.write_html(
        page, judged, settings=settings, passed=passed, pictured=pictured, **told
    )
    report.print_table(
        judged, **told, passed=passed, show_skipped=show_skipped, file=file
    )
    for note, count in verdict.fallbacks(judged).items():
        print(f"note: {count} {note}", file=sys.stderr)
    print(f"Report: {page}")


@contextlib.contextmanager
def withdrawn(folder: str) -> Iterator[None]:
    """Where the body fails, a folder that it made is removed again, if it holds nothing."""
    made = []
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        made.append(above)
        above = os.path.dirname(above)
    try:
        yield
    except BaseException:
        for one in made:
            with contextlib.suppress(OSError):
                os.rmdir(one)
        raise


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """While the body runs, no bar is drawn."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def progress() -> rich.progress.Progress:
    """A bar on standard error with the time left."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        console=terminal.console(sys.stderr, _BAR_WIDTH),
        # Prints beside the bar keep their guard, `report.terminal.Guarded`.
        disable=_QUIET.get(),
        redirect_stdout=False,
        redirect_stderr=False,
    )


def say(progress: rich.progress.Progress, line: str) -> None:
    """Prints a line above a bar, unless bars are not wanted."""
    if not progress.disable:
        progress.console.print(text.printable(line))


def describe(flags: Any, *chosen: str) -> dict[str, Any]:
    """Flags as the report shows them: those that were left out stay out.

    Args:
      flags: of a command.
      chosen: the detectors or the repair at work; settings of others stay out, too.
    """
    at_work = {one.replace("-", "_") for one in chosen}
    told = {
        name: value
        for name, value in dataclasses.asdict(flags).items()
        if name in at_work or not dataclasses.is_dataclass(getattr(flags, name))
    }
    return {
        name: value
        for name, value in told.items()
        if value not in (None, ()) and name not in _OF_THE_PRINT
    }


def require(condition: bool, flag: str, expected: str, found: Any) -> None:
    """Refuses a flag.

    Raises:
      ValueError: unless `condition` holds.
    """
    if not condition:
        raise ValueError(f"{flag} must be {expected}, got {found}")


def require_least(flags: Any, **least: float) -> None:
    """Refuses numbers that are too small, and those that are none.

    Args:
      flags: of a command.
      least: name of a flag -> what it must be at least; without a value it passes.

    Raises:
      ValueError: for the first such flag.
    """
    for name, smallest in least.items():
        value = getattr(flags, name)
        flag, fits = f"--{name.replace('_', '-')}", value is None or value >= smallest
        require(fits, flag, f"at least {smallest:g}", value)


def require_file(flag: str, path: str | None, expected: str = "a file") -> None:
    """Refuses what a file would take the place of, before the work for it.

    Raises:
      ValueError: for a folder, a link, a device or a pipe.
    """
    if path is not None and os.path.lexists(path):
        is_file = os.path.isfile(path) and not os.path.islink(path)
        what = "folder" if os.path.isdir(path) else "link, device or pipe"
        require(is_file, flag, expected, f"the {what} {path}")


def require_seed(seed: int) -> None:
    """Refuses what NumPy and JAX take for no seed.

    Raises:
      ValueError: unless it has 32 bits.
    """
    require(0 <= seed < 2**32, "--seed", f"in 0..{2**32 - 1}", seed)


def require_threshold(threshold: Any) -> None:
    """Refuses a threshold that no score lies above, or none can be compared with.

    Raises:
      ValueError: unless it is None or a finite number.
    """
    is_number = isinstance(threshold, int | float) and math.isfinite(threshold)
    require(threshold is None or is_number, "--threshold", "a finite number", threshold)
