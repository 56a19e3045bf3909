"""How class vectors become scores, in NumPy on the host.

A vector by itself says little: some classes are easy in every model. It is measured
against a baseline,

  within      the candidate's own classes: their median, and the standard deviation of
              all but the largest (with ten classes the MAD is too noisy a yardstick);
  trusted     models the user vouches for: each class against its median over them;
  population  the candidates of this scan of the same architecture and classes, likewise;
              both in units of the MAD pooled over models and classes;
  profile     clean models of the data set, whose vectors a file holds.

`witnesses.Agreement` reads the last three in its own way.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

BaselineKind = Literal["within", "trusted", "population", "profile"]
Vectors = Mapping[str, np.ndarray]
"""Name -> `[K]`."""

MAD_TO_SIGMA = 1.4826
FLOOR = 1e-6
"""Smallest unit of a vector: equal entries get z = 0 rather than NaN."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What a candidate of one kind is measured against.

    Attributes:
      kind: one of `BaselineKind`.
      centre: name -> `[K]` median over the models; empty for `within`.
      scale: name -> sigma pooled over models and classes; empty for `within`.
      count: number of models.
      null: scores of clean models, each against others: what chance gives.
      largest: the largest score of any of the models, each against the others; None
        where that was not asked.
      limit: score above which a candidate is flagged; None: the rule's own.
      name: the very models, in a few words.
      spreads: name -> `[K]` how widely clean models' readings of each class scatter, in
        units of such a reading; a vector that is not there scatters alike everywhere.
    """

    kind: BaselineKind
    centre: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    scale: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0
    null: tuple[float, ...] = ()
    largest: float | None = None
    limit: float | None = None
    name: str = ""
    spreads: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


WITHIN = Baseline("within", name="its own classes")


class Scores(NamedTuple):
    """What a rule makes of a candidate's vectors.

    Attributes:
      values: `[K]`; the largest one is the candidate's score, its class the target.
      error: standard error of the largest.
      are_z: whether they are distances from a baseline in robust standard deviations.
      witnesses: what each vector says of every class, `[K]` each.
      void: why a vector was left out.
      meaning: of scores that are no such distances, for the reason of a verdict.
      reason: why no verdict can be drawn, in one sentence; empty where one can.
    """

    values: np.ndarray
    error: float
    are_z: bool = True
    witnesses: Mapping[str, np.ndarray] = {}
    void: Mapping[str, str] = {}
    meaning: str = ""
    reason: str = ""


class Rule(Protocol):
    """How a detector's vectors decide."""

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of those that decide."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of those that must be there."""

    @property
    def pools(self) -> bool:
        """Whether models of several architectures may be compared class by class."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Score above which a candidate is flagged, per kind of baseline."""

    @property
    def suspicious(self) -> Mapping[str, float]:
        """Score above which it is called suspicious; a kind may lack one."""

    def scores(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        """Scores the classes of one candidate."""


@dataclasses.dataclass(frozen=True)
class AverageZ:
    """The mean over vectors of each class's distance from the baseline.

    Around 0 to 2 is what noise gives; there is no upper bound.

    Attributes:
      vectors: names of the class vectors whose z-values are averaged.
      thresholds: per baseline; chosen on models trained for it, see benchmarks/README.md.
      floors: smallest unit of a vector, where it is not `FLOOR`.
      suspicious, pools: see `Rule`.
    """

    vectors: tuple[str, ...]
    thresholds: Mapping[str, float]
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    suspicious: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pools: bool = False

    @property
    def needed(self) -> tuple[str, ...]:
        """All of them."""
        return self.vectors

    def scores(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        """See `Rule.scores`."""
        pairs = [
            z_values(vectors[name], name, against, self.floors.get(name, FLOOR))
            for name in self.vectors
        ]
        mean = np.mean([z for z, _ in pairs], axis=0)
        spread = [
            float(errors[name][int(np.argmax(mean))]) / unit
            for name, (_, unit) in zip(self.vectors, pairs, strict=True)
        ]
        return Scores(mean, math.hypot(*spread) / len(self.vectors))


class Published(AverageZ):
    """Under `within` a rule of its own on the first vector; against models `AverageZ`."""

    def scores(self, vectors: Vectors, errors: Vectors, against: Baseline) -> Scores:
        """See `Rule.scores`."""
        if against.kind != "within":
            return super().scores(vectors, errors, against)
        name = self.vectors[0]
        return self.own(np.asarray(vectors[name], float), np.asarray(errors[name]))

    def own(self, vector: np.ndarray, errors: np.ndarray) -> Scores:
        """Scores of a vector `[K]` whose entries have standard errors `[K]`."""
        raise NotImplementedError


class LargestShare(Published):
    """The first vector's entries are the scores, compared with nothing."""

    def own(self, vector: np.ndarray, errors: np.ndarray) -> Scores:
        """See `Published.own`."""
        return Scores(
            vector,
            float(errors[int(np.argmax(vector))]),
            are_z=False,
            meaning="its share of the predictions under noise",
        )


def z_values(
    vector: Any, name: str, against: Baseline, floor: float = FLOOR
) -> tuple[np.ndarray, float]:
    """A class vector `[K]` in units of its baseline's spread, and that unit."""
    vector = np.asarray(vector, float)
    if against.kind == "within":
        centre: Any = np.median(vector)
        unit = max(float(np.std(np.sort(vector)[:-1])), floor)
    else:
        centre, unit = against.centre[name], max(against.scale[name], floor)
    return (vector - centre) / unit, unit


def crowd(kind: BaselineKind, models: Sequence[Vectors]) -> Baseline:
    """Medians per class and one pooled spread per vector, from models of one kind."""
    names = set.union(*(set(vectors) for vectors in models))
    centre, scale = {}, {}
    for name in sorted(names):
        stacked = [vectors[name] for vectors in models if name in vectors]
        measured = np.array(stacked, float)
        # What only a few were asked for says nothing about the others.
        enough = 2 * np.isfinite(measured).sum(axis=0) > len(models)
        if not enough.any():
            continue
        measured = np.where(enough, measured, 0.0)
        middle = np.nanmedian(measured, axis=0)
        deviations = np.abs(measured - middle)[:, enough]
        centre[name] = np.where(enough, middle, np.nan)
        scale[name] = MAD_TO_SIGMA * float(np.nanmedian(deviations))
    return Baseline(kind, centre, scale, len(models))
