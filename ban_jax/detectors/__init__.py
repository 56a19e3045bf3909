"""The detectors, by the name of their mode."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ban_jax.config import MINIBATCH, BanConfig, ReferenceConfig
from ban_jax.detectors import ban, reference, targeted, weights
from ban_jax.detectors.evidence import Evidence


class Detector(NamedTuple):
    """A way to measure a candidate.

    Attributes:
      detect: the pure function for one candidate (`population.Detect`).
      work: `(config, K, N) -> image forward-equivalents` one candidate costs. A forward
        pass of one image counts 1, its gradient 1 more: no gradient of a convolution's
        weights is ever taken, so the way back costs what the way forth does.
      needs_images: false where weights alone are judged.
    """

    detect: Callable[..., Evidence]
    work: Callable[[Any, int, int], int]
    needs_images: bool = True


def _fresh(num_images: int) -> int:
    """Images a search leaves for counting; all of them where there is one minibatch."""
    return max(num_images - MINIBATCH, min(num_images, MINIBATCH))


def _targeted_work(config: BanConfig, num_classes: int, num_images: int) -> int:
    minibatch = min(num_images, MINIBATCH)
    search = 2 * config.steps * minibatch
    count = _fresh(num_images) + (len(config.radii) - 1) * minibatch
    return 2 * num_images + num_classes * config.restarts * (search + count)


def _ban_work(config: BanConfig, num_classes: int, num_images: int) -> int:
    del num_classes
    search = 2 * config.steps * min(num_images, MINIBATCH)
    runs = len(config.radii) * config.restarts
    return 3 * num_images + runs * (search + _fresh(num_images))


def _reference_work(config: ReferenceConfig, num_classes: int, num_images: int) -> int:
    del num_classes
    mask = config.mask_epochs * config.batches * config.batch_size
    search = 2 * config.batches * config.steps * config.batch_size
    return 5 * num_images + config.batch_size + mask + search


DETECTORS = {
    "reference": Detector(reference.detect, _reference_work),
    "targeted": Detector(targeted.detect, _targeted_work),
    "ban": Detector(ban.detect, _ban_work),
    "weights": Detector(weights.detect, lambda *_: 0, needs_images=False),
}

__all__ = ["DETECTORS", "Detector", "Evidence"]
