"""Repaired models as files, and what a reader should know of them."""

import dataclasses
import hashlib
import os
import re

from ban_jax import checkpoints, records, repairs
from ban_jax.checkpoints import part_paths
from ban_jax.repairs import inputs
from ban_jax.storage import run_folder, versions
from ban_jax.types import Variables

NAMED = 100
"""Bytes of a file's name, and of a classifier's in it, that an output is called by."""


def write(
    folder: run_folder.RunFolder,
    candidate: checkpoints.Candidate,
    digest: str,
    variables: Variables,
    info: repairs.RepairInfo,
    request: inputs.Request,
) -> str:
    """Writes a repaired model with its provenance; returns its name in the folder.

    What came from a PyTorch file keeps that file's own names and layout.

    Args:
      folder: of the repaired models.
      candidate: what was repaired.
      digest: of all that decides the repair besides the candidate.
      variables: of the repaired model.
      info: what the repair saw.
      request: how.
    """
    name = name_of(candidate, digest)
    names = candidate.names if candidate.names.is_torch else None
    remarks = {
        "clean_accuracy": round(float(info.accuracy_after), 4),
        "repaired": {
            "from": candidate.path,
            "sha256": candidate.sha256,
            "container": candidate.names.container,
            "method": request.method,
            "settings": dataclasses.asdict(request.settings),
            "seed": request.seed,
            "data": request.data,
            "versions": versions.versions(),
        },
    }
    folder.write(
        f"{name}.safetensors",
        lambda path: checkpoints.write_safetensors(
            path, variables, candidate.spec, remarks, names
        ),
    )
    if request.orbax:
        folder.write(
            f"orbax/{name}",
            lambda path: checkpoints.write_orbax(
                path, variables, candidate.spec, remarks
            ),
        )
    return name


def name_of(candidate: checkpoints.Candidate, digest: str) -> str:
    """`model.pt#state_dict_ema` -> `model-state_dict_ema-1a2b3c4d`.

    The digits are those of the repair's key, not of the weights alone: these may be
    repaired on images of two sizes, as configs beside two files say. Long names are cut:
    file systems take 255 bytes, and who made the file chose them.
    """
    key = hashlib.sha256(records.key_of(candidate, digest).encode()).hexdigest()
    file, part = part_paths.split(candidate.path)
    base = checkpoints.stem(os.path.basename(os.path.normpath(file)))
    inside = f"-{re.sub('[^A-Za-z0-9_.-]', '-', part)}" if part else ""
    return f"{_cut(base)}{_cut(inside)}-{key[:8]}"


def _cut(name: str) -> str:
    """The first `NAMED` bytes of a name, in whole characters."""
    return os.fsencode(name)[:NAMED].decode(errors="ignore")


def remarks(info: repairs.RepairInfo, request: inputs.Request) -> list[str]:
    """What a reader should know of the accuracy budget."""
    budget = f"the budget of {request.settings.budget:g} (--{request.method}.budget)"
    if info.epochs == 0 or info.details.get("pruned") == 0:
        return [
            f"nothing was changed that stays within {budget}: the model is as it was"
        ]
    if info.stopped and "threshold" in info.details:
        told = f"{float(info.details['threshold']):g}"
        return [f"cut up to a threshold of {told}: a larger one exceeds {budget}"]
    if info.stopped:
        return [f"ended by {budget}, after epoch {int(info.epochs)}"]
    return []
