"""The lines of a results file: what is measured and judged of a candidate."""

from ban_jax.records.jsonl import (
    Loaded,
    PathLike,
    Record,
    ResultsError,
    Writer,
    append,
    encode,
    finite,
    load,
    rewrite,
)
from ban_jax.records.settings import (
    Settings,
    blank,
    failure,
    identity,
    key_of,
    plain,
)
from ban_jax.records.spreadsheet import write_csv

__all__ = [
    "Loaded",
    "PathLike",
    "Record",
    "ResultsError",
    "Settings",
    "Writer",
    "append",
    "blank",
    "encode",
    "failure",
    "finite",
    "identity",
    "key_of",
    "load",
    "plain",
    "rewrite",
    "write_csv",
]
