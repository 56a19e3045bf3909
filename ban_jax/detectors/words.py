"""How a class vector is told of to people."""

from typing import NamedTuple


class Words(NamedTuple):
    """A class vector in plain words.

    Attributes:
      title: a few words.
      meaning: one or two sentences.
      unit: `share` and `difference` are shown in per cent, `number` as it is.
    """

    title: str
    meaning: str
    unit: str = "share"
