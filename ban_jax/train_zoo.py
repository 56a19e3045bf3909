"""`ban-jax train`: populations of clean and backdoored models with ground truth."""

import dataclasses
import functools
import itertools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import ban_jax
from ban_jax import attacks as kinds  # `attacks` is a flag
from ban_jax import (
    checkpoints,
    convolution,
    data,
    models,
    pictures,
    probe,
    train_population,
    training,
    zoo_folder,
)
from ban_jax.attacks import files, poison
from ban_jax.train_population import Pupil, Report, Trained


def _listing(kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """Several values as one flag, `--targets 0,3,7`."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind.__name__.upper()},...",
        instance_from_str=lambda texts: tuple(
            kind(text) for text in texts[0].split(",") if text
        ),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(map(str, values))],
    )


Names = Annotated[tuple[str, ...], _listing(str)]
Numbers = Annotated[tuple[int, ...], _listing(int)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains every combination of architecture, attack, target and seed.

    Attributes:
      out: the zoo's folder; models already in it are not trained again.
      attacks: kinds, of clean, badnets, blend, wanet, iad, bpp, adap_blend, ssdt, sig.
      targets: target classes, each a model of its own; clean models have none.
      cycle_targets: each model takes the next of the targets, in place of one model per
        target.
      victim: class that ssdt attacks; None: the one after the target.
      seeds: models per combination.
      first_seed: the first of their seeds.
      clean_seeds: clean models per architecture; None: as many as `seeds`.
      arch: architectures.
      width: channels of the first convolution.
      dtype: of the computation, float32 or bfloat16.
      data: TFDS name, image folder with train and test, .npz, or digits.
      data_dir: TFDS's folder.
      image_size: resizes all images to squares of this side; None: as they are.
      num_train: training images, a fixed random choice; None: all. The defender's tenth
        of the training images is never among them.
      num_test: test images the metrics are taken on; None: all.
      normalisation: name or MEAN/STD of the pixel constants; auto: the data set's known
        ones, or computed from the training images.
      poison_rate: share of the images that may be poisoned which are; None: what is
        documented for each attack.
      poison_mode: all_to_one or all_to_all; ssdt is one_to_one in any case.
      bar: a backdoor with a lower success rate is marked as failed; for all_to_all, with
        a lower share of the clean accuracy.
      chunk: models trained side by side; None: one per core, 8 on accelerators.
      save_minutes: least time between two saves of models in training.
      orbax: writes each model as an Orbax folder too.
      badnets: its patch.
      blend: its mixture.
      wanet: its warp.
      iad: its networks.
      bpp: its quantisation.
      adap_blend: its mixture.
      ssdt: its networks.
      sig: its signal.
      recipe: the optimiser.
    """

    out: str
    attacks: Names = ("clean", "badnets", "blend")
    targets: Numbers = (0,)
    cycle_targets: bool = False
    victim: int | None = None
    seeds: int = 1
    first_seed: int = 0
    clean_seeds: int | None = None
    arch: Names = ("resnet18",)
    width: int = 16
    dtype: str = "float32"
    data: str = "cifar10"
    data_dir: str | None = None
    image_size: int | None = None
    num_train: int | None = None
    num_test: int | None = None
    normalisation: str = "auto"
    poison_rate: float | None = None
    poison_mode: poison.Mode = "all_to_one"
    bar: float = 0.9
    chunk: int | None = None
    save_minutes: float = 1.0
    orbax: bool = True
    badnets: kinds.BadNets = kinds.BadNets()
    blend: kinds.Blend = kinds.Blend()
    wanet: kinds.WaNet = kinds.WaNet()
    iad: kinds.IAD = kinds.IAD()
    bpp: kinds.Bpp = kinds.Bpp()
    adap_blend: kinds.AdapBlend = kinds.AdapBlend()
    ssdt: kinds.SSDT = kinds.SSDT()
    sig: kinds.SIG = kinds.SIG()
    recipe: Annotated[training.Recipe, tyro.conf.arg(name="")] = training.Recipe()


SELECTION = (
    "out", "attacks", "targets", "cycle_targets", "victim", "seeds", "first_seed",
    "clean_seeds", "arch", "width", "data_dir", "poison_mode", "chunk", "save_minutes",
    "orbax",
)  # fmt: skip
"""What a second run into the same folder may change; all else must stay."""

PICTURED = 6
"""Images on the picture of an attack."""


def train_zoo(config: TrainConfig) -> list[dict[str, Any]]:
    """Trains what the folder does not hold yet.

    Returns:
      The entries of `zoo.json`, all models of the folder.

    Raises:
      ValueError: for settings that do not fit together; nothing is trained.
      DataError: when the images are not there, `ZooError`: see `zoo_folder`.
    """
    train, test = _load(config)
    pupils = plan_pupils(config, train.num_classes)
    normalisation = _normalisation(config.normalisation, train)
    lowering = convolution.default_lowering(jax.default_backend())
    specs = {
        name: checkpoints.ModelSpec(
            name, train.num_classes, config.width, train.image_shape[2]
        )
        for name in config.arch
    }
    modules = {
        name: spec.create(lowering=lowering, dtype=config.dtype)
        for name, spec in specs.items()
    }
    for arch, group in pupils.items():
        models.abstract_variables(modules[arch], min(train.image_shape[:2]))
        for pupil in group:
            pupil.attack.init(jax.random.key(0), train.image_shape)
            train_population.kernel_of(pupil, train, config.recipe, lowering)
    shared = dataclasses.asdict(config)
    folder = zoo_folder.ZooFolder(
        config.out, {key: shared[key] for key in shared if key not in SELECTION}
    )
    missing = {
        arch: [pupil for pupil in group if not folder.holds(pupil.name)]
        for arch, group in pupils.items()
    }
    for pupil in (pupil for group in pupils.values() for pupil in group):
        if folder.holds(pupil.name):
            train_population.saves_of(pupil, config.recipe, config.out).clear()
    clock = Clock(missing)
    print(f"{clock.left} models to train, {len(folder.entries)} in {config.out}")
    for arch, group in missing.items():
        for trained in train_population.train_population(
            modules[arch],
            group,
            train,
            test,
            recipe=config.recipe,
            normalisation=normalisation,
            chunk=config.chunk,
            folder=config.out,
            save_seconds=60 * config.save_minutes,
            report=functools.partial(clock.show, arch),
        ):
            entry = _save(folder, trained, specs[arch], config, train, test)
            clock.done()
            print(f"{_summary(entry)}  {clock.estimate()}", flush=True)
    print(folder.summarise(), end="")
    return folder.entries


def plan_pupils(config: TrainConfig, num_classes: int) -> dict[str, list[Pupil]]:
    """The models asked for, by architecture.

    Raises:
      ValueError: for an unknown attack, a poisoning that is impossible with K classes,
        and when no model is asked for.
    """
    pupils: dict[str, list[Pupil]] = {}
    cycle = itertools.cycle(config.targets)
    for arch, kind in itertools.product(config.arch, config.attacks):
        attack = (
            getattr(config, kind)
            if kind in kinds.ATTACKS and kind != "clean"
            else kinds.create(kind)
        )
        clean = kind == "clean"
        count = config.seeds
        if clean and config.clean_seeds is not None:
            count = config.clean_seeds
        mode = _mode(config, attack)
        for index in range(count):
            seed = config.first_seed + index
            aims: Sequence[int | None] = config.targets
            if mode == "all_to_all":
                aims = (None,)
            elif config.cycle_targets:
                aims = tuple(itertools.islice(cycle, 1))
            for target in aims:
                spec = _spec(config, attack, mode, target, num_classes)
                spec.check(num_classes, attack.policy)
                aim = "" if clean else "_all" if target is None else f"_t{target}"
                aim += f"v{spec.victim}" if spec.victim is not None else ""
                name = f"{arch}_w{config.width}_{kind}{aim}_s{seed}"
                pupils.setdefault(arch, []).append(Pupil(name, attack, spec, seed))
    if not pupils:
        raise ValueError(
            "no model to train: give at least one of each of --attacks, "
            "--targets, --seeds and --arch"
        )
    return pupils


def _mode(config: TrainConfig, attack: kinds.Attack) -> poison.Mode:
    """The asked-for mode, or the attack's own where it has but one and none was asked."""
    modes = attack.policy.modes
    if config.poison_mode in modes or config.poison_mode != "all_to_one":
        return modes[0] if isinstance(attack, kinds.Clean) else config.poison_mode
    return modes[0]


def _spec(
    config: TrainConfig,
    attack: kinds.Attack,
    mode: poison.Mode,
    target: int | None,
    num_classes: int,
) -> poison.PoisonSpec:
    rate = config.poison_rate
    # A victim is attacked with every image of its class: the rate is not a choice there.
    if rate is None or isinstance(attack, kinds.Clean) or mode == "one_to_one":
        rate = attack.policy.rate
    victim = None
    if mode == "one_to_one":
        victim = config.victim
        if victim is None and target is not None:
            victim = (target + 1) % num_classes
    return poison.PoisonSpec(rate, target, mode, victim)


class Clock:
    """How far all populations are, and how long the rest may take."""

    def __init__(self, missing: Mapping[str, Sequence[Pupil]]) -> None:
        self._start = time.perf_counter()
        self._models = {arch: len(group) for arch, group in missing.items()}
        self._total = sum(self._models.values())
        self._finished = 0
        self._running = 0.0

    @property
    def left(self) -> int:
        """Models not finished."""
        return self._total - self._finished

    def done(self) -> None:
        """A model is finished."""
        self._finished += 1
        self._running = max(0.0, self._running - 1.0)

    def show(self, arch: str, report: Report) -> None:
        """Prints a line of progress."""
        print(self.line(arch, report), flush=True)

    def line(self, arch: str, report: Report) -> str:
        """Epochs, losses, metrics and the time left."""
        self._running = len(report.pupils) * report.epoch / report.epochs
        losses = f"loss {np.mean(report.losses):.3f}"
        if len(report.losses) > 1:
            losses += f" ({min(report.losses):.3f}-{max(report.losses):.3f})"
        parts = [
            f"  {arch}, {len(report.pupils)} models: epoch {report.epoch}/"
            f"{report.epochs}",
            losses,
        ]
        if report.metrics:
            parts.append(
                f"accuracy {np.mean([m.clean_accuracy for m in report.metrics]):.3f}"
            )
            rates = [m.asr for m in report.metrics if not math.isnan(m.asr)]
            if rates:
                parts.append(f"ASR {np.mean(rates):.3f}")
        return "  ".join([*parts, self.estimate()])

    def estimate(self) -> str:
        """Time left, if the models to come take as long as those before."""
        share = self._finished + self._running
        if not share:
            return ""
        seconds = (time.perf_counter() - self._start) / share * (self._total - share)
        return f"{seconds / 60:.1f} min left"


def _load(config: TrainConfig) -> tuple[data.Dataset, data.Dataset]:
    train, test = (
        data.load(
            config.data,
            data_dir=config.data_dir,
            split=split,
            num=num,
            image_size=config.image_size,
        )
        for split, num in (("attacker", config.num_train), ("test", config.num_test))
    )
    if test.image_shape != train.image_shape:
        raise data.DataError(
            f"{config.data}: training images are {train.image_shape}, test images "
            f"{test.image_shape}"
        )
    classes = max(train.num_classes, test.num_classes)
    return (
        dataclasses.replace(train, num_classes=classes),
        dataclasses.replace(test, num_classes=classes),
    )


def _normalisation(name: str, train: data.Dataset) -> data.Constants:
    channels = train.image_shape[2]
    if name != "auto":
        return probe.parse_normalisation(name, channels)
    if channels == 3 and train.name in probe.NORMALISATIONS:
        return next(iter(probe.NORMALISATIONS[train.name].values()))
    return data.pixel_constants(train)


def _save(
    folder: zoo_folder.ZooFolder,
    trained: Trained,
    spec: checkpoints.ModelSpec,
    config: TrainConfig,
    train: data.Dataset,
    test: data.Dataset,
) -> dict[str, Any]:
    """Writes a model with all that belongs to it, and lists it."""
    entry = _entry(trained, spec, config, train)
    remarks = {"clean_accuracy": entry["clean_accuracy"], "data": train.name}
    folder.write(
        entry["file"],
        lambda path: checkpoints.write_safetensors(
            path, trained.variables, spec, remarks
        ),
    )
    if entry["orbax"]:
        folder.write(
            entry["orbax"],
            lambda path: checkpoints.write_orbax(
                path, trained.variables, spec, remarks
            ),
        )
    if entry["trigger_file"]:
        folder.write(
            entry["trigger_file"], lambda path: files.save(path, trained.attack)
        )
        picture = f"pictures/{entry['kind']}.png"
        if not folder.has(picture):
            folder.write(
                picture,
                lambda path: pictures.save(
                    path, _picture(trained, train, test, config)
                ),
            )
    folder.add(entry)
    return entry


def _entry(
    trained: Trained,
    spec: checkpoints.ModelSpec,
    config: TrainConfig,
    train: data.Dataset,
) -> dict[str, Any]:
    """The ground truth of one model."""
    pupil = trained.pupil
    kind = kinds.kind(pupil.attack)
    clean = kind == "clean"
    figures = {
        name: None if math.isnan(value) else round(value, 4)
        for name, value in trained.metrics._asdict().items()
    }
    all_to_all = pupil.spec.mode == "all_to_all"
    bar = config.bar * (trained.metrics.clean_accuracy if all_to_all else 1.0)
    return {
        "name": pupil.name,
        "file": f"{pupil.name}.safetensors",
        "orbax": f"orbax/{pupil.name}" if config.orbax else None,
        "trigger_file": None if clean else f"triggers/{pupil.name}{files.SUFFIX}",
        "kind": kind,
        "target": pupil.spec.target,
        "victim": pupil.spec.victim,
        "mode": None if clean else pupil.spec.mode,
        "trigger": pupil.attack.describe(train.image_shape),
        "attack": dict(vars(pupil.attack)),
        "poison_rate": None if clean else pupil.spec.rate,
        "architecture": spec.architecture,
        "width": spec.width,
        "num_classes": spec.num_classes,
        **figures,
        "failed": not clean and not trained.metrics.asr >= bar,
        "seed": pupil.seed,
        "loss": round(trained.loss, 4) if math.isfinite(trained.loss) else None,
        "data": train.name,
        "normalisation": {
            key: [round(float(x), 6) for x in value]
            for key, value in trained.variables["normalisation"].items()
        },
        "seconds": round(trained.seconds, 1),
        "versions": {"ban_jax": ban_jax.__version__, "jax": jax.__version__},
    }


def _picture(
    trained: Trained, train: data.Dataset, test: data.Dataset, config: TrainConfig
) -> Any:
    """Test images that the attack is meant for, with its trigger."""
    spec = trained.pupil.spec
    chosen = np.flatnonzero(poison.to_succeed(test.labels, spec))[:PICTURED]
    images = data.to_float(test.pixels[chosen])
    kernel = train_population.kernel_of(trained.pupil, train, config.recipe, "native")
    return pictures.contact_sheet(
        images, np.asarray(kernel.trigger(trained.attack, jax.numpy.asarray(images)))
    )


def _summary(entry: Mapping[str, Any]) -> str:
    asr = "" if entry["asr"] is None else f" ASR {entry['asr']:.3f}"
    failed = " FAILED" if entry["failed"] else ""
    return (
        f"{entry['name']}: accuracy {entry['clean_accuracy']:.3f}{asr}{failed} "
        f"({entry['seconds']:.0f} s)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command on its own: `python -m ban_jax.train_zoo`."""
    train_zoo(tyro.cli(TrainConfig, args=argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
