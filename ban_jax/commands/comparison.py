"""What candidates are compared with, as flags say it."""

from collections.abc import Sequence

from ban_jax import records, verdict
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

    It was measured with the rule's own threshold, and with the package's own profiles.
    """
    drawn = [one for one in judged if one["score"] is not None]
    kinds = {
        (one["mode"], one["baseline"], one["data"]["name"] if one["data"] else "")
        for one in drawn
    }
    if len(kinds) != 1 or any(one["threshold_source"] == "flag" for one in drawn):
        return None
    mode, baseline, data = kinds.pop()
    if baseline == "profile":
        known = data in profile.shipped()
        own = profile.baseline(profile.load(data)).name if known else ""
        if {one["compared_with"] for one in drawn} != {own}:
            return None
    return rates.line(mode, baseline, data)
