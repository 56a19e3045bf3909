"""The lines of a results file: what is measured and judged of a candidate."""

from ban_jax.records.job import Job, key_of
from ban_jax.records.jsonl import (
    Loaded,
    PathLike,
    ResultsError,
    append,
    encode,
    finite,
    rewrite,
)
from ban_jax.records.record import (
    SCHEMA_VERSION,
    Evidence,
    Record,
    Verdict,
    json_schema,
)
from ban_jax.records.results import Writer, load
from ban_jax.records.settings import Settings
from ban_jax.records.spreadsheet import write_csv

__all__ = [
    "SCHEMA_VERSION",
    "Evidence",
    "Job",
    "Loaded",
    "PathLike",
    "Record",
    "ResultsError",
    "Settings",
    "Verdict",
    "Writer",
    "append",
    "encode",
    "finite",
    "json_schema",
    "key_of",
    "load",
    "rewrite",
    "write_csv",
]
