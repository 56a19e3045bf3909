"""What the tables share: commands in order, each resumable, and the file of their figures.

A table is a list of `ban-jax` commands and what is made of what they leave behind. At CPU
scale it is `compare` on the models of `benchmarks/zoo/`. With `--full` the models are
trained first, at the paper's scale; then every command is told where to go on from when it
is started again. `--list` shows the commands and runs none.
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ban_jax.commands.compare import COMPARABLE
from ban_jax.comparing import writing
from benchmarks import _command, _timing
from benchmarks.paper import _joined

ZOO = os.path.join(_timing.CHECKOUT, "benchmarks", "zoo")
SEVEN = "neural_cleanse,tabor,feature_re,unicorn,bti_dbf,bti_dbf_star,ban"
"""Of the paper's table of detection."""
SEEDS = 20
"""Models per attack and architecture at full scale."""
SHARED = (
    "--data cifar10 --epochs 200 --batch-size 128 --schedule step --crop 4 --no-orbax"
)
QUICK, SLOW = "--learning-rate 0.1", "--learning-rate 0.01"
"""Of models poisoned on disk, and of those poisoned batch by batch."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Where and at what scale.

    Attributes:
      out: folder for models and evidence; the same command goes on there.
      data_dir: TFDS's folder.
      full: the paper's scale instead of the CPU's.
      list: shows the commands alone.
      collect: runs none, and makes the result file of what earlier runs left behind.
      only: runs these commands alone, by the names of their folders in `--out`, separated
        by commas: those that hang on nothing else may run at the same time. Writes no
        result file; `--collect` does.
      more: further flags of `ban-jax compare` and `repair`, as in `--more="--chunk 4"`.
      training: further flags of `ban-jax train`, such as `--training="--seeds 1"`.
      name: of the result file; by default the table's.
      results: its folder.
    """

    out: str
    data_dir: str | None = None
    full: bool = False
    list: bool = False
    collect: bool = False
    only: str = ""
    more: str = ""
    training: str = ""
    name: str = ""
    results: str | None = None


Words = Sequence[str]


def data(flags: Flags, name: str = "cifar10") -> list[str]:
    """The flags that name a data set."""
    return ["--data", name, *(("--data-dir", flags.data_dir) if flags.data_dir else ())]


def train(flags: Flags, folder: str, told: str, *more: str) -> list[str]:
    """`ban-jax train` at the paper's scale; `--training` wins."""
    place = os.path.join(flags.out, folder)
    given = ["--data-dir", flags.data_dir] if flags.data_dir else []
    words = ["train", "--out", place, *told.split(), *more, *given]
    return [*words, *shlex.split(flags.training)]


def compare(
    flags: Flags,
    zoos: Sequence[str],
    detectors: str,
    folder: str,
    name: str = "cifar10",
    given: Words = (),
) -> list[str]:
    """`ban-jax compare` with those of the detectors that are there; `--more` wins."""
    place = os.path.join(flags.out, folder)
    asked = detectors.split(",")
    if absent := [one for one in asked if one not in COMPARABLE]:
        print(f"left out, this version has no {', '.join(absent)}")
    known = ",".join(one for one in asked if one in COMPARABLE)
    words = ["compare", *zoos, "--detectors", known, *data(flags, name)]
    return [*words, "--out", place, *given, *shlex.split(flags.more)]


def run(flags: Flags, steps: Iterable[Words]) -> bool:
    """Runs the commands in order; True where the result file can be written now.

    Raises:
      SystemExit: for a name in `--only` that no command has.
    """
    whole = list(steps)
    only = [name for name in flags.only.split(",") if name]
    names = [folder_of(words) for words in whole]
    if strange := [name for name in only if name not in names]:
        raise SystemExit(
            f"--only {strange[0]}: expected names of {', '.join(dict.fromkeys(names))}"
        )
    for words, name in zip(whole, names, strict=True):
        if only and name not in only:
            continue
        print("ban-jax", shlex.join(words), flush=True)
        if not flags.list and not flags.collect:
            _command.ban_jax(words, fine=_command.JUDGED, log=None)
    return not flags.list and (flags.collect or not only)


def folder_of(words: Words) -> str:
    """Name of the folder in `--out` that a command writes to."""
    return os.path.basename(words[words.index("--out") + 1])


def table(found: Mapping[str, Any]) -> list[str]:
    """Markdown: attacks and architectures below each other, detectors side by side.

    A cell is `Bd. / Acc.`: models flagged of all, and share judged correctly. The last
    lines have the AUC, false alarms, seconds and passes of each detector.
    """
    methods = found["methods"]
    lines = [_line(["attack", "architecture", *(one["name"] for one in methods)])]
    lines.append(_line(["---"] * (len(methods) + 2)))
    for place, row in enumerate(methods[0]["rows"]):
        cells = [one["rows"][place] for one in methods]
        lines.append(
            _line(
                [row["attack"], row["architecture"]]
                + [f"{_count(c['flagged'])} / {_percent(c['right'])}" for c in cells]
            )
        )
    for told, show in (
        ("AUC [95 %]", lambda m: _ends(m["total"]["auc"])),
        ("right target", lambda m: _count(m["total"]["right_target"])),
        ("false alarms", lambda m: _count(m["false_alarms"])),
        ("inconclusive", lambda m: str(m["total"]["inconclusive"])),
        ("s per model", lambda m: _number(m["seconds"])),
        ("passes per model", lambda m: _number(m["forward_equivalents"])),
    ):
        lines.append(_line([f"**{told}**", "", *(show(one) for one in methods)]))
    return lines


def write(flags: Flags, name: str, measured: Mapping[str, Any]) -> None:
    """Writes the result file, with how this process was started."""
    command = shlex.join(["python", "-m", f"benchmarks.paper.{name}", *sys.argv[1:]])
    path = _timing.write_result(
        flags.name or f"paper_{name}", measured, command=command, folder=flags.results
    )
    print(path)


def write_comparisons(
    flags: Flags, name: str, folders: Mapping[str, Sequence[str]]
) -> None:
    """Writes the result file of tables that are comparisons: title -> folders.

    Comparisons that were not run are left out, and named. Those of several folders are one
    table, and one page in `--out`, in a folder of the title's name.
    """
    measured: dict[str, Any] = {}
    for title, parts in folders.items():
        found = _joined.read(flags.out, parts)
        if found is None:
            continue
        if len(parts) > 1:
            place = os.path.join(flags.out, "joined", title.replace(",", ""))
            os.makedirs(place, exist_ok=True)
            writing.write(place, found)
        lines = table(found)
        print("\n".join([title, "", *lines]))
        measured[title] = {"table": lines, "comparison": found}
    write(flags, name, measured)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _count(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{found['hits']}/{found['total']}"


def _percent(found: Mapping[str, Any]) -> str:
    return "–" if found["value"] is None else f"{100 * found['value']:.0f} %"


def _ends(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
