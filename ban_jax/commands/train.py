"""`ban-jax train`: populations of clean and backdoored models with ground truth."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import ban_jax
from ban_jax import attacks, checkpoints, data, models
from ban_jax.attacks import files, poison
from ban_jax.convolution import tables
from ban_jax.data import probe
from ban_jax.training import trainer
from ban_jax.training.eta import Clock
from ban_jax.training.plan import SELECTION, TrainConfig, plan_pupils
from ban_jax.training.trainer import Trained
from ban_jax.zoo import listing, pictures

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
    lowering = tables.default(config.precision)
    specs = {
        name: checkpoints.ModelSpec(
            name, train.num_classes, config.width, train.image_shape[2]
        )
        for name in config.arch
    }
    modules = {
        name: spec.create(lowering=lowering, precision=config.precision)
        for name, spec in specs.items()
    }
    for arch, group in pupils.items():
        models.abstract_variables(modules[arch], min(train.image_shape[:2]))
        for pupil in group:
            trainer.kernel_of(pupil, train, config.recipe, lowering)
    shared = dataclasses.asdict(config)
    folder = listing.ZooFolder(
        config.out, {key: shared[key] for key in shared if key not in SELECTION}
    )
    missing = {
        arch: [pupil for pupil in group if not folder.holds(pupil.name)]
        for arch, group in pupils.items()
    }
    for pupil in (pupil for group in pupils.values() for pupil in group):
        if folder.holds(pupil.name):
            trainer.saves_of(pupil, config.recipe, config.out).clear()
    clock = Clock(missing)
    print(f"{clock.left} models to train, {len(folder.entries)} in {config.out}")
    for arch, group in missing.items():
        for trained in trainer.train_population(
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
    folder: listing.ZooFolder,
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
    kind = attacks.kind(pupil.attack)
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
    kernel = trainer.kernel_of(trained.pupil, train, config.recipe, "native")
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


Flags = TrainConfig


def run(flags: TrainConfig) -> int:
    """Trains what the folder does not hold yet."""
    train_zoo(flags)
    return 0
