"""The line of a results file, typed once: what was measured, and what was made of it.

Two parts, `Evidence` and `Verdict`, lie side by side in one flat JSON object, so that a
line is a row for `jq`, pandas and spreadsheets. A scan measures evidence; a verdict is
drawn from it, and may be drawn again, by `ban_jax.verdict`. `schema.json` beside this file
is generated from these types (`python -m ban_jax.records.record`) and published with the
package.
"""

import copy
import json
import sys
from collections.abc import Mapping
from typing import Any, Literal, cast

# pydantic wants these of typing_extensions where Python is older than 3.12.
from typing_extensions import TypedDict

from ban_jax.records import fields

SCHEMA_VERSION = 2
"""Version 1, written up to 0.2, had no number, and what is now in `info` at the top."""


class Normalisation(TypedDict):
    """Pixel constants: `mean` and `std` per channel, and where they come from."""

    mean: list[float]
    std: list[float]
    source: str


class Evidence(TypedDict):
    """What was measured of one checkpoint. Numbers that are not finite are null.

    Attributes:
      schema_version: of these fields.
      path: of the file or Orbax folder, as it was given.
      sha256: of the weights, whatever the file's format; null where it was not read.
      key: what the evidence depends on: weights, settings, pixel constants; null where it
        cannot be used again.
      architecture, width, num_classes: of the network.
      normalisation: the pixel constants it was measured with.
      recorded_accuracy: clean accuracy in [0, 1] that the file claims.
      mode: name of the detector.
      config: its settings.
      config_hash: of settings, clean images and versions.
      seed: of the noise.
      lowering: table and hash of the convolutions' lowerings.
      precision: of the convolutions.
      versions: of the packages, and the device.
      vectors: name -> one number per class, larger where it looks more like a target.
      errors: name -> the standard error of each.
      clean_accuracy: on the clean images.
      is_finite: false where a weight, logit or loss was not.
      info: what the detector alone has to tell.
      images: name -> one PNG in base64 per class, such as recovered triggers.
      num_probe: clean images used.
      forward_equivalents: the work, in forward passes of one image.
      seconds: of computing, per candidate of its chunk.
      error: why it could not be measured.
      notes: what a reader should know.
    """

    schema_version: int
    path: str
    sha256: str | None
    key: str | None
    architecture: str | None
    width: int | None
    num_classes: int | None
    normalisation: Normalisation | None
    recorded_accuracy: float | None
    mode: str
    config: dict[str, Any]
    config_hash: str
    seed: int
    lowering: dict[str, str]
    precision: str
    versions: dict[str, str]
    vectors: dict[str, list[float | None]]
    errors: dict[str, list[float | None]]
    clean_accuracy: float | None
    is_finite: bool
    info: dict[str, Any]
    images: dict[str, list[str]]
    num_probe: int
    forward_equivalents: int
    seconds: float
    error: str | None
    notes: list[str]


class Verdict(TypedDict):
    """What was made of the evidence.

    Attributes:
      verdict: `inconclusive` is never `clean`: no judgement was possible.
      reason: in one sentence.
      score: of the most unusual class.
      standard_error: of the score, from the images it averages.
      threshold: the score above which a checkpoint is called backdoored.
      threshold_source: `default`, `calibrated` by trusted models, or a `flag`.
      baseline: what the classes were compared with.
      target: the most unusual class; of a backdoored checkpoint the suspected target.
      z: the score of every class, where scores are distances from a baseline.
    """

    verdict: Literal["backdoored", "clean", "inconclusive"]
    reason: str
    score: float | None
    standard_error: float | None
    threshold: float
    threshold_source: str
    baseline: str
    target: int | None
    z: list[float] | None


class Record(Evidence, Verdict):
    """A judged line. Lines of a scan that was stopped may lack the verdict."""


_EMPTY: Mapping[str, Any] = {
    "sha256": None,
    "key": None,
    "architecture": None,
    "width": None,
    "num_classes": None,
    "normalisation": None,
    "recorded_accuracy": None,
    "vectors": {},
    "errors": {},
    "clean_accuracy": None,
    "is_finite": True,
    "info": {},
    "images": {},
    "num_probe": 0,
    "forward_equivalents": 0,
    "seconds": 0.0,
    "error": None,
    "notes": [],
}
"""A file of which nothing is known."""


def empty(path: str, **known: Any) -> dict[str, Any]:
    """The fields of a line of which only the path and what is given are known."""
    blank = copy.deepcopy(dict(_EMPTY))  # lines share no list that one may change
    return {"schema_version": SCHEMA_VERSION, "path": path, **blank, **known}


def evidence_of(line: Mapping[str, Any]) -> Evidence:
    """A line without its verdict, if it has one."""
    drawn = Verdict.__annotations__
    found = {name: value for name, value in line.items() if name not in drawn}
    return cast(Evidence, found)


def parse(line: Mapping[str, Any]) -> Evidence:
    """Checks a line that was read, and brings an older one to today's form.

    Raises:
      ValueError: for what is not such a line; one sentence that names the field.
    """
    version = line.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"schema_version {version!r} is not known: this version of ban_jax reads up "
            f"to {SCHEMA_VERSION}, a newer one wrote it"
        )
    found = _from_first(line) if version == 1 else dict(line)
    for part in (Evidence, Verdict) if "verdict" in found else (Evidence,):
        fields.check(found, part, "scan")
    line = cast(Evidence, found)
    _check_together(line)
    return line


def _check_together(line: Evidence) -> None:
    """Fields that must fit each other; a damaged line is not judged.

    Raises:
      ValueError: in one sentence.
    """
    for part in ("vectors", "errors"):
        for name, values in line[part].items():
            if len(values) != line["num_classes"]:
                raise ValueError(
                    f"{part}.{name} has {len(values)} numbers for {line['num_classes']} "
                    "classes"
                )
    if missing := sorted(set(line["vectors"]) - set(line["errors"])):
        raise ValueError(f"no errors for the vectors {', '.join(missing)}")
    accuracy = line["clean_accuracy"]
    if accuracy is not None and (not 0 <= accuracy <= 1 or line["num_probe"] < 1):
        raise ValueError(
            f"a clean accuracy of {accuracy} on {line['num_probe']} images is none"
        )


def _from_first(line: Mapping[str, Any]) -> dict[str, Any]:
    """Version 1: curves and histograms at the top, a copy of the noise radius."""
    moved = ("curves", "histogram", "histogram_without_noise")
    info = {name: line[name] for name in moved if line.get(name)}
    rest = {n: v for n, v in line.items() if n not in (*moved, "epsilon")}
    return {**_EMPTY, **rest, "info": info, "schema_version": SCHEMA_VERSION}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a judged line; other programs may add fields."""
    return fields.reader(Record).json_schema()


def schema_text() -> str:
    """What `schema.json` holds."""
    return json.dumps(json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
