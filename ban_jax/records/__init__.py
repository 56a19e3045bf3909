"""The lines of a results file: what is measured and judged of a candidate."""

from ban_jax.records.job import Job, has_failed, key_of, merged, of_the_file
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
    class_names,
    json_schema,
)
from ban_jax.records.results import Writer, load
from ban_jax.records.settings import Settings
from ban_jax.records.spreadsheet import csv_text, write_csv, write_table

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
    "class_names",
    "csv_text",
    "encode",
    "finite",
    "json_schema",
    "key_of",
    "load",
    "has_failed",
    "merged",
    "of_the_file",
    "rewrite",
    "write_csv",
    "write_table",
]
