"""What programs put around the names of a network's tensors, and beside them.

Wrappers: `torch.nn.DataParallel` and DistributedDataParallel (`module`), `torch.compile`
(`_orig_mod`), FSDP and activation checkpointing of PyTorch, Opacus (`_module`), Lightning
Fabric (`_forward_module`). Each wraps a model or any module in it, so that its word may
stand at any place of a name.
"""

import re
from collections.abc import Iterable, Iterator

WRAPPERS = frozenset(
    (
        "module",
        "_module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_fpw_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
    )
)
IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|neuron_(noise|mask)\w*|total_ops|total_params)$"
)
"""Entries that are no weights: counters, the noise and masks of noisy normalisation
layers (BAN, ANP, RNP), and what profilers leave behind."""
COUNTER = "num_batches_tracked"
MAX_DEPTH = 8
"""Words before the first name of a network, as `model.backbone.0` has three."""
_MAX_VISITS = 50_000
"""Names under prefixes, summed: a bound on the search. A network has some hundred."""
_FOREIGN = re.compile(
    r"""
    n_averaged | initted | steps? | global_step | (num_)?updates | decay | ema_decay
    | epochs? | optimizers? | optim | (lr_)?schedulers? | (grad_)?scaler | rng_states?
    | (\w+_)? (loss | losses | criterion | criteria | metrics? | meters? | accuracy | acc
    | accuracies | auc | auroc | f1 | f1_?score | precision | recall | confmat
    | confusion_?matrix | ece | iou | kappa | mse | mae | top[15])
    | (loss | criterion | metrics?) _ \w+
    """,
    re.VERBOSE,
)
"""A word of the names of losses, metrics, averaging and optimizers: Lightning and
torchmetrics keep them in the state dict, `torch.optim.swa_utils` its counter."""


def without_wrappers(name: str) -> str:
    """`_orig_mod.layer1.module.0.conv1.weight` -> `layer1.0.conv1.weight`."""
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def is_foreign(name: str) -> bool:
    """Whether a name says itself that it is of a loss, a metric or an average."""
    return any(_FOREIGN.fullmatch(word) for word in name.lower().split("."))


def prefixes(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Prefixes (empty, or ending in a dot) and the names under each, the shortest first.

    Work is bounded: of a file with more names than any network has, the longer prefixes
    do not come.
    """
    level = {"": list(names)}
    visits = len(level[""])
    for _ in range(MAX_DEPTH + 1):
        yield from level.items()
        deeper: dict[str, list[str]] = {}
        for prefix, under in level.items():
            for name in under:
                word, dot, _ = name[len(prefix) :].partition(".")
                if dot:
                    deeper.setdefault(f"{prefix}{word}.", []).append(name)
        level = {prefix: under for prefix, under in deeper.items() if len(under) > 1}
        visits += sum(map(len, level.values()))
        if visits > _MAX_VISITS:
            return


def common_prefix(names: Iterable[str]) -> str:
    """The longest prefix that all names share."""
    names = list(names)
    shared = [one for one, under in prefixes(names) if len(under) == len(names)]
    return shared[-1]
