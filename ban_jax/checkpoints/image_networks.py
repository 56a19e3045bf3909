"""Networks from images to images, which lie beside classifiers and have no classes.

Generators of triggers and masks, encoders and decoders. A classifier can be written in the
same shapes, so both a name and all kernels must fit, and what is taken for one is told.
"""

import re
from collections.abc import Iterable, Mapping

from ban_jax.checkpoints import contents, tensor

_NAMES = re.compile(
    r"net_?[gm]\b|gen|encoder|decoder|unet|mask|pattern|trigger|atk|attack",
    re.IGNORECASE,
)
"""Under another name a network is judged."""
_COLOURS = (1, 2, 3)


def among(groups: Iterable[contents.StateDict]) -> list[contents.StateDict]:
    """Those of a file's groups of tensors that are such networks."""
    return [one for one in groups if _NAMES.search(one.path) and _is_one(one.tensors)]


def _is_one(tensors: Mapping[str, tensor.Tensor]) -> bool:
    """No linear layer, kernels of colours at both ends, and no outputs to nowhere."""
    values = list(tensors.values())
    kernels = [v.shape for v in values if len(v.shape) == 4]
    if len(kernels) < 3 or any(len(v.shape) not in (0, 1, 4) for v in values):
        return False
    first, last = kernels[0], kernels[-1]
    # Another one must give what the last one takes: else a kernel put at the end of a
    # classifier would hide it.
    if not any(set(last[:2]) & set(one[:2]) - {*_COLOURS} for one in kernels[:-1]):
        return False
    ends = (
        first[1] in (*_COLOURS, 4) and min(last[:2]) in _COLOURS and min(last[2:]) > 1
    )
    return ends and all(
        _is_taken(shape[0], [*kernels[:place], *kernels[place + 1 :]])
        for place, shape in enumerate(kernels[:-1])
    )


def _is_taken(channels: int, others: Iterable[tuple[int, ...]]) -> bool:
    """Whether another kernel has as many channels, or a half or a double of them.

    Classes are what a classifier's last layer gives and nothing takes. Halves and doubles
    are of layers that are put side by side.
    """
    known = {count for shape in others for count in shape[:2]}
    return not known.isdisjoint((channels, 2 * channels, channels / 2))
