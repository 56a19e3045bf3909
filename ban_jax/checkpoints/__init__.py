"""Checkpoints of untrusted origin, read as data and nothing else."""

from ban_jax.checkpoints.candidate import Candidate, ModelSpec, Names
from ban_jax.checkpoints.classifiers import Part
from ban_jax.checkpoints.convert import to_torch_names
from ban_jax.checkpoints.discovery import Found, Passed, find, search, stem
from ban_jax.checkpoints.errors import CheckpointError
from ban_jax.checkpoints.hashing import weights_hash
from ban_jax.checkpoints.manifest import preparation
from ban_jax.checkpoints.reading import read, read_all
from ban_jax.checkpoints.state_dict import read_state_dict
from ban_jax.checkpoints.write import write_orbax, write_safetensors

__all__ = [
    "Candidate",
    "CheckpointError",
    "Found",
    "ModelSpec",
    "Names",
    "Part",
    "Passed",
    "find",
    "preparation",
    "read",
    "read_all",
    "read_state_dict",
    "search",
    "stem",
    "to_torch_names",
    "weights_hash",
    "write_orbax",
    "write_safetensors",
]
