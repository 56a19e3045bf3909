"""Settings of detection: what each number means and where its default comes from."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import tyro

from ban_jax.types import Precision

Mode = Literal["targeted", "ban", "weights", "reference"]

MINIBATCH = 128
"""Images per batch statistic, in search and evaluation alike."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon", "start", "radii", "l1_weight", "mask_learning_rate"],
    meta_fields=["steps", "restarts", "mask_steps"],
)
@dataclasses.dataclass(frozen=True)
class BanConfig:
    """What a detector may be told. Floats are traced: changing one compiles nothing.

    Attributes:
      epsilon: radius of the neuron noise, relative to each scale and bias.
      radii: further radii, as shares of epsilon, the curve of the report is drawn at.
      start: radius of the random start, as a share of the radius at hand.
      steps: sign steps of one noise search.
      restarts: noise searches per radius, each on a minibatch and from a start of its own.
      l1_weight: weight of the mask's mean in the mask's loss.
      mask_learning_rate: Adam's step for the mask; 0.01 in the paper.
      mask_steps: Adam steps for the mask.
    """

    epsilon: float = 0.2
    radii: tuple[float, ...] = (0.5, 1.0)
    start: float = 0.0
    steps: int = 3
    restarts: int = 1
    l1_weight: float = 0.75
    mask_learning_rate: float = 0.01
    mask_steps: int = 100


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon", "l1_weight", "mask_learning_rate"],
    meta_fields=["steps", "mask_epochs", "batches", "batch_size", "crop", "flip"],
)
@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """Mode `reference`: the settings of the released README. Floats are traced.

    Attributes:
      epsilon: radius the noise is drawn from, and its movement on top of that.
      steps: sign steps of each noise search, of length epsilon / steps.
      l1_weight: weight of the mask's regulariser.
      mask_learning_rate: Adam's step for the mask.
      mask_epochs: times `batches` mask steps.
      batches: mask steps per epoch, and noise searches.
      batch_size: images of a step, drawn with replacement.
      crop: zero pixels around an image before a random crop.
      flip: mirrors every other image.
    """

    epsilon: float = 0.3
    steps: int = 30
    l1_weight: float = 0.75
    mask_learning_rate: float = 0.01
    mask_epochs: int = 20
    batches: int = 20
    batch_size: int = MINIBATCH
    crop: int = 4
    flip: bool = True


DetectorConfig = BanConfig | ReferenceConfig

Baseline = Literal["within", "trusted", "population"]


@dataclasses.dataclass(frozen=True)
class ScanFlags:
    """Judges checkpoints: backdoored, clean or inconclusive.

    Attributes:
      paths: checkpoint files, Orbax folders, or folders searched for both; without any,
        the small zoo that ships with the package is scanned on `digits`.
      data: clean images: a TFDS name such as cifar10, `digits`, an image folder with one
        sub-folder per class, or an .npz of `images` and `labels`.
      data_dir: where TFDS data lie.
      split: of the clean data; take one the models were not trained on: test, or
        `defender`, the tenth of the training images that `ban-jax train` holds back.
      image_size: resizes the clean images to squares of this side.
      num_clean: how many clean images to use at most, in whole minibatches of 128.
      out: folder for results.jsonl, results.csv and report.html.
      mode: what to measure; `weights` needs no clean images.
      baseline: what a candidate is compared with; by default `trusted` with --calibrate,
        else `within`.
      calibrate: folder of models you vouch for.
      threshold: score above which a model counts as backdoored; by default the mode's.
      epsilon: radius of the neuron noise; by default the mode's:
        0.2 for `targeted`, 0.5 for `ban`, 0.3 for `reference`.
      steps: steps of one noise search; by default the mode's: 3 for `targeted`, 4 for
        `ban`, 30 for `reference`.
      restarts: noise searches, each on images of its own; `reference` has none.
      arch: architecture of every candidate, instead of recognising it.
      normalisation: NAME or MEAN/STD for every candidate, instead of the checkpoint's
        own or the best of the known constants.
      seed: of the noise and of the choice of clean images.
      precision: what convolutions multiply: whole float32 numbers; tf32, faster on
        accelerators and the same on a CPU; or bfloat16.
      chunk: candidates each device computes at once; by default as many as its memory
        holds, up to 16, on a CPU up to one per core.
      resume: go on from the results in --out.
      shard: `i/n`, i from 0: this process takes every n-th file and writes
        results.i-of-n.jsonl to --out, for `ban-jax merge`. `auto` takes i and n from
        `jax.distributed`: on TPU pods, under SLURM and Open MPI. A job array needs no
        more than --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT, an indexed
        Kubernetes job of 8 --shard $JOB_COMPLETION_INDEX/8.
      profile: file for a trace of what the scan did when (ui.perfetto.dev shows it), with
        seconds per stage.
    """

    paths: tyro.conf.Positional[tuple[str, ...]] = ()
    data: str | None = None
    data_dir: str | None = None
    split: str = "test"
    image_size: int | None = None
    num_clean: int = 512
    out: str = "ban-results"
    mode: Mode = "targeted"
    baseline: Baseline | None = None
    calibrate: str | None = None
    threshold: float | None = None
    epsilon: float | None = None
    steps: int | None = None
    restarts: int | None = None
    arch: str | None = None
    normalisation: str | None = None
    seed: int = 0
    precision: Precision = "float32"
    chunk: int | None = None
    resume: bool = True
    shard: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        _require(self.num_clean >= 2, "--num-clean", "at least 2", self.num_clean)
        minima = {"epsilon": 0, "steps": 1, "restarts": 1, "chunk": 1}
        for flag, least in minima.items():
            value = getattr(self, flag)
            _require(
                value is None or value >= least, f"--{flag}", f"at least {least}", value
            )
        _require(
            self.restarts is None or self.mode != "reference",
            "--restarts",
            "left out in mode reference, which has none",
            self.restarts,
        )
        _require(
            self.baseline != "trusted" or self.calibrate is not None,
            "--baseline trusted",
            "together with --calibrate DIR",
            "no --calibrate",
        )


@dataclasses.dataclass(frozen=True)
class ReportFlags:
    """Draws verdicts again from stored evidence; nothing is computed anew.

    Attributes:
      results: a results.jsonl.
      out: folder for the new results.jsonl, results.csv and report.html.
      baseline: as for `scan`.
      trusted: a results file of models you vouch for (`trusted.jsonl` of a scan with
        --calibrate).
      threshold: as for `scan`.
      class_names: names of the classes, in order.
    """

    results: tyro.conf.Positional[str]
    out: str = "ban-report"
    baseline: Baseline | None = None
    trusted: str | None = None
    threshold: float | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(
            self.baseline != "trusted" or self.trusted is not None,
            "--baseline trusted",
            "together with --trusted FILE",
            "no --trusted",
        )


@dataclasses.dataclass(frozen=True)
class MergeFlags:
    """Joins the results of `scan --shard`, and says what is missing.

    Verdicts are drawn again from the evidence of all shards; nothing is computed anew.

    Attributes:
      sources: folders that shards wrote to (their --out), or single results.i-of-n.jsonl.
      out: folder for results.jsonl, results.csv and report.html; by default the first
        source's.
      baseline: as for `scan`; by default what the shards were told.
      threshold: likewise.
    """

    sources: tyro.conf.Positional[tuple[str, ...]]
    out: str | None = None
    baseline: Baseline | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        _require(
            bool(self.sources), "merge", "told at least one folder or file", "none"
        )


@dataclasses.dataclass(frozen=True)
class BenchFlags:
    """Measures this package on the device at hand, with random weights and images.

    Attributes:
      tune: instead, times every lowering of the convolutions of `arch` and writes a table,
        which from then on chooses among them.
      table: the file; by default `ban_jax/lowerings.json` in your configuration folder,
        which goes before the table that ships with the package.
      arch: architectures to measure, or whose layers are timed.
      width: their width.
      image_size: side of the images.
      in_channels: channels of the images.
      mode: detector.
      num_clean: clean images, in whole minibatches of 128.
      candidates: how many at once, one measurement each; by default powers of two up to
        what a scan takes.
      precision: as for `scan`.
      repeats: timed calls; of a tuning, the fastest counts.
      seed: of weights and images.
      out: file for the figures.
      trace: folder for a profile of the fastest chunks, as `jax.profiler` writes it.
    """

    tune: bool = False
    table: str | None = None
    arch: tuple[str, ...] = ("resnet18", "vgg16", "densenet121")
    width: int = 64
    image_size: int = 32
    in_channels: int = 3
    mode: Literal["targeted", "ban"] = "targeted"
    num_clean: int = 512
    candidates: tuple[int, ...] = ()
    precision: Precision = "float32"
    repeats: int = 5
    seed: int = 0
    out: str = "ban-bench.json"
    trace: str | None = None

    def __post_init__(self) -> None:
        for flag in ("width", "image_size", "in_channels", "num_clean", "repeats"):
            value = getattr(self, flag)
            _require(value >= 1, f"--{flag.replace('_', '-')}", "at least 1", value)
        for count in self.candidates:
            _require(count >= 1, "--candidates", "at least 1", count)


@dataclasses.dataclass(frozen=True)
class PrepareFlags:
    """Downloads a TFDS data set; needs the extra `ban-jax[prepare]`.

    Attributes:
      name: of the data set, such as cifar10.
      data_dir: where TFDS data lie.
    """

    name: tyro.conf.Positional[str]
    data_dir: str | None = None


MODE_DEFAULTS: dict[str, DetectorConfig] = {
    "targeted": BanConfig(epsilon=0.2),
    "ban": BanConfig(epsilon=0.5, steps=4, restarts=2),
    "weights": BanConfig(),
    "reference": ReferenceConfig(),
}
"""Chosen on models trained for it; `reference` has the released README's."""


def detector_config(flags: ScanFlags) -> DetectorConfig:
    """The detector's numbers among the flags; those left out are the mode's own."""
    names = ("epsilon", "steps", "restarts")
    values = {name: getattr(flags, name) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(MODE_DEFAULTS[flags.mode], **given)


def describe(flags: Any) -> dict[str, Any]:
    """Flags as the report shows them: those that were left out stay out."""
    told = dataclasses.asdict(flags).items()
    return {name: value for name, value in told if value not in (None, ())}


def _require(condition: bool, flag: str, expected: str, found: Any) -> None:
    if not condition:
        raise ValueError(f"{flag} must be {expected}, got {found}")
