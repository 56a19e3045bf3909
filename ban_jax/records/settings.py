"""The lines of a results file: what is told of a candidate, and what it depends on."""

import dataclasses
import functools
import hashlib
import json
from typing import Any

import ban_jax
from ban_jax import checkpoints, convolution, models
from ban_jax.config import BanConfig, DetectorConfig, Mode
from ban_jax.data import probe as probes
from ban_jax.detectors import evidence
from ban_jax.records.jsonl import Record, finite
from ban_jax.storage.versions import versions
from ban_jax.types import Network, Precision, Probe


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a candidate's evidence depends on besides its own weights.

    Attributes:
      mode: name of the detector.
      config: the detector's numbers.
      seed: folded with each candidate's weights hash into its key.
      dataset: name of the clean data; chooses the pixel constants to try.
      class_names: of the data set, where it names them.
      normalisation: `(mean, std)` for every candidate, or None: the checkpoint's own,
        else the best of the known constants.
      architecture: overrides recognition.
      chunk: candidates each device computes at once; None: planned from its memory.
      lowering: of convolutions, see `ban_jax.convolution`.
      precision: of convolutions, see `types.Precision`.
    """

    mode: Mode = "targeted"
    config: DetectorConfig = BanConfig()
    seed: int = 0
    dataset: str = ""
    class_names: tuple[str, ...] | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    architecture: str | None = None
    chunk: int | None = None
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    def digest(self, probe: Probe | None) -> str:
        """Hash of all that decides the numbers: not the chunk, not the class names."""
        told = {
            "mode": self.mode,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "normalisation": self.normalisation,
            "dataset": self.dataset if self.normalisation is None else None,
            "architecture": self.architecture,
            "lowering": self.told_lowering()["hash"],
            "precision": self.precision,
            "probe": probes.digest(probe) if probe is not None else None,
            "version": ban_jax.__version__,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[
            :16
        ]

    def network(self, spec: checkpoints.ModelSpec) -> Network:
        """An architecture as this scan computes it."""
        return models.network(
            spec.create(lowering=self.lowering, precision=self.precision)
        )

    def told_lowering(self) -> dict[str, str]:
        """Table and hash of the choice; one lowering for all layers is its own table."""
        if isinstance(self.lowering, convolution.Choice):
            return self.lowering.told()
        return convolution.Choice(self.lowering, table=self.lowering).told()


def key_of(candidate: checkpoints.Candidate, digest: str) -> str:
    """What a candidate's evidence is filed under: weights, settings, its own constants."""
    constants = hashlib.sha256(json.dumps(candidate.normalisation).encode())
    return f"{candidate.sha256}-{digest}-{constants.hexdigest()[:8]}"


def identity(
    candidate: checkpoints.Candidate, settings: Settings, digest: str
) -> Record:
    """A record of a candidate that was read, before anything is measured."""
    return {
        **blank(candidate.path, settings, digest),
        "sha256": candidate.sha256,
        "key": key_of(candidate, digest),
        "architecture": candidate.spec.architecture,
        "width": candidate.spec.width,
        "num_classes": candidate.spec.num_classes,
        "recorded_accuracy": candidate.recorded_accuracy,
        "notes": list(candidate.notes),
    }


def blank(path: str, settings: Settings, digest: str) -> Record:
    """A record of which only the path and the settings are known."""
    return {
        "path": path,
        "sha256": None,
        "key": None,
        "architecture": None,
        "width": None,
        "num_classes": None,
        "normalisation": None,
        "clean_accuracy": None,
        "recorded_accuracy": None,
        "histogram": None,
        "histogram_without_noise": None,
        "vectors": {},
        "errors": {},
        "curves": {},
        "mode": settings.mode,
        "epsilon": settings.config.epsilon,
        "seed": settings.seed,
        "config": _told(settings.config),
        "config_hash": digest,
        "lowering": settings.told_lowering(),
        "precision": settings.precision,
        "versions": versions(),
        "seconds": 0.0,
        "forward_equivalents": 0,
        "error": None,
        "notes": [],
    }


def failure(
    path: str,
    reason: str,
    settings: Settings,
    digest: str,
    candidate: checkpoints.Candidate | None = None,
) -> Record:
    """The record of a file that could not be judged, and why; never used again."""
    known = identity(candidate, settings, digest) if candidate else {}
    return {**blank(path, settings, digest), **known, "key": None, "error": reason}


def plain(one: evidence.Evidence) -> Record:
    """Evidence as JSON-ready lists; vectors of a mode without images stay out."""
    record = finite(one._asdict())
    for name in ("histogram", "histogram_without_noise"):
        if None in record[name]:
            record[name] = None
    return record


@functools.cache
def _told(config: DetectorConfig) -> dict[str, Any]:
    """One dictionary for all records of a scan."""
    return dataclasses.asdict(config)
