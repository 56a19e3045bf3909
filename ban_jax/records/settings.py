"""What decides the evidence of a candidate besides its own weights."""

import dataclasses
import functools
import hashlib
import json
from typing import Any

import ban_jax
from ban_jax import checkpoints, convolution, detectors, models
from ban_jax.data import probe as probes
from ban_jax.detectors import ban
from ban_jax.types import Network, Precision, Probe


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
      mode: name of the detector.
      config: the detector's numbers, of its own settings class.
      further: settings of the detector that looks closer where this one leaves doubt;
        None: the documented ones.
      vectors: of a detector that is told them, those that are measured; None: all.
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

    mode: str = "ban"
    config: Any = ban.Settings()
    further: Any = None
    vectors: tuple[str, ...] | None = None
    seed: int = 0
    dataset: str = ""
    class_names: tuple[str, ...] | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    architecture: str | None = None
    chunk: int | None = None
    lowering: convolution.Lowering = "native"
    precision: Precision = "float32"

    @property
    def detector(self) -> detectors.Detector:
        """The detector of the mode."""
        return detectors.DETECTORS[self.mode]

    @property
    def detect(self) -> detectors.Detect:
        """The detector's measurement, of the vectors that are wanted."""
        return _detect(self.detector.detect, self.vectors)

    def work(self, classes: int, images: int) -> int:
        """Image forward-equivalents of a candidate, see `Detector.work`."""
        told = {} if self.vectors is None else {"vectors": self.vectors}
        return self.detector.work(self.config, classes, images, **told)

    @property
    def closer(self) -> "Settings | None":
        """Of the detector that looks closer, if there is one."""
        name = self.detector.further
        if name is None:
            return None
        config = self.further or detectors.DETECTORS[name].settings()
        return dataclasses.replace(self, mode=name, config=config, further=None)

    def told_config(self) -> dict[str, Any]:
        """All numbers that decide, with those of the detector that looks closer."""
        told = dataclasses.asdict(self.config)
        if closer := self.closer:
            told[closer.mode] = dataclasses.asdict(closer.config)
        return told

    def digest(self, probe: Probe | None) -> str:
        """Hash of all that decides the numbers: not the chunk, not the class names."""
        decisive = {
            "mode": self.mode,
            "config": self.told_config(),
            "seed": self.seed,
            "normalisation": self.normalisation,
            "dataset": self.dataset if self.normalisation is None else None,
            "architecture": self.architecture,
            "lowering": self.lowering_identity()["hash"],
            "precision": self.precision,
            "probe": probes.digest(probe) if probe is not None else None,
            "version": ban_jax.__version__,
        }
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def network(self, spec: checkpoints.ModelSpec) -> Network:
        """An architecture as this scan computes it."""
        return models.network(
            spec.create(lowering=self.lowering, precision=self.precision)
        )

    def lowering_identity(self) -> dict[str, str]:
        """Table and hash of the choice; one lowering for all layers is its own table."""
        if isinstance(self.lowering, convolution.Choice):
            return self.lowering.identity()
        return convolution.Choice(self.lowering, table=self.lowering).identity()


@functools.lru_cache(maxsize=64)
def _detect(
    detect: detectors.Detect, vectors: tuple[str, ...] | None
) -> detectors.Detect:
    """The same object for the same vectors: programs are known by it."""
    one: Any = detect
    return one if vectors is None else functools.partial(one, vectors=vectors)
