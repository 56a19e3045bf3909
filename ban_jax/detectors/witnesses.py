"""Several witnesses per class, and a verdict only where two of them agree.

Clean models of one data set look alike: each class vector is nearly a curve of the data
set, up to a scale and an offset of the model. So a candidate's vector is read against the
curve of clean models (a `rules.Baseline`): the scale is fitted (Theil-Sen, so that one
odd class cannot bend it), and what is left of each class is measured in standard
deviations of what is left of the others, so that the odd class does not hide itself, and
of how widely clean models scatter at that class. A clean model's odd class differs from
vector to vector, a backdoor's is the same in all: hence an order statistic over the
witnesses, not their mean.

What is fitted away, the level of a whole vector, is no witness but for one: see `LEVEL`.
"""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ban_jax.detectors import readings, rules
from ban_jax.detectors.rules import Baseline, Scores, Vectors

SHARE = 0.1
"""Of a score, what is the most certain witness's; the rest is the second's."""
CERTAIN = 6.0
"""z from which on a witness that is more certain says no more."""
MARGIN = 1.0
"""What a class that is flagged by itself scores more than any threshold, at least: its
evidence is not of the kind that thresholds are chosen by."""
THRESHOLDS = {"within": 4.0, "trusted": 2.7, "population": 2.7, "profile": 2.7}
SUSPICIOUS = {"within": 3.0, "trusted": 2.4, "population": 2.4, "profile": 2.4}
"""Scores of two or more witnesses; see benchmarks/README.md for where they come from."""
USUAL_CLASSES, USUAL_SCORE = 10, 2.7
"""Of the models that the thresholds were chosen on, and their threshold; see `among`."""
PROOF = 0.5
"""Probability that a change too small to be an image of a class adds to it, on images of
other classes, from which on no clean model is expected: most images follow it."""
LEVEL = 3.0
"""Logarithm of the odds ratio to clean models, at one class, from which on a vector flags
the candidate by itself: twenty times their odds. Where a search reaches nearly all images
at several classes none of them stands out from the others, and no clean model's does."""
VOID = "no class differs from the others by more than chance"
BLIND = "noise shows nothing in a network without batch statistics"
"""It leads nearly everything into one class, in clean and backdoored ones alike."""


class Question(NamedTuple):
    """What a closer look is asked for.

    Attributes:
      classes: that are searched towards, in order.
      vectors: that are measured.
    """

    classes: tuple[int, ...]
    vectors: tuple[str, ...]


class Agreed(NamedTuple):
    """What several witnesses say together.

    Attributes:
      scores: `[K]`.
      deciding: `[2, K]` the most certain witness of each class, and the second.
      weights: `[2, K]` what the score gains by an increase of their z.
    """

    scores: np.ndarray
    deciding: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Scores a class by what the second most certain of the witnesses says of it, and
    by a tenth of what the most certain one says more.

    Attributes:
      vectors: the witnesses, by the names of their vectors.
      needed: those that every candidate's evidence must hold.
      dear: those that cost a search per class: a closer look measures them.
      thresholds: score above which a candidate is flagged, per kind of baseline.
      suspicious: score above which it is called suspicious.
      doubt: z of another witness from which on the dear ones are worth their price.
      statistics: vector that only networks with batch statistics have. For others noise
        is void, and models with batch statistics are no yardstick of levels.
      noisy: those that noise on neurons gives.
      explained: vectors that, without a baseline, are read against the logarithm of
        another one, the model's own confusions.
      proofs: vectors that flag a class by themselves above `PROOF`, whatever others say,
        and what they are called. Such a class scores `CERTAIN`, or `MARGIN` more than a
        threshold that is higher.
      levels: vectors of probabilities that flag a candidate by themselves from `LEVEL` on,
        where no class is flagged otherwise, and what they are called. They are asked of
        every candidate that is not flagged.
    """

    vectors: tuple[str, ...]
    needed: tuple[str, ...]
    dear: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: THRESHOLDS
    )
    suspicious: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: SUSPICIOUS
    )
    doubt: float = 0.0
    pools: bool = True
    statistics: str = ""
    noisy: tuple[str, ...] = ()
    explained: Mapping[str, str] = dataclasses.field(default_factory=dict)
    proofs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def read(
        self, vectors: Vectors, errors: Vectors, against: Baseline
    ) -> tuple[dict[str, readings.Reading], dict[str, str]]:
        """The readings of all witnesses that were measured, and why others are void."""
        found: dict[str, readings.Reading] = {}
        void: dict[str, str] = {}
        for name in self.vectors:
            if name not in vectors:
                continue
            if self._is_blind(name, vectors):
                void[name] = BLIND
                continue
            centre = against.centre.get(name)
            confusions = vectors.get(self.explained.get(name, ""))
            if against.kind == "within" and confusions is not None:
                centre = np.log(np.maximum(confusions, 1e-6))
            elif against.kind != "within" and centre is None:
                void[name] = f"the {against.kind} baseline does not have it"
                continue
            if (
                against.kind != "within"
                and len(vectors[name]) < readings.CLASSES_MINIMUM
            ):
                # Too few classes to compare with one another: the models' own spread.
                z, unit = rules.z_values(vectors[name], name, against)
                found[name] = readings.Reading(z, np.full(len(z), unit))
                continue
            reading = readings.read(vectors[name], errors[name], centre)
            if reading is None:
                void[name] = VOID
            else:
                spread = against.spreads.get(name, np.ones(len(reading.z)))
                found[name] = readings.Reading(
                    reading.z / spread, reading.units * spread
                )
        return found, void

    def _is_blind(self, name: str, vectors: Vectors) -> bool:
        return name in self.noisy and self.statistics not in vectors

    def _are_alike(self, vectors: Vectors, against: Baseline) -> bool:
        """Whether a baseline knows networks with batch statistics as the candidate is."""
        return against.kind == "within" or (self.statistics in vectors) == (
            self.statistics in against.centre
        )

    def asks(
        self,
        vectors: Vectors,
        errors: Vectors,
        against: Baseline,
        *,
        limit: float,
        most: int,
        seed: int,
    ) -> Question | None:
        """What dear witnesses that were not measured could change, and at which classes.

        They cannot where two others agree already: more can only raise a score. Where no
        class stands out in any other, only those that flag by their level are asked; what
        that misses is measured. Where nothing is known of how clean models answer them,
        all are asked in any case. What some dear ones said already changes nothing of
        what is asked of the rest: a scan that was stopped asks what it would have asked,
        and one that is compared with something else asks for the classes of that.

        Args:
          vectors, errors, against: as for `scores`.
          limit: score above which a candidate is flagged.
          most: of the classes. Of more, those that stand out most, and a third drawn by
            the seed: else they had only one another to be compared with.
          seed: of that draw.

        Returns:
          The question; None where there is nothing to ask.
        """
        dear = [name for name in self.dear if not self._is_blind(name, vectors)]
        if not dear or not self._are_alike(vectors, against):
            return None
        against = dataclasses.replace(against, limit=limit)
        cheap = {name: v for name, v in vectors.items() if name not in self.dear}
        found = self.scores(cheap, errors, against)
        count = len(found.values)
        flagged = np.max(found.values) > limit
        largest = np.max(
            [np.full(count, -np.inf), *map(_known, found.witnesses.values())], axis=0
        )
        if against.kind != "within" and set(dear) <= set(against.centre):
            if flagged:
                return None
            if np.max(largest) <= self.doubt:
                dear = [name for name in dear if name in self.levels]
        classes = list(range(count))
        if count > most:
            order = np.argsort(-largest, kind="stable")
            drawn = most // 3
            draw = np.random.default_rng(seed).permutation(order[most - drawn :])
            classes = sorted(map(int, [*order[: most - drawn], *draw[:drawn]]))
        missing = tuple(
            name
            for name in dear
            if name not in vectors or np.isnan(vectors[name][classes]).any()
        )
        return Question(tuple(classes), missing) if missing else None

    def scores(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        """See `rules.Rule.scores`."""
        agreed = self._agreed(vectors, errors, against)
        for name in self.proofs:
            if name in vectors:
                agreed = self._proven(agreed, name, vectors[name], against)
        for name in self.levels if self._are_alike(vectors, against) else ():
            if name in vectors and name in against.centre:
                agreed = self._levelled(agreed, name, vectors[name], against)
        return agreed

    def _levelled(
        self, scores: Scores, name: str, vector: np.ndarray, against: Baseline
    ) -> Scores:
        """Scores in which classes where a vector `[K]` is beyond clean models' level are
        flagged, unless some are without it: of several such classes what all witnesses
        say together tells which is the target."""
        limit = self._limit(against)
        says = np.where(np.isfinite(scores.values), scores.values, 0.0)
        centre = against.centre[name]
        beyond = _known(readings.above(vector, centre)) > LEVEL
        if against.kind == "within" or np.max(says) > limit or not beyond.any():
            return scores
        certain = self._certain(against)
        values = np.where(beyond, certain + SHARE * np.clip(says, -3, 3), says)
        target = int(np.argmax(values))
        meaning = (
            f"{self.levels[name]} turns {vector[target]:.0%} of images of other classes "
            f"into class {target}, of clean models {centre[target]:.0%}"
        )
        told = np.where(beyond, certain, scores.witnesses.get(name, np.nan))
        return scores._replace(
            values=values,
            error=0.0,
            witnesses={**scores.witnesses, name: told},
            void={one: why for one, why in scores.void.items() if one != name},
            meaning=meaning,
            reason="",
        )

    def _proven(
        self, scores: Scores, name: str, vector: np.ndarray, against: Baseline
    ) -> Scores:
        """Scores in which a vector `[K]` flags the classes that it proves.

        Of several such classes it names the one that most images follow; one of which all
        witnesses say more stays the target, for their reason.
        """
        share = _known(vector)
        proved = share > PROOF
        if not proved.any():
            return scores
        others = np.where(np.isfinite(scores.values), scores.values, 0.0)
        certain = self._certain(against)
        says = np.where(proved, certain, 0.0)
        behind = np.where(proved, share - np.max(share), 0.0)
        scores = scores._replace(
            values=np.where(proved, np.maximum(others, says + behind), others),
            witnesses={**scores.witnesses, name: says},
            reason="",
        )
        target = int(np.argmax(scores.values))
        if others[target] == scores.values[target]:
            return scores
        meaning = (
            f"{self.proofs[name]} turns {share[target]:.0%} of images of other classes "
            f"into class {target}"
        )
        return scores._replace(error=0.0, meaning=meaning)

    def _limit(self, against: Baseline) -> float:
        """Score above which a candidate is flagged."""
        if against.limit is not None:
            return against.limit
        return self.thresholds.get(against.kind, self.thresholds["trusted"])

    def _certain(self, against: Baseline) -> float:
        """What a class scores that is flagged by itself."""
        return max(CERTAIN, self._limit(against) + MARGIN)

    def _agreed(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        found, void = self.read(vectors, errors, against)
        count = len(next(iter(vectors.values())))
        if not found:
            # Nothing was said: that is not a low score.
            return Scores(np.full(count, np.nan), 0.0, witnesses={}, void=void)
        told = {name: reading.z for name, reading in found.items()}
        if len(found) < min(2, len(self.vectors)):
            reason = f"only {next(iter(found))} says anything, and two must agree"
            nothing = np.full(count, np.nan)
            return Scores(nothing, 0.0, witnesses=told, void=void, reason=reason)
        agreed = agree(np.stack(list(told.values())))
        target = int(np.argmax(agreed.scores))
        names = [list(found)[index] for index in agreed.deciding[:, target]]
        parts = [
            weight * errors[name][target] / found[name].units[target]
            for name, weight in zip(names, agreed.weights[:, target], strict=True)
        ]
        share = among(count, min(len(found), 2))
        return Scores(
            share * agreed.scores,
            share * float(np.hypot(*parts)),
            witnesses=told,
            void=void,
        )


def among(count: int, agreeing: int) -> float:
    """What z counts for where the largest of so many classes decides.

    Of more classes one stands out by chance more often. So `USUAL_SCORE` is as rare among
    K classes as it is among `USUAL_CLASSES` of independent normal z; of fewer classes z
    counts as it is.

    Args:
      count: K.
      agreeing: witnesses that must speak for the same class, 1 or 2.
    """
    if count <= USUAL_CLASSES:
        return 1.0
    normal = statistics.NormalDist()
    chance = normal.cdf(-USUAL_SCORE) * (USUAL_CLASSES / count) ** (1 / agreeing)
    return USUAL_SCORE / -normal.inv_cdf(chance)


def agree(z: np.ndarray) -> Agreed:
    """What witnesses `[W, K]` say of the classes together.

    The second largest z of a class, and `SHARE` of what the largest, up to `CERTAIN`, is
    more; of a single witness what it says.
    """
    known = _known(z)
    order = np.argsort(-known, axis=0, kind="stable")
    deciding = order[[0, min(1, len(z) - 1)]]
    first, second = np.take_along_axis(known, deciding, axis=0)
    # One that was not measured, -inf, stays: nobody speaks for a class by himself.
    more = np.zeros_like(second)
    measured = np.isfinite(second)
    np.subtract(np.minimum(first, CERTAIN), second, out=more, where=measured)
    share = np.where(more > 0, SHARE, 0.0)
    heard = np.where(first < CERTAIN, share, 0.0)
    return Agreed(second + share * more, deciding, np.stack([heard, 1 - share]))


def _known(z: np.ndarray) -> np.ndarray:
    """What was not measured says nothing for a class."""
    return np.where(np.isnan(z), -np.inf, z)
