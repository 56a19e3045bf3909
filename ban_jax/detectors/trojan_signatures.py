"""Trojan signatures: the target's weights in the last layer are large on average.

Features behind a ReLU are not negative, so weights that are larger on average lift a class
on every image. The mean weights of all classes are put to Dixon's test: the gap between
the largest and the next, as a share of the whole range, against its one-sided 5 % point
for as many values drawn from one normal distribution. Nothing else is needed: no image,
no gradient.

Where features can be negative (PreActResNet18, DenseNet121) the reasoning does not hold,
and where means are skewed the test fires more often than in 5 % (16 % for a gamma
distribution of shape 4, 24 % for a lognormal one of sigma 0.5, ten classes).

References:
  Fields, Samragh, Javaheripi, Koushanfar, Javidi, "Trojan Signatures in DNN Weights",
  ICCV Workshops 2021. Dixon, "Ratios involving extreme values", 1951.
"""

import dataclasses

import numpy as np

from ban_jax.detectors import evidence, rules, weights
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.rules import Scores

CRITICAL = {
    3: 0.9414,
    4: 0.7657,
    5: 0.6424,
    6: 0.5624,
    7: 0.5073,
    8: 0.4672,
    9: 0.4362,
    10: 0.4118,
    12: 0.3753,
    15: 0.3384,
    20: 0.3003,
    25: 0.2764,
    30: 0.2594,
    43: 0.2311,
    60: 0.2105,
    100: 0.1848,
    200: 0.1587,
    500: 0.1335,
    1000: 0.1194,
}
"""Number of values -> one-sided 5 % point of Dixon's r10 under a normal distribution, from
10 million draws up to 30 values and 2 million above (`numpy.random.default_rng(0)`)."""


def critical(count: int) -> float:
    """The 5 % point for so many values, interpolated in the logarithm of their number.

    Beyond the table its ends hold.
    """
    known = sorted(CRITICAL)
    return float(
        np.interp(np.log(count), np.log(known), [CRITICAL[number] for number in known])
    )


@dataclasses.dataclass(frozen=True)
class Dixon(rules.Published):
    """The gap above the next class as a share of the range, in units of its 5 % point.

    Of classes that are not the largest the gap is to the largest, and negative.
    """

    def own(self, vector: np.ndarray, errors: np.ndarray) -> Scores:
        """See `rules.Published.own`."""
        del errors
        top, second = np.argsort(-vector, kind="stable")[:2]
        span = np.ptp(vector)
        if not span > 0:  # equal means, or numbers that are none
            return Scores(np.full(len(vector), np.nan), 0.0, are_z=False)
        gaps = vector - vector[top]
        gaps[top] = vector[top] - vector[second]
        return Scores(
            gaps / span / critical(len(vector)),
            0.0,
            are_z=False,
            meaning="Dixon's ratio of its mean weight, in units of the 5 % point",
        )


DETECTOR = Detector(
    detect=weights.detect,
    settings=weights.Settings,
    rule=Dixon(("last_layer",), {"within": 1.0, "trusted": 5.0, "population": 3.5}),
    work=lambda config, num_classes, num_images: 0,
    summary="Dixon's test of the mean weights of the last layer; no images were used",
    vectors={"last_layer": evidence.WORDS["last_layer"]},
    needs=frozenset(),
    published=True,
)
