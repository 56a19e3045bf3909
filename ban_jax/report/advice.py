"""What to do about a candidate that is flagged or could not be judged."""

import shlex
from collections.abc import Sequence

from ban_jax.report import fields, outcome

_BY_SIGN = (
    (
        ("not finite", "non-finite"),
        "The weights or outputs of the network hold values that are not numbers: the file "
        "is damaged, or training diverged. Get it again from its source.",
    ),
    (
        ("accuracy", "chance"),
        "It does badly on clean images. Mostly the pixel normalisation is wrong, or the "
        "classes are in another order than the data set's. Give the right one with "
        "--normalisation, or check --data, and scan again.",
    ),
    (
        ("the clean images have", "data set's model"),
        "The clean images are not of the kind this network was trained on. Scan it "
        "apart from the others, with --data naming its own data set.",
    ),
    (
        ("device failed",),
        "The computer ran out of memory, or the accelerator failed. Scan again with "
        "a smaller --chunk; what is finished is kept.",
    ),
)
_UNREADABLE = (
    "The file could not be read or recognised. Check that the download is complete and "
    "that it is an image classifier of a supported architecture; if its names are "
    "unusual, name the architecture with --arch."
)
_NOT_FETCHED = (
    "The file was not fetched, so nothing of it was looked at. Check its address and "
    "whether you may read it, and scan again."
)
_UNJUDGED = (
    "Treat it as unjudged, not as clean. Scan it again with more clean images "
    "(--num-clean) or another --baseline."
)


def advice(record: fields.Record) -> str:
    """One or two sentences, chosen by what the error or else the reason says."""
    found, path = record.get("error") or record.get("reason"), f"{record.get('path')}"
    notes = " ".join(f"{note}" for note in fields.listed(record.get("notes")))
    if record.get("error") and "://" in path and "fetched: " not in notes:
        return _NOT_FETCHED
    # A name such as best_accuracy.pt is no sign.
    found = f"{found or ''}".replace(path, "").lower()
    for signs, told in _BY_SIGN:
        if any(sign in found for sign in signs):
            return told
    return _UNREADABLE if record.get("error") else _UNJUDGED


def steps(
    records: Sequence[fields.Record],
    results: str = "",
    asked: fields.Record | None = None,
) -> list[str]:
    """What to do next about flagged and unjudged candidates, a line for each grade.

    Args:
      records: all candidates of a scan.
      results: the file that holds them.
      asked: flags of the scan; what was tried already is not advised.
    """
    asked, told = asked or {}, []
    files = fields.files(records)
    for grade, count in outcome.tally(files).items():
        members = [record for record in files if fields.verdict(record) == grade]
        if not count or grade == "clean":
            continue
        calling = [record for record in members if fields.calls(record)]
        if calling and grade == "suspicious":
            told.append(_of_calling(len(calling)))
            count -= len(calling)
        if not count:
            continue
        if grade == "backdoored":
            step = (
                "do not use; get the model from another source, or repair it and look "
                f"again: {_repair(members, results or 'results.jsonl', asked)}"
            )
        elif grade == "suspicious":
            step = f"too little to call it backdoored; {_look_closer(asked)}"
        else:
            step = f"not judged, so not clean. {_of_unjudged(members)}"
        told.append(f"{count:,} {grade}: {step}")
    return told


def _of_calling(count: int) -> str:
    return (
        f"{count:,} suspicious for calls: do not load with pickle, or with torch.load but "
        "for weights_only=True; get weights alone (safetensors), or ask who wrote the file "
        "what it calls and why"
    )


def _repair(
    records: Sequence[fields.Record], results: str, asked: fields.Record
) -> str:
    """The command that repairs what a results file calls backdoored."""
    names = [fields.mapping(record.get("data")).get("name") for record in records]
    flags = {
        "from-scan": results,
        "data": asked.get("data") or next(filter(None, names), "NAME"),
        "data-dir": asked.get("data_dir"),
        "image-size": asked.get("image_size"),
    }
    if "results" in asked and not asked.get("data_dir"):
        # A report reads no images, and lines do not say where those of the scan lay.
        flags["data-dir"] = flags["data"] != "digits" and "THAT_OF_THE_SCAN"
    given = [f"--{name} {shlex.quote(str(v))}" for name, v in flags.items() if v]
    return " ".join(["ban-jax repair", *given])


def _look_closer(asked: fields.Record) -> str:
    ways = ["scan with more clean images (--num-clean)"]
    if not asked.get("exhaustive"):
        ways.append("measure everything (--exhaustive)")
    if not asked.get("calibrate") and not asked.get("trusted"):
        ways.append("compare with models of its kind you vouch for (--calibrate)")
    return ", ".join(ways[:-1]) + " or " * (len(ways) > 1) + ways[-1]


def _of_unjudged(records: Sequence[fields.Record]) -> str:
    distinct = list(dict.fromkeys(advice(record) for record in records))
    return distinct[0] if len(distinct) == 1 else "The report says for each what to do."
