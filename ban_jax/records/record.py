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
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, cast

# pydantic wants these of typing_extensions where Python is older than 3.12.
from typing_extensions import TypedDict

from ban_jax.records import fields

SCHEMA_VERSION = 4
"""Version 1, written up to 0.2, had no number, and what is now in `info` at the top;
version 2, written by 0.3, did not tell the clean images, nor a verdict's witnesses;
version 3, written by 0.4, told no calls, nothing of files that are no classifiers, judged
one classifier per file, and had no seal."""


class Normalisation(TypedDict):
    """Pixel constants: `mean` and `std` per channel, and where they come from."""

    mean: list[float]
    std: list[float]
    source: str


class Data(TypedDict):
    """The clean images: what they are called, their classes in order, and their size.

    `classes` is null where they have no names. `preparation` says how they were made as the
    model's own config says, where that was done.
    """

    name: str
    classes: list[str] | None
    image_shape: list[int]
    preparation: NotRequired[str]


class Evidence(TypedDict):
    """What was measured of one checkpoint. Numbers that are not finite are null.

    Attributes:
      schema_version: of these fields.
      path: of the file or Orbax folder, as it was given.
      sha256: of the weights, whatever the file's format; null where it was not read.
      key: what the evidence depends on: weights, settings, pixel constants; null where it
        cannot be used again.
      architecture: of the network.
      width: channels of its first convolution.
      num_classes: K.
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
      images: name -> one PNG in base64 per class, such as recovered triggers; empty for
        classes whose picture is not kept (`records.recovered`).
      num_probe: clean images used.
      data: what they are; null where none were needed.
      forward_equivalents: the work, in forward passes of one image.
      seconds: of computing, per candidate of its chunk.
      calls: what the file asks to have called when it is loaded by pickle, apart from
        what every checkpoint asks for; nothing of it was called here.
      other: what the file holds, where that is recognisably no classifier.
      error: why it could not be measured.
      notes: what a reader should know.
      part_of: the file, where that holds several classifiers and this line is of one of
        them (`path` is then `file.pt#name`); null where the path is the file's own.
      parts: paths of the classifiers of a file that holds several, whose worst verdict
        this line repeats (see `records.parts`); empty for every line of evidence.
      seal: of the user whose scan measured it, see `records.seal`; null where nothing was.
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
    data: Data | None
    forward_equivalents: int
    seconds: float
    calls: list[str]
    other: str | None
    error: str | None
    notes: list[str]
    part_of: str | None
    parts: list[str]
    seal: str | None


Grade = Literal["backdoored", "suspicious", "clean", "inconclusive"]


class Verdict(TypedDict):
    """What was made of the evidence.

    Attributes:
      verdict: `inconclusive` is never `clean`: no judgement was possible.
      reason: in one sentence.
      score: of the most unusual class.
      standard_error: of the score, from the images it averages.
      interval: of 95 % around the score.
      threshold: the score above which a checkpoint is called backdoored.
      threshold_source: `default`, `calibrated` by trusted models, or a `flag`.
      suspicious_above: the score above which it is called suspicious; null where the
        rule has no such grade.
      baseline: what the classes were compared with.
      compared_with: the very models that this is, in a few words.
      p_value: share of clean models with such a score, from those of the baseline; never
        below 1 / (`p_models` + 1).
      p_models: how many clean scores it comes from.
      q_value: expected share of false ones among the candidates of this scan with such a
        p-value or a smaller one (Benjamini and Hochberg); null for a line alone.
      target: the most unusual class; of a backdoored checkpoint the suspected target.
      z: the score of every class, where scores are distances from a baseline.
      witnesses: name of a vector -> what it alone says of every class; null where it was
        not measured.
      void: name of a vector -> why it was left out.
    """

    verdict: Grade
    reason: str
    score: float | None
    standard_error: float | None
    interval: list[float] | None
    threshold: float
    threshold_source: str
    suspicious_above: float | None
    baseline: str
    compared_with: str
    p_value: float | None
    p_models: int
    q_value: float | None
    target: int | None
    z: list[float] | None
    witnesses: dict[str, list[float | None]]
    void: dict[str, str]


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
    "data": None,
    "forward_equivalents": 0,
    "seconds": 0.0,
    "calls": [],
    "other": None,
    "error": None,
    "notes": [],
    "part_of": None,
    "parts": [],
    "seal": None,
}
"""A file of which nothing is known."""
_UNDRAWN: Mapping[str, Any] = {
    "interval": None,
    "suspicious_above": None,
    "compared_with": "",
    "p_value": None,
    "p_models": 0,
    "q_value": None,
    "witnesses": {},
    "void": {},
}
"""What verdicts up to version 2 did not have."""


def empty(path: str, **known: Any) -> dict[str, Any]:
    """The fields of a line of which only the path and what is given are known."""
    blank = copy.deepcopy(dict(_EMPTY))  # lines share no list that one may change
    return {"schema_version": SCHEMA_VERSION, "path": path, **blank, **known}


def class_names(lines: Iterable[Evidence]) -> tuple[str, ...] | None:
    """Names of the classes in order, where the lines have them and agree."""
    told = [line["data"]["classes"] for line in lines if line["data"]]
    names = {tuple(one) for one in told if one}
    return names.pop() if len(names) == 1 else None


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
    if version < 3:
        found = _from_second(found)
    if version < SCHEMA_VERSION:
        found = _from_third(found)
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
    return {**copy.deepcopy(dict(_EMPTY)), **rest, "info": info}


def _from_second(line: Mapping[str, Any]) -> dict[str, Any]:
    """Version 2: images that are not told of, and a verdict without witnesses."""
    drawn = copy.deepcopy(dict(_UNDRAWN)) if "verdict" in line else {}
    return {"data": None, **drawn, **line}


def _from_third(line: Mapping[str, Any]) -> dict[str, Any]:
    """Version 3: calls that were not told of, and no seal."""
    return {
        "calls": [],
        "other": None,
        "part_of": None,
        "parts": [],
        "seal": None,
        **line,
        "schema_version": SCHEMA_VERSION,
    }


def json_schema() -> dict[str, Any]:
    """JSON Schema of a judged line; other programs may add fields."""
    return fields.reader(Record).json_schema()


def schema_text() -> str:
    """What `schema.json` holds."""
    return json.dumps(json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
