"""What to do about a candidate that could not be judged."""

from ban_jax.report import fields

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
_UNJUDGED = (
    "Treat it as unjudged, not as clean. Scan it again with more clean images "
    "(--num-clean) or another --baseline."
)


def advice(record: fields.Record) -> str:
    """One or two sentences, chosen by what the error or else the reason says."""
    found = f"{record.get('error') or record.get('reason') or ''}".lower()
    for signs, told in _BY_SIGN:
        if any(sign in found for sign in signs):
            return told
    return _UNREADABLE if record.get("error") else _UNJUDGED
