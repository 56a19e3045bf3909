"""What candidates are compared with, as flags say it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ban_jax import detectors, records, verdict
from ban_jax.baselines import profile, rates
from ban_jax.records import Evidence, Record

NONE = "none"
UNANSWERED = "not looked at closer"
TAKEN = "their numbers are taken as they stand"


def profiles(name: str | None) -> verdict.Profiles:
    """The `--profile` of a command; None: the package's own, where one fits.

    Raises:
      ProfileError: for what is neither a profile file, nor a shipped one, nor `none`.
    """
    if name is None:
        return "shipped"
    return None if name == NONE else profile.load(name)


def unanswered(lines: Sequence[Evidence], judge: verdict.Judge) -> list[str]:
    """Files at which a closer look could change the verdict, and which had none.

    Such are those of a scan that was stopped between its two passes. One that failed is
    told of by its own note.

    Args:
      lines: of a results file.
      judge: that asked for closer looks: of the same settings, without the crowd.
    """
    return [
        line["path"]
        for line in lines
        if not line["parts"] and judge.asks(line) and not records.has_failed(line)
    ]


def trust(judged: Sequence[Record]) -> str | None:
    """How often such verdicts are wrong, where all are of one kind and it was measured.

    It was measured with the rule's own threshold and the detector's own settings, on the
    data sets of the package's own profiles, for some architectures and numbers of images.
    """
    drawn = [one for one in judged if one["score"] is not None]
    kinds = {
        (one["mode"], one["baseline"], one["data"]["name"] if one["data"] else "")
        for one in drawn
    }
    if len(kinds) != 1 or any(one["threshold_source"] == "flag" for one in drawn):
        return None
    mode, baseline, data = kinds.pop()
    measured = rates.find(mode, baseline, data)
    if measured is None or data not in profile.shipped():
        return None
    own = profile.load(data)
    if baseline == "profile":
        if {one["compared_with"] for one in drawn} != {profile.baseline(own).name}:
            return None
    # Most of a large scan are measured alike, and each is asked once.
    distinct = {
        (o["architecture"], o["num_probe"], o["num_classes"], o["config_hash"]): o
        for o in drawn
    }
    if all(_is_as_measured(one, measured, own) for one in distinct.values()):
        return rates.line(measured)
    return None


def _is_as_measured(
    one: Record, measured: Mapping[str, Any], own: profile.Profile
) -> bool:
    detector = detectors.DETECTORS[one["mode"]]
    usual = dataclasses.asdict(detector.settings())
    return (
        one["architecture"] in measured["architectures"]
        and (one["num_probe"] or 0) >= measured["num_probe"]
        and not profile.why_unfit(own, one)
        and all(one["config"].get(name) == usual[name] for name in detector.apart)
    )
