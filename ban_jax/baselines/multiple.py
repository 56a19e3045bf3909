"""Many candidates at once: how many of the flagged ones are flagged by chance."""

from collections.abc import Sequence

import numpy as np


def false_shares(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg: of each, the expected false share of those up to it.

    Args:
      p_values: of all candidates; None where there is none.

    Returns:
      The q-values, None where there was no p.
    """
    known = [p for p in p_values if p is not None]
    order = np.argsort(known, kind="stable")
    adjusted = np.array(known, float)[order] * len(known) / np.arange(1, len(known) + 1)
    adjusted = np.minimum.accumulate(adjusted[::-1])[::-1]
    found = np.empty(len(known))
    found[order] = adjusted
    shares = iter(found.tolist())
    return [None if p is None else next(shares) for p in p_values]
