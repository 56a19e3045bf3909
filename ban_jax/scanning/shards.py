"""A scan shared out among processes that do not talk, and its parts put together again.

Each process takes every n-th file of the sorted list, writes results of its own and,
before it measures anything, the list of what the whole scan is about. So whatever
happens to a process, `gather` can say what is missing.
"""

import dataclasses
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypeVar, cast

import jax
import pydantic

# pydantic wants these of typing_extensions where Python is older than 3.12.
from typing_extensions import TypedDict

from ban_jax import checkpoints, records
from ban_jax.detectors.rules import BaselineKind
from ban_jax.records import fields, passed
from ban_jax.storage import atomic, json_file

T = TypeVar("T")
NAME = re.compile(r"results\.(\d+)-of-(\d+)\.jsonl")
TO_JUDGE = ("baseline", "threshold", "profile")
"""Fields of a plan that verdicts are drawn with."""
MOST = 100_000
"""Shards of a scan: a file name or a flag that promises more is a mistake."""


@dataclasses.dataclass(frozen=True, order=True)
class Shard:
    """One of `count` processes; `index` counts from 0."""

    index: int
    count: int

    def of(self, paths: Sequence[T]) -> Sequence[T]:
        """What this process takes of a sorted list: every n-th, so that kinds mix."""
        return paths[self.index :: self.count]

    def name(self, base: str) -> str:
        """`results.jsonl` -> `results.0-of-4.jsonl`."""
        stem, suffix = os.path.splitext(base)
        return f"{stem}.{self.index}-of-{self.count}{suffix}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Plan(TypedDict):
    """What a shard was told; `plan.i-of-n.json` holds it.

    Attributes:
      shard: `i/n`.
      paths: all files of the scan.
      config_hash: of what decides evidence, see `records.Job.digest`.
      baseline, threshold, profile: what verdicts are drawn with.
      class_names: names of the K classes.
      flags: what was asked for, as the report shows it.
    """

    shard: str
    paths: list[str]
    config_hash: str
    baseline: NotRequired[BaselineKind | None]
    threshold: NotRequired[pydantic.FiniteFloat | None]
    profile: NotRequired[str | None]
    class_names: NotRequired[list[str] | None]
    flags: NotRequired[dict[str, Any]]


class Gathered(NamedTuple):
    """The parts of a scan.

    Attributes:
      records: one per file, sorted by path.
      trusted: evidence of the models of `--calibrate`.
      plan: what the scan was told, from the first part that says so; None: no part does.
      differing: names of `TO_JUDGE` that not all parts were told alike.
      absent: shards of which there is no results file.
      missing: files without a line, sorted.
      passed: what was met and holds no classifier.
    """

    records: list[Any]
    trusted: list[Any]
    plan: Plan | None
    differing: list[str]
    absent: list[Shard]
    missing: list[str]
    passed: list[checkpoints.Passed]


def parse(text: str) -> Shard:
    """Reads `i/n`.

    Raises:
      ValueError: for anything else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match:
        shard = Shard(int(match[1]), int(match[2]))
        if shard.index < shard.count <= MOST:
            return shard
    raise ValueError(
        f"--shard must be i/n with 0 <= i < n <= {MOST:,}, such as 0/4, or auto; got "
        f"{text!r}"
    )


def of_cluster() -> str:
    """`i/n` of this process, from whatever started it together with others.

    The processes meet once and part: from then on nobody waits for anybody, and one that
    dies takes no other with it.
    """
    try:
        jax.distributed.initialize()
        index, count = jax.process_index(), jax.process_count()
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"--shard auto: jax.distributed found no cluster ({error}). On a single "
            "machine or in a job array give the numbers: --shard i/n"
        ) from error
    return f"{index}/{count}"


def write_plan(
    folder: str, shard: Shard, paths: Sequence[str], told: dict[str, Any]
) -> None:
    """Writes `plan.i-of-n.json`: all files of the scan, and `told`."""
    plan = {"shard": str(shard), "paths": list(paths), **told}
    name = os.path.join(folder, shard.name("plan.json"))
    atomic.write(name, json.dumps(plan, indent=1).encode())


def gather(sources: Sequence[str]) -> Gathered:
    """Reads the results of shards, and finds out what is not among them.

    Args:
      sources: folders that shards wrote to, or single `results.i-of-n.jsonl`; plans are
        looked for beside them.

    Raises:
      ValueError: no results of a shard there; shards of several divisions, or of scans
        that were told different things.
    """
    files = _files(sources)
    counts = sorted({shard.count for shard in files})
    if len(counts) > 1:
        listed = ", ".join(sorted(name for names in files.values() for name in names))
        raise ValueError(
            f"these results are of scans in {' and '.join(map(str, counts))} shards; name "
            f"the files of one of them: {listed}"
        )
    found: dict[str, Any] = {}
    trusted: dict[str, Any] = {}
    plans: dict[str, Plan] = {}
    beside: list[str] = []
    for shard, names in sorted(files.items()):
        for name in names:
            folder = os.path.dirname(name)
            beside_it = os.path.join(folder, shard.name("plan.json"))
            # No pipe is opened, which could be waited at for ever.
            if os.path.isfile(beside_it):
                plans[beside_it] = _read_plan(beside_it)
            plan = plans.get(beside_it)
            own = set(shard.of(plan["paths"])) if plan else set()
            for record in records.load(name).records:
                path = record["path"]
                if _is_of(record, plan, own) and (
                    path not in found or _told(record) >= _told(found[path])
                ):
                    found[path] = record
            calibration = os.path.join(folder, shard.name("trusted.jsonl"))
            if os.path.isfile(calibration):
                trusted |= {r["path"]: r for r in records.load(calibration).records}
            beside.append(os.path.join(folder, shard.name(passed.NAME)))
    _agree(plans)
    expected = {path for plan in plans.values() for path in plan["paths"]}
    return Gathered(
        records=[found[path] for path in sorted(found)],
        trusted=[trusted[path] for path in sorted(trusted)],
        plan=next(iter(plans.values()), None),
        absent=[
            shard
            for index in range(counts[0])
            if (shard := Shard(index, counts[0])) not in files
        ],
        differing=[
            name
            for name in TO_JUDGE
            if len({json.dumps(plan.get(name)) for plan in plans.values()}) > 1
        ],
        missing=sorted(expected - {_file_of(record) for record in found.values()}),
        passed=passed.load(beside),
    )


def _is_of(record: Any, plan: Plan | None, own: Collection[str]) -> bool:
    """Whether a line is of a file that is the shard's, and was measured as its plan says.

    A shard that was started again with other settings, and stopped, has lines of before.
    A model whose own config says how images are prepared is measured on others. Where
    files came or went, others are a shard's than before: it keeps the lines of those that
    were its own, and they are old.
    """
    if plan is None:
        return True
    if _file_of(record) not in own:
        return False
    is_prepared = "preparation" in (record["data"] or {})
    return is_prepared or record["config_hash"] == plan["config_hash"]


def _file_of(record: Any) -> str:
    """The file of a line, whole where it holds several classifiers."""
    return record["part_of"] or record["path"]


def _told(record: Any) -> tuple[bool, int]:
    """How much a line tells: of a failure, of a first look, of a closer one besides."""
    return bool(record.get("key")), len(record["vectors"])


def _files(sources: Sequence[str]) -> dict[Shard, list[str]]:
    """Results files by shard; one shard may have several, of processes on other disks."""
    found: dict[Shard, list[str]] = {}
    for source in sources:
        if os.path.isdir(source):
            names = [os.path.join(source, name) for name in sorted(os.listdir(source))]
            names = list(filter(os.path.isfile, names))
        else:
            names = [source]
        for name in names:
            match = NAME.fullmatch(os.path.basename(name))
            if match and int(match[1]) < int(match[2]) <= MOST:
                found.setdefault(Shard(int(match[1]), int(match[2])), []).append(name)
            elif not os.path.isdir(source):
                raise ValueError(
                    f"{source}: expected a folder, or a file named like "
                    "results.0-of-4.jsonl, as `ban-jax scan --shard 0/4` writes it"
                )
    if not found:
        raise ValueError(
            f"no results of a shard in {', '.join(sources)}; expected files named like "
            "results.0-of-4.jsonl, as `ban-jax scan --shard 0/4` writes them"
        )
    return found


def _read_plan(name: str) -> Plan:
    """The plan in a file, which may have come from anywhere.

    Raises:
      ValueError: naming the file, and the field that is not as a scan writes it.
    """
    try:
        plan = json_file.load(name)
        if not isinstance(plan, dict):
            raise ValueError(f"expected an object, found a {type(plan).__name__}")
        fields.check(plan, Plan, "scan --shard")
        return cast(Plan, plan)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: not the plan of a shard ({error}). Start that shard again: it "
            "writes a new one and goes on where it stopped"
        ) from None


def _agree(plans: Mapping[str, Plan]) -> None:
    """All parts must have measured the same thing, or they are not one scan."""
    hashes = {name: plan["config_hash"] for name, plan in plans.items()}
    if len(set(hashes.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in hashes.items())
        raise ValueError(
            "these shards were scanned with different settings, clean images or versions "
            f"(config_hash {listed}); start those again that differ, with the same flags"
        )
