"""The line of `repairs.jsonl`: a candidate before and after its repair."""

import dataclasses
from typing import Any, cast

from typing_extensions import TypedDict

from ban_jax import checkpoints
from ban_jax.records import fields
from ban_jax.repairs import inputs
from ban_jax.storage import versions


class RepairRecord(TypedDict):
    """What was done to one checkpoint, and what came of it.

    Attributes:
      path: of the candidate.
      key: what the repair depends on; null where nothing was repaired.
      sha256: of the candidate's weights.
      architecture: of the network.
      width: channels of its first convolution.
      num_classes: K.
      method: name of the repair.
      settings: the method's.
      seed: of all randomness.
      versions: of the packages, and the device.
      output: file of the repaired model in the output folder.
      orbax: the same as an Orbax folder.
      attack: what a zoo tells of the model.
      before: verdict, accuracy and attack success of the candidate.
      after: the same of the repaired model.
      info: what the repair saw.
      shown: a few triggered images, and what the model took them for.
      seconds: of repairing, per candidate of its chunk.
      error: why nothing was repaired.
      notes: what a reader should know.
      seal: of the user who repaired it, see `records.seal`; null where nothing was.
    """

    path: str
    key: str | None
    sha256: str | None
    architecture: str | None
    width: int | None
    num_classes: int | None
    method: str
    settings: dict[str, Any]
    seed: int
    versions: dict[str, str]
    output: str | None
    orbax: str | None
    attack: dict[str, Any] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    info: dict[str, Any] | None
    shown: list[dict[str, Any]]
    seconds: float
    error: str | None
    notes: list[str]
    seal: str | None


_UNSEALED = ("path", "seconds", "notes", "seal")
SEALED = tuple(sorted(set(RepairRecord.__annotations__) - set(_UNSEALED)))


def empty(
    path: str,
    request: inputs.Request,
    candidate: checkpoints.Candidate | None,
    **known: Any,
) -> RepairRecord:
    """A line of which only the candidate and what is given are known."""
    spec = candidate.spec if candidate else None
    line: dict[str, Any] = {
        "path": path,
        "key": None,
        "sha256": candidate.sha256 if candidate else None,
        "architecture": spec.architecture if spec else None,
        "width": spec.width if spec else None,
        "num_classes": spec.num_classes if spec else None,
        "method": request.method,
        "settings": dataclasses.asdict(request.settings),
        "seed": request.seed,
        "versions": versions.versions(),
        "output": None,
        "orbax": None,
        "attack": None,
        "before": None,
        "after": None,
        "info": None,
        "shown": [],
        "seconds": 0.0,
        "error": None,
        "notes": [],
        "seal": None,
    }
    return cast(RepairRecord, {**line, **known})


def parse(line: dict[str, Any]) -> RepairRecord:
    """Checks a line that was read; older ones had no seal.

    Raises:
      ValueError: for what is not such a line.
    """
    line = {**line, "seal": line.get("seal")}
    fields.check(line, RepairRecord, "repair")
    return cast(RepairRecord, line)
