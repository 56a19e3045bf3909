"""One scan's settings with its clean images, and the lines of evidence it gives."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ban_jax import checkpoints
from ban_jax.detectors import evidence
from ban_jax.records import record, recovered
from ban_jax.records.jsonl import finite
from ban_jax.records.record import Data, Evidence, Normalisation
from ban_jax.records.settings import Settings
from ban_jax.storage import versions
from ban_jax.types import Probe

Lines = Sequence[Evidence]
FAILED = "looking closer failed: "
"""How the note begins that a line lacks what it was asked for."""


class Asked(NamedTuple):
    """What is asked of one candidate that was measured before.

    Attributes:
      classes: `[J]` that are searched towards.
      normalisation: the pixel constants it was measured with.
    """

    classes: tuple[int, ...]
    normalisation: Normalisation | None


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What is measured on which images; built once, so that images are hashed once.

    Attributes:
      settings: what to measure, and how.
      probe: clean images `[T, B, H, W, C]`; None for a mode that needs none.
      asked: by path; of others everything is asked.
      preparation: of the images, where it is not that of the flags but of the models' own
        configs, in words.
    """

    settings: Settings
    probe: Probe | None
    asked: Mapping[str, Asked] = dataclasses.field(default_factory=dict)
    preparation: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """Hash of settings and images."""
        return self.settings.digest(self.probe)

    def closer(
        self,
        lines: Mapping[str, tuple[int, ...]],
        found: Lines,
        vectors: tuple[str, ...],
    ) -> "Job":
        """The job that measures what the lines of this one lack.

        Args:
          lines: path -> the classes that are asked about.
          found: the lines.
          vectors: that are measured.

        Raises:
          ValueError: when no other detector looks closer.
        """
        settings = self.settings.closer
        if settings is None:
            raise ValueError(f"there is no closer look than {self.settings.mode}")
        asked = {
            line["path"]: Asked(lines[line["path"]], line["normalisation"])
            for line in found
            if line["path"] in lines
        }
        settings = dataclasses.replace(settings, vectors=vectors)
        return dataclasses.replace(self, settings=settings, asked=asked)

    def key_of(self, candidate: checkpoints.Candidate) -> str:
        """What evidence is filed under: weights, settings, the file's pixel constants."""
        return key_of(candidate, self.digest)

    def failure(
        self,
        path: str,
        reason: str,
        candidate: checkpoints.Candidate | None = None,
        error: checkpoints.CheckpointError | None = None,
        **identity: Any,
    ) -> Evidence:
        """The line of what could not be measured, and why; never used again.

        Args:
          path: what it is called.
          reason: in one sentence.
          candidate: the file, where it was read.
          error: of reading it, where it was not.
          identity: of a model that is no file, fields that tell what it is.
        """
        known = self._identity(candidate) if candidate else identity
        if error is not None:
            known = {**known, "calls": list(error.calls), "other": error.other}
        return self._line(path, **{**known, "key": None, "error": reason})

    def measured(
        self,
        candidate: checkpoints.Candidate,
        found: evidence.Evidence,
        normalisation: Normalisation | None,
        more_work: int = 0,
    ) -> Evidence:
        """The line of a candidate; see `line`."""
        identity = self._identity(candidate)
        return self.line(candidate.path, found, normalisation, more_work, **identity)

    def line(
        self,
        path: str,
        found: evidence.Evidence,
        normalisation: Normalisation | None,
        more_work: int = 0,
        **identity: Any,
    ) -> Evidence:
        """The line of whatever was measured.

        Args:
          path: what it is called.
          found: its evidence, NumPy leaves.
          normalisation: the pixel constants it was measured with.
          more_work: image forward-equivalents besides the detector's own.
          identity: fields that tell what it is, `num_classes` among them.
        """
        settings = self.settings
        count = 0 if self.probe is None else self.probe.labels.size
        asked = self.asked.get(path)
        classes = len(asked.classes) if asked else identity["num_classes"]
        work = settings.work(classes, count)
        if found.work is not None:  # it may have ended early
            work = int(found.work)
        return self._line(
            path,
            **identity,
            **_told(found),
            normalisation=normalisation,
            num_probe=count,
            data=self._data,
            forward_equivalents=work + more_work,
        )

    def _identity(self, candidate: checkpoints.Candidate) -> dict[str, Any]:
        return {
            "sha256": candidate.sha256,
            "key": self.key_of(candidate),
            "architecture": candidate.spec.architecture,
            "width": candidate.spec.width,
            "num_classes": candidate.spec.num_classes,
            **of_the_file(candidate),
        }

    def _line(self, path: str, **known: Any) -> Evidence:
        return cast(Evidence, record.empty(path, **{**self._shared, **known}))

    @functools.cached_property
    def _data(self) -> Data | None:
        """What the clean images are."""
        if self.probe is None:
            return None
        names = self.settings.class_names
        told: Data = {
            "name": self.settings.dataset,
            "classes": list(names) if names else None,
            "image_shape": list(self.probe.images.shape[2:]),
        }
        return {**told, "preparation": self.preparation} if self.preparation else told

    @functools.cached_property
    def _shared(self) -> dict[str, Any]:
        """What all lines have in common: the same objects, not copies."""
        settings = self.settings
        return {
            "mode": settings.mode,
            "config": settings.told_config(),
            "config_hash": self.digest,
            "seed": settings.seed,
            "lowering": settings.lowering_identity(),
            "precision": settings.precision,
            "versions": versions.versions(),
        }


def key_of(candidate: checkpoints.Candidate, digest: str) -> str:
    """What a result is filed under: the weights, a digest, the file's pixel constants."""
    constants = hashlib.sha256(json.dumps(candidate.normalisation).encode())
    return f"{candidate.sha256}-{digest}-{constants.hexdigest()[:8]}"


def of_the_file(candidate: checkpoints.Candidate) -> dict[str, Any]:
    """What belongs to a file, and not to all that hold the same weights."""
    return {
        "recorded_accuracy": candidate.recorded_accuracy,
        "notes": list(candidate.notes),
        "calls": list(candidate.calls),
    }


def merged(line: Evidence, more: Evidence) -> Evidence:
    """A line with what a closer look found besides.

    Where that failed, or found other weights, the line stays what it was, and says so.
    """
    # What an earlier look said of itself, before the scan was started again.
    notes = [note for note in line["notes"] if not note.startswith(FAILED)]
    reason = more["error"]
    if not reason and more["sha256"] != line["sha256"]:
        reason = "the file holds other weights than before"
    if reason:
        return {**line, "notes": [*notes, f"{FAILED}{reason}"]}
    return {
        **line,
        "notes": notes,
        "vectors": {**line["vectors"], **more["vectors"]},
        "errors": {**line["errors"], **more["errors"]},
        "is_finite": line["is_finite"] and more["is_finite"],
        "forward_equivalents": line["forward_equivalents"]
        + more["forward_equivalents"],
        "seconds": line["seconds"] + more["seconds"],
    }


def has_failed(line: Evidence) -> bool:
    """Whether a closer look at a line failed."""
    return any(note.startswith(FAILED) for note in line["notes"])


def _told(found: evidence.Evidence) -> dict[str, Any]:
    """The fields of a line that are the evidence's own."""
    told = found._asdict()
    del told["work"]
    told |= {"images": {}, "info": recovered.info(found.info)}
    return finite(told) | {"images": recovered.pngs(found)}
