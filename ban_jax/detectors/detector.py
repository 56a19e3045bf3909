"""What a detector is: all that the package knows of a way to measure a candidate."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ban_jax.detectors.evidence import Evidence
from ban_jax.detectors.rules import Rule
from ban_jax.detectors.words import Words
from ban_jax.types import Array, Network, Variables


class Detect(Protocol):
    """One candidate in, its evidence out: pure, without a model axis.

    Whoever calls it compiles it and stacks candidates (`ban_jax.population`). `key` is
    consumed. Floats of `config` are traced, counts and switches are static. A radius or a
    budget of 0 gives the noiseless answer exactly. A weight, logit or loss that is not
    finite must show in `Evidence.is_finite`. `probe` is a `types.Probe`, or None where the
    detector needs no images.
    """

    def __call__(
        self,
        network: Network,
        variables: Variables,
        probe: Any,
        *,
        key: Array,
        config: Any,
    ) -> Evidence: ...

    def __hash__(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Detector:
    """A way to measure a candidate; one file each, one line in `detectors.DETECTORS`.

    Attributes:
      detect: the measurement itself.
      settings: class of its settings, a dataclass registered with JAX whose defaults are
        the documented ones; its fields become the flags `--NAME.FIELD`.
      rule: which vectors decide, and how.
      work: `(settings, K, N) -> image forward-equivalents` one candidate costs. A forward
        pass of one image counts 1, its gradient 1 more: no gradient of a convolution's
        weights is ever taken, so the way back costs what the way forth does.
      summary: one sentence, without a full stop, for help and report.
      vectors: words for each vector it yields.
      needs: what it takes besides weights: `images` and `labels`, or nothing; `classes`
        where it is told which classes `[J]` to look at, and `vectors` where it is told
        which of its vectors to measure, as arguments of that name; `work` is told too.
      further: name of the detector, if any, whose vectors the rule takes besides: they
        are measured where those of this one leave doubt.
      published: whether the rule under `within` is the one the method was published
        with. It decides then, unless trusted models, a profile file or another baseline
        is asked for: shipped profiles and the crowd of a scan are not.
      counts: settings that say how long it searches; all are changed by one factor where
        methods are to be given the same time. Those it does not have are passed over.
      apart: settings that none of the rule's `vectors` depends on: models measured with
        others of them are compared all the same.
    """

    detect: Detect
    settings: type
    rule: Rule
    work: Callable[..., int]
    summary: str
    vectors: Mapping[str, Words]
    needs: frozenset[str] = frozenset({"images", "labels"})
    further: str | None = None
    published: bool = False
    counts: tuple[str, ...] = ("steps",)
    apart: tuple[str, ...] = ()
