"""The files of a comparison: figures, a table for spreadsheets, the page, rates."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ban_jax import records, report
from ban_jax.storage import atomic, json_file

RATES = "rates.json"
CSV_COLUMNS = (
    "detector",
    "attack",
    "architecture",
    "models",
    "flagged",
    "flagged_low",
    "flagged_high",
    "right",
    "right_low",
    "right_high",
    "right_target",
    "right_target_low",
    "right_target_high",
    "auc",
    "auc_low",
    "auc_high",
    "suspicious",
    "inconclusive",
    "seconds",
    "forward_equivalents",
    "chunk_bytes",
)


def write(folder: str, told: Mapping[str, Any]) -> list[str]:
    """Writes `comparison.json`, `.csv` and `.html`; returns their paths."""
    names = ("json", "csv", "html")
    paths = {kind: os.path.join(folder, f"comparison.{kind}") for kind in names}
    text = json.dumps(told, indent=1, allow_nan=False)
    atomic.write(paths["json"], text.encode() + b"\n")
    records.write_table(paths["csv"], CSV_COLUMNS, _rows(told))
    report.write_comparison(paths["html"], told)
    return list(paths.values())


def _rows(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for all models of each detector, then one per attack and architecture."""
    for method in told["methods"]:
        costs = {cost["architecture"]: cost for cost in method["costs"]}
        for row in (method["total"], *method["rows"]):
            cost = costs.get(row["architecture"], method)
            line = {
                "detector": method["name"],
                **{name: row[name] for name in ("attack", "architecture", "models")},
                **{name: row[name] for name in ("suspicious", "inconclusive")},
                **{name: cost[name] for name in CSV_COLUMNS[-3:]},
            }
            for name in ("flagged", "right", "right_target", "auc"):
                found = row[name]
                if found is not None:
                    ends = {f"{name}_low": found["low"], f"{name}_high": found["high"]}
                    line |= {name: found["value"], **ends}
            yield line


def read_rates(path: str) -> dict[str, float]:
    """Forward-equivalents per second that an earlier run measured.

    Raises:
      ValueError: naming the file, where it is no such table.
    """
    if not os.path.exists(path):
        return {}
    try:
        found = json_file.load(path)
        return {str(name): float(rate) for name, rate in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


def write_rates(path: str, rates: Mapping[str, float]) -> None:
    """Keeps them for a run that is started again."""
    atomic.write(path, json.dumps(rates, indent=1).encode() + b"\n")
