"""What precision and lowering of the convolutions do to scores, verdicts and time.

    python -m benchmarks.numerics ZOO --data digits

Scans a labelled zoo once as `ban-jax scan` does (float32, lowerings from the table), then
with every other precision and with every lowering for all layers alike, candidate by
candidate the same images and random numbers. Differences of scores are also told in units
of the score's own standard error.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import jax
import tyro

from ban_jax import convolution, records, types, verdict
from ban_jax.commands import scan as scan_command
from ban_jax.scanning import scan
from benchmarks import _timing, _zoo

Record = records.Record


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    zoo: folder written by `ban-jax train`.
    data: clean images.
    data_dir: TFDS's folder.
    image_size: side the images are resized to.
    mode: detector.
    precisions: to compare with float32.
    lowerings: for all layers alike, to compare with the table's choice.
    name: of the result file.
    results: its folder.
    """

    zoo: Annotated[str, tyro.conf.Positional]
    data: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    mode: str = "targeted"
    precisions: tuple[types.Precision, ...] = ("bfloat16", "tf32")
    lowerings: tuple[convolution.Name, ...] = convolution.LOWERINGS
    name: str = "numerics"
    results: str | None = None


def variants(
    flags: Flags, base: records.Settings
) -> Iterator[tuple[str, records.Settings]]:
    """The base first, under the names the table of results uses."""
    yield "float32, table", base
    for precision in flags.precisions:
        yield f"{precision}, table", dataclasses.replace(base, precision=precision)
    for name in flags.lowerings:
        yield f"float32, {name}", dataclasses.replace(base, lowering=name)


def compare(base: Sequence[Record], other: Sequence[Record]) -> dict[str, Any]:
    """Differences of the same candidates' judged records."""
    pairs = [
        (one, two)
        for one, two in zip(base, other, strict=True)
        if one["score"] is not None and two["score"] is not None
    ]
    gaps = [abs(one["score"] - two["score"]) for one, two in pairs]
    shares = [
        gap / one["standard_error"] for gap, (one, _) in zip(gaps, pairs, strict=True)
    ]

    def changed(field: str) -> list[str]:
        return [
            one["path"]
            for one, two in zip(base, other, strict=True)
            if one[field] != two[field]
        ]

    return {
        "scored": len(pairs),
        "score_difference": {"mean": statistics.fmean(gaps), "max": max(gaps)},
        "in_standard_errors": {"mean": statistics.fmean(shares), "max": max(shares)},
        "verdicts_changed": changed("verdict"),
        "targets_changed": changed("target"),
    }


def main(flags: Flags) -> None:
    """Prints and writes the table."""
    machine = _timing.hardware()
    paths = sorted(_zoo.labelled(flags.zoo))
    told = scan_command.Flags(
        paths=tuple(paths),
        data=flags.data,
        data_dir=flags.data_dir,
        image_size=flags.image_size,
        mode=flags.mode,
    )
    job = scan_command.prepare(told)
    device = jax.devices()[0]
    base: list[Record] = []
    table = []
    for label, variant in variants(flags, job.settings):
        start = time.perf_counter()
        changed = records.Job(variant, job.probe)
        found = {line["path"]: line for line, _ in scan.scan(paths, changed)}
        wall = time.perf_counter() - start
        judged = verdict.judge_all([found[path] for path in paths])
        base = base or judged
        row = {
            "variant": label,
            **compare(base, judged),
            "flagged": sum(record["verdict"] == "backdoored" for record in judged),
            "inconclusive": sum(r["verdict"] == "inconclusive" for r in judged),
            "wall_seconds": round(wall, 2),
            "median_seconds": round(
                statistics.median(record["seconds"] for record in judged), 3
            ),
        }
        table.append(row)
        print(row, flush=True)
        _timing.write_result(
            flags.name,
            {
                **dataclasses.asdict(flags),
                "candidates": len(paths),
                "backend": device.platform,
                "device": device.device_kind,
                "lowering_table": job.settings.lowering_identity(),
                "variants": table,
            },
            machine=machine,
            folder=flags.results,
        )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
