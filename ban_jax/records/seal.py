"""Which evidence this user's scans measured: only that is ever used again.

A line carries a keyed hash of what was measured. Its key is a secret of the user
(`storage.state`), so that a results file that lies among downloaded models, or was changed,
never becomes evidence.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ban_jax.records import record
from ban_jax.records.jsonl import finite
from ban_jax.storage import state

Line = TypeVar("Line", bound=Mapping[str, Any])

OF_THE_FILE = (
    "path",
    "recorded_accuracy",
    "notes",
    "calls",
    "other",
    "error",
    "part_of",
    "parts",
)
"""Read anew from each file, so that no seal vouches for it."""
UNSEALED = (*OF_THE_FILE, "schema_version", "seconds", "seal")
"""Time is left out so that the same measurements have the same seal."""
SEALED = tuple(sorted(set(record.Evidence.__annotations__) - set(UNSEALED)))


def sealed(line: Line, names: Sequence[str] = SEALED) -> Line:
    """The line with the seal of its numbers; `names` of those, in other lines than ours."""
    return cast(Line, {**line, "seal": _of(line, names)})


def is_own(line: Mapping[str, Any], names: Sequence[str] = SEALED) -> bool:
    """Whether a scan of this user measured what the line says."""
    found = line.get("seal")
    if not isinstance(found, str) or not found.isascii():
        return False
    return hmac.compare_digest(found, _of(line, names))


def strangers(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Paths of the lines that tell of measurements which no scan of this user made."""
    return [line["path"] for line in lines if line["key"] and not is_own(line)]


def note(quantity: int, name: str, what_follows: str) -> str:
    """The sentence about results that somebody else wrote.

    Args:
      quantity: of the lines.
      name: of the file or files.
      what_follows: what is done with them.
    """
    where = state.secret().path or "a folder that could not be used"
    return (
        f"{name}: {quantity} of the results were not measured by a scan of yours on this "
        f"machine (the secret in {where} did not seal them); {what_follows}. If you "
        f"measured them elsewhere, share the secret: copy that file, or name its folder "
        f"with {state.VARIABLE} on both machines"
    )


def _of(line: Mapping[str, Any], names: Sequence[str]) -> str:
    told = finite({name: line.get(name) for name in names})
    text = json.dumps(told, sort_keys=True, allow_nan=False)
    key = state.secret().key
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
