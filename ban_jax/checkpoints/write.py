"""Trained and repaired models, written so that `read` gives them back."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

from ban_jax.checkpoints import candidate, convert, hashing, manifest, needed
from ban_jax.storage import atomic


def write_safetensors(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    spec: candidate.ModelSpec,
    metadata: Mapping[str, Any] | None = None,
    names: candidate.Names | None = None,
) -> None:
    """Writes one model under PyTorch names, so that other programs can load it too.

    Args:
      path: the file; it appears complete or not at all.
      variables: `params`, `batch_stats`, and `normalisation` if it is known.
      spec: the network, recorded in the file.
      metadata: anything JSON can hold, such as `clean_accuracy`; recorded in the file.
      names: of the file the model came from; None gives the common names.
    """
    state = convert.to_torch_names(variables, names)
    remarks = {manifest.OURS: json.dumps(_remarks(variables, spec, metadata))}
    with atomic.replacing(path) as temporary:
        safetensors_numpy.save_file(state, temporary, metadata=remarks)


def write_orbax(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    spec: candidate.ModelSpec,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes one model as an Orbax folder, under our own names.

    Args:
      path: the folder; it must not exist.
      variables: as in `write_safetensors`.
      spec: of the architecture, as for `write_safetensors`.
      metadata: as for `write_safetensors`.
    """
    flat = {
        name: np.asarray(value) for name, value in hashing.flatten(variables).items()
    }
    needed.orbax().save(
        os.path.abspath(os.fspath(path)),
        hashing.unflatten(flat),
        custom_metadata={
            manifest.OURS: json.dumps(_remarks(variables, spec, metadata))
        },
    )


def _remarks(
    variables: Mapping[str, Any],
    spec: candidate.ModelSpec,
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    remarks = {"spec": dataclasses.asdict(spec), **(metadata or {})}
    if "normalisation" in variables and "normalisation" not in remarks:
        remarks["normalisation"] = {
            name: [float(x) for x in np.asarray(value).reshape(-1)]
            for name, value in variables["normalisation"].items()
        }
    return remarks
