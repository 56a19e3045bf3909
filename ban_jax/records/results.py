"""The results file of a scan: `jsonl` with the lines of `record`."""

from ban_jax.records import jsonl, record
from ban_jax.records.record import Evidence


def load(path: jsonl.PathLike) -> jsonl.Loaded[Evidence]:
    """Reads a results file, of any version; see `jsonl.load`."""
    return jsonl.load(path, record.parse)


class Writer(jsonl.Writer[Evidence]):
    """Appends evidence, judged or not, to a results file; see `jsonl.Writer`."""

    def __init__(
        self, path: jsonl.PathLike, *, resume: bool = True, sync: bool = False
    ):
        super().__init__(path, record.parse, resume=resume, sync=sync)
