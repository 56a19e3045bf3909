"""Class profiles: what the vectors of clean models of one data set look like.

A profile is a small JSON file made from clean models (`ban-jax profile`). It belongs to a
data set with its classes in order, to an image size and to a detector's settings, and is
refused wherever one of them differs. Profiles that ship with the package are found by the
name of their data set.
"""

import importlib.resources
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NotRequired, cast

import numpy as np

# pydantic wants these of typing_extensions where Python is older than 3.12.
from typing_extensions import TypedDict

from ban_jax import detectors
from ban_jax.baselines import crowd, usable
from ban_jax.detectors import rules
from ban_jax.records import Evidence, fields
from ban_jax.records.record import Data
from ban_jax.storage import atomic, json_file

FORMAT = 2
MINIMUM = 4
"""Models that a profile needs: fewer have no median worth the name."""
SHIPPED = "shipped"
"""Folder of this package that holds the profiles it ships."""


class ProfileError(ValueError):
    """A profile that cannot be read, made, or used here; says why."""


class Curve(TypedDict):
    """One vector of clean models.

    Attributes:
      centre: median per class.
      spread: robust spread around it, of all classes together.
      class_spreads: how widely readings scatter at each class, see
        `readings.class_spreads`.
    """

    centre: list[float | None]
    spread: float
    class_spreads: list[float]


class Member(TypedDict):
    """A model of the profile: what it is, and its score against the others."""

    sha256: str
    architecture: str
    width: int | None
    clean_accuracy: float | None
    score: float


class Profile(TypedDict):
    """What a profile file holds.

    Attributes:
      format: version of these fields.
      name: of the profile.
      mode: the detector.
      settings: its settings.
      data: the clean images.
      num_classes: K.
      vectors: name -> the curve of clean models.
      models: those it was made from.
      clean_scores: scores of clean models that it was not made from, where such were
        measured; p-values come from these and from `models`.
      made: command, versions, and whatever else tells where it comes from.
    """

    format: int
    name: str
    mode: str
    settings: dict[str, Any]
    data: Data | None
    num_classes: int
    vectors: dict[str, Curve]
    models: list[Member]
    clean_scores: NotRequired[list[float]]
    made: dict[str, Any]


def make(
    name: str,
    records: Sequence[Evidence],
    made: Mapping[str, Any],
    families: Mapping[str, Hashable] | None = None,
) -> Profile:
    """A profile of clean models; their order does not matter.

    Args:
      name: of the profile.
      records: their evidence, measured alike; copies of the same weights count once.
      made: provenance.
      families: SHA-256 of the weights -> what they are a version of, see
        `crowd.compared`.

    Raises:
      ProfileError: for too few models, for models measured in several ways, and for one
        whose evidence says nothing, or not what the rule needs.
    """
    distinct = {str(record["sha256"]): record for record in records}
    members = [distinct[sha256] for sha256 in sorted(distinct)]
    ways = {(r["mode"], r["config_hash"], r["num_classes"]) for r in members}
    if len(members) < MINIMUM or len(ways) > 1:
        raise ProfileError(
            f"a profile needs at least {MINIMUM} different clean models with one number "
            f"of classes, measured alike; got {len(members)} models in {len(ways)} kinds"
        )
    for one in members:
        if reason := usable.why_unmeasured(one):
            raise ProfileError(f"{one['path']}: {reason}")
    first = members[0]
    models = [crowd.numbers(one["vectors"]) for one in members]
    errors = [crowd.numbers(one["errors"]) for one in members]
    rule = detectors.DETECTORS[first["mode"]].rule
    own = [families[str(r["sha256"])] for r in members] if families else None
    baseline, scores = crowd.compared("profile", rule, models, errors, own)
    for one, score in zip(members, scores, strict=True):
        if not np.isfinite(score):
            raise ProfileError(
                f"{one['path']}: its evidence says nothing: a class vector is not "
                "finite, or no class differs from the others by more than chance"
            )
    return {
        "format": FORMAT,
        "name": name,
        "mode": first["mode"],
        "settings": _plain(first["config"]),
        "data": first["data"],
        "num_classes": int(first["num_classes"] or 0),
        "vectors": {
            vector: {
                "centre": [_rounded(x) for x in baseline.centre[vector]],
                "spread": float(f"{baseline.scale[vector]:.6g}"),
                "class_spreads": [
                    round(float(x), 4)
                    for x in baseline.spreads.get(
                        vector, np.ones(len(baseline.centre[vector]))
                    )
                ],
            }
            for vector in baseline.centre
        },
        "models": [
            {
                "sha256": str(one["sha256"]),
                "architecture": str(one["architecture"]),
                "width": one["width"],
                "clean_accuracy": one["clean_accuracy"],
                "score": round(score, 4),
            }
            for one, score in zip(members, scores, strict=True)
        ],
        "made": dict(made),
    }


def baseline(profile: Profile) -> rules.Baseline:
    """What candidates are compared with."""
    null = [one["score"] for one in profile["models"]]
    return rules.Baseline(
        "profile",
        {
            name: np.array(curve["centre"], float)
            for name, curve in profile["vectors"].items()
        },
        {name: curve["spread"] for name, curve in profile["vectors"].items()},
        count=len(profile["models"]),
        null=(*null, *profile.get("clean_scores", ())),
        name=f"profile {profile['name']}, {len(profile['models'])} clean models",
        spreads={
            name: np.array(curve["class_spreads"], float)
            for name, curve in profile["vectors"].items()
        },
    )


def why_unfit(profile: Profile, record: Evidence) -> str:
    """Why a profile cannot judge a record, or an empty string."""
    found: dict[str, tuple[Any, Any]] = {
        "detector": (profile["mode"], record["mode"]),
        "number of classes": (profile["num_classes"], record["num_classes"]),
    }
    if profile["mode"] == record["mode"]:
        found["detector's settings"] = (
            _deciding(profile["mode"], profile["settings"]),
            _deciding(record["mode"], _plain(record["config"])),
        )
    ours, theirs = profile["data"], record["data"]
    if ours and theirs:
        found["image size"] = (ours["image_shape"], list(theirs["image_shape"]))
        as_given = "that of the flags"
        found["preparation of images"] = (
            ours.get("preparation", as_given),
            theirs.get("preparation", as_given),
        )
        if ours["classes"] and theirs["classes"]:
            found["classes in order"] = (ours["classes"], theirs["classes"])
        elif ours["name"] != theirs["name"]:
            found["data set"] = (ours["name"], theirs["name"])
    for what, (expected, got) in found.items():
        if expected != got:
            return (
                f"the profile {profile['name']} does not fit: its {what} is "
                f"{_brief(expected)}, the candidate was measured with {_brief(got)}"
            )
    return ""


def clean_scores(profile: Profile, records: Sequence[Evidence]) -> list[float]:
    """Scores, against a profile, of clean models that are not among its own.

    Those that are not fit to be judged, or of which nothing is said, have none.

    Raises:
      ProfileError: when the profile does not fit one of them.
    """
    own = {one["sha256"] for one in profile["models"]}
    against = baseline(profile)
    rule = detectors.DETECTORS[profile["mode"]].rule
    found = []
    for record in records:
        if record["sha256"] in own or not record["vectors"]:
            continue
        if usable.why_no_yardstick(record):
            continue
        if reason := why_unfit(profile, record):
            raise ProfileError(f"{record['path']}: {reason}")
        vectors, errors = (
            crowd.numbers(record["vectors"]),
            crowd.numbers(record["errors"]),
        )
        found.append(float(np.max(rule.scores(vectors, errors, against).values)))
    return sorted(round(score, 4) for score in found if np.isfinite(score))


def load(name_or_path: str) -> Profile:
    """A profile file, or one that ships with the package.

    Raises:
      ProfileError: for what is neither.
    """
    if name_or_path in shipped():
        folder = importlib.resources.files(__package__) / SHIPPED
        text = (folder / f"{name_or_path}.json").read_text(encoding="utf-8")
    elif os.path.isfile(name_or_path):
        with open(name_or_path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    else:
        raise ProfileError(
            f"--profile {name_or_path}: neither a file nor one of those that ship with "
            f"the package ({', '.join(shipped())})"
        )
    try:
        found = json_file.loads(text)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"expected an object with format {FORMAT}")
        fields.check(found, Profile, "profile")
        _check_together(cast(Profile, found))
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{name_or_path}: not a profile: {error}") from None
    if name_or_path not in shipped() and found["name"] in shipped():
        # Made of models of the user's own: nothing may read as if it were the shipped one.
        found["name"] = os.path.basename(name_or_path)
    return cast(Profile, found)


def shipped() -> tuple[str, ...]:
    """Names of the profiles that ship with the package."""
    folder = importlib.resources.files(__package__) / SHIPPED
    if not folder.is_dir():
        return ()
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(n.removesuffix(".json") for n in names if n.endswith(".json")))


def write(path: str, profile: Profile) -> None:
    """Writes a profile file whole or not at all."""
    text = json.dumps(profile, indent=1, allow_nan=False)
    atomic.write(path, f"{text}\n".encode())


def _check_together(profile: Profile) -> None:
    if profile["mode"] in detectors.DETECTORS:
        needed = detectors.DETECTORS[profile["mode"]].rule.needed
        if missing := sorted(set(needed) - set(profile["vectors"])):
            raise ValueError(f"it lacks the vectors {', '.join(missing)}")
    for name, curve in profile["vectors"].items():
        if len(curve["centre"]) != profile["num_classes"]:
            raise ValueError(
                f"vectors.{name} has {len(curve['centre'])} numbers for "
                f"{profile['num_classes']} classes"
            )
        spreads = curve["class_spreads"]
        if len(spreads) != profile["num_classes"] or min(spreads, default=0) <= 0:
            raise ValueError(
                f"vectors.{name}.class_spreads must be {profile['num_classes']} numbers "
                "above 0"
            )
    if len(profile["models"]) < MINIMUM:
        raise ValueError(f"it tells of {len(profile['models'])} models")


def _deciding(mode: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that no curve depends on."""
    apart = detectors.DETECTORS[mode].apart if mode in detectors.DETECTORS else ()
    return {name: value for name, value in settings.items() if name not in apart}


def _plain(config: Mapping[str, Any]) -> Any:
    """Settings as JSON has them: lists, no tuples."""
    return json.loads(json.dumps(config))


def _rounded(number: float) -> float | None:
    """Six digits; None, as JSON has it, for a class that too few were asked about."""
    return float(f"{number:.6g}") if np.isfinite(number) else None


def _brief(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
