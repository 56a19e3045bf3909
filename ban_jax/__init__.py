"""Finds backdoors in neural network checkpoints with adversarial neuron noise.

What is exposed here is imported when it is first used: importing the package touches no
device and takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ban_jax import (
        attacks,
        checkpoints,
        data,
        detectors,
        models,
        population,
        repairs,
        verdict,
        zoo,
    )
    from ban_jax.api import evidence, judge, repair, scan
    from ban_jax.mask import optimize_mask
    from ban_jax.models import register_architecture
    from ban_jax.patch import find_patches
    from ban_jax.perturb import perturb_params
    from ban_jax.records import Evidence, Record, Verdict
    from ban_jax.repairs import RepairInfo
    from ban_jax.training.api import train
    from ban_jax.training.trainer import Trained
    from ban_jax.types import Network, Probe
    from ban_jax.universal import perturb_images

__version__ = "0.4.0"

_HOMES = {
    "Evidence": "records",
    "Network": "types",
    "Probe": "types",
    "Record": "records",
    "RepairInfo": "repairs",
    "Trained": "training.trainer",
    "Verdict": "records",
    "evidence": "api",
    "find_patches": "patch",
    "judge": "api",
    "optimize_mask": "mask",
    "perturb_images": "universal",
    "perturb_params": "perturb",
    "register_architecture": "models",
    "repair": "api",
    "scan": "api",
    "train": "training.api",
}
"""Name -> the module that has it."""
_ROOMS = (
    "attacks",
    "checkpoints",
    "data",
    "detectors",
    "models",
    "population",
    "repairs",
    "verdict",
    "zoo",
)

__all__ = [
    "Evidence",
    "Network",
    "Probe",
    "Record",
    "RepairInfo",
    "Trained",
    "Verdict",
    "attacks",
    "checkpoints",
    "data",
    "detectors",
    "evidence",
    "find_patches",
    "judge",
    "models",
    "optimize_mask",
    "perturb_images",
    "perturb_params",
    "population",
    "register_architecture",
    "repair",
    "repairs",
    "scan",
    "train",
    "verdict",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ban_jax.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"ban_jax.{name}")
    raise AttributeError(f"module 'ban_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
