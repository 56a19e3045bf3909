"""`ban-jax train`: a zoo of clean and backdoored models with ground truth."""

import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import jax
import tyro

import ban_jax
from ban_jax import (
    attacks,
    checkpoints,
    convolution,
    data,
    models,
    probe,
    train_population,
    training,
    zoo_folder,
)
from ban_jax.attacks import badnets, blend, poison


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
Patch: TypeAlias = badnets.BadNets
Mixture: TypeAlias = blend.Blend


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Trains every combination of architecture, attack, target and seed.

    Attributes:
      out: the zoo's folder; models already in it are not trained again.
      attacks: kinds, of clean, badnets, blend.
      targets: target classes, each a model of its own; clean models have none.
      cycle_targets: each model takes the next of the targets, in place of one model per
        target.
      seeds: models per combination.
      first_seed: the first of their seeds.
      clean_seeds: clean models per architecture; None: as many as `seeds`.
      arch: architectures.
      width: channels of the first convolution.
      data: TFDS name, image folder with train and test, .npz, or digits.
      data_dir: TFDS's folder.
      image_size: resizes all images to squares of this side; None: as they are.
      num_train: training images, a fixed random choice; None: all.
      num_test: test images the metrics are taken on; None: all.
      normalisation: name or MEAN/STD of the pixel constants; auto: the data set's known
        ones, or computed from the training images.
      poison_rate: share of the images that may be poisoned which are.
      poison_mode: all_to_one or all_to_all.
      bar: a backdoor with a lower success rate is marked as failed.
      badnets: its patch.
      blend: its mixture.
      recipe: the optimiser.
    """

    out: str
    attacks: Names = ("clean", "badnets", "blend")
    targets: Numbers = (0,)
    cycle_targets: bool = False
    seeds: int = 1
    first_seed: int = 0
    clean_seeds: int | None = None
    arch: Names = ("resnet18",)
    width: int = 16
    data: str = "cifar10"
    data_dir: str | None = None
    image_size: int | None = None
    num_train: int | None = None
    num_test: int | None = None
    normalisation: str = "auto"
    poison_rate: float = 0.05
    poison_mode: poison.Mode = "all_to_one"
    bar: float = 0.9
    badnets: Patch = dataclasses.field(default_factory=Patch)
    blend: Mixture = dataclasses.field(default_factory=Mixture)
    recipe: Annotated[training.Recipe, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=training.Recipe
    )


SELECTION = (
    "out", "attacks", "targets", "cycle_targets", "seeds", "first_seed", "clean_seeds",
    "arch", "data_dir",
)  # fmt: skip
"""What a second run into the same folder may change; all else must stay."""


def train_zoo(config: TrainConfig) -> list[dict[str, Any]]:
    """Trains what the folder does not hold yet.

    Returns:
      The entries of `zoo.json`, all models of the folder.

    Raises:
      ValueError: for settings that do not fit together; nothing is trained.
      DataError: when the images are not there, `ZooError`: see `zoo_folder`.
    """
    pupils = plan_pupils(config)
    train, test = _load(config)
    for pupil in (pupil for group in pupils.values() for pupil in group):
        train_population.trigger_of(pupil, train.image_shape)
        pupil.spec.check(train.num_classes)
    normalisation = _normalisation(config.normalisation, train)
    specs = {
        name: checkpoints.ModelSpec(
            name, train.num_classes, config.width, train.image_shape[2]
        )
        for name in config.arch
    }
    lowering = convolution.default_lowering(jax.default_backend())
    modules = {name: spec.create(lowering=lowering) for name, spec in specs.items()}
    for module in modules.values():
        models.abstract_variables(module, min(train.image_shape[:2]))
    shared = dataclasses.asdict(config)
    folder = zoo_folder.ZooFolder(
        config.out, {key: shared[key] for key in shared if key not in SELECTION}
    )
    left = sum(not folder.holds(p.name) for group in pupils.values() for p in group)
    print(f"{left} models to train, {len(folder.entries)} in {config.out}", flush=True)
    start, done = time.perf_counter(), 0
    for name, group in pupils.items():
        missing = [pupil for pupil in group if not folder.holds(pupil.name)]
        for trained in train_population.train_population(
            modules[name],
            missing,
            train,
            test,
            recipe=config.recipe,
            normalisation=normalisation,
            progress=lambda line: print(f"  {line}", flush=True),
        ):
            entry = _save(folder, trained, specs[name], config, train)
            done += 1
            remaining = (time.perf_counter() - start) / done * (left - done)
            print(f"{_summary(entry)}  {remaining / 60:.1f} min left", flush=True)
    return folder.entries


def plan_pupils(config: TrainConfig) -> dict[str, list[train_population.Pupil]]:
    """The models asked for, by architecture.

    Raises:
      ValueError: for an unknown attack, and when no model is asked for.
    """
    pupils: dict[str, list[train_population.Pupil]] = {}
    cycle = itertools.cycle(config.targets)
    for arch, kind in itertools.product(config.arch, config.attacks):
        clean = kind == "clean"
        settings: dict[str, Any] = {"badnets": config.badnets, "blend": config.blend}
        attack = settings.get(kind) or attacks.create(kind)
        count = config.seeds
        if clean and config.clean_seeds is not None:
            count = config.clean_seeds
        aimless = clean or config.poison_mode == "all_to_all"
        for index in range(count):
            seed = config.first_seed + index
            aims: Sequence[int | None] = config.targets
            if aimless:
                aims = (None,)
            elif config.cycle_targets:
                aims = (next(cycle),)
            for target in aims:
                aim = "" if clean else "_all" if target is None else f"_t{target}"
                spec = (
                    poison.NO_POISON
                    if clean
                    else poison.PoisonSpec(
                        config.poison_rate, target, config.poison_mode
                    )
                )
                name = f"{arch}_w{config.width}_{kind}{aim}_s{seed}"
                pupil = train_population.Pupil(name, attack, spec, seed)
                pupils.setdefault(arch, []).append(pupil)
    if not pupils:
        raise ValueError(
            "no model to train: give at least one of each of --attacks, "
            "--targets, --seeds and --arch"
        )
    return pupils


def _load(config: TrainConfig) -> tuple[data.Dataset, data.Dataset]:
    train, test = (
        data.load(
            config.data,
            data_dir=config.data_dir,
            split=split,
            num=num,
            image_size=config.image_size,
        )
        for split, num in (("train", config.num_train), ("test", config.num_test))
    )
    if train.split == "all":
        raise data.DataError(
            f"{config.data}: training needs a train and a test split, so that the "
            "images of a scan were never trained on: two subfolders, or the arrays "
            "train_images, train_labels, test_images and test_labels"
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
    trained: train_population.Trained,
    spec: checkpoints.ModelSpec,
    config: TrainConfig,
    train: data.Dataset,
) -> dict[str, Any]:
    pupil = trained.pupil
    clean = isinstance(pupil.attack, attacks.ATTACKS["clean"])
    kind = next(
        name for name, made in attacks.ATTACKS.items() if isinstance(pupil.attack, made)
    )
    failed = not clean and not trained.asr >= config.bar
    entry: dict[str, Any] = {
        "name": pupil.name,
        "file": f"{pupil.name}.safetensors",
        "kind": kind,
        "target": pupil.spec.target,
        "mode": None if clean else pupil.spec.mode,
        "trigger": pupil.attack.describe(train.image_shape),
        "poison_rate": None if clean else pupil.spec.rate,
        "architecture": spec.architecture,
        "width": spec.width,
        "num_classes": spec.num_classes,
        "clean_accuracy": round(trained.clean_accuracy, 4),
        "asr": None if math.isnan(trained.asr) else round(trained.asr, 4),
        "failed": failed,
        "seed": pupil.seed,
        "data": train.name,
        "normalisation": {
            key: [round(float(x), 6) for x in value]
            for key, value in trained.variables["normalisation"].items()
        },
        "seconds": round(trained.seconds, 1),
        "versions": {"ban_jax": ban_jax.__version__, "jax": jax.__version__},
    }
    checkpoints.write_safetensors(
        folder.file(entry["file"]),
        trained.variables,
        spec,
        {"clean_accuracy": entry["clean_accuracy"], "data": train.name},
    )
    folder.add(entry)
    return entry


def _summary(entry: dict[str, Any]) -> str:
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
