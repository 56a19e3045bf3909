"""Writes a trained model into its zoo: weights, trigger, picture, and its ground truth."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

import ban_jax
from ban_jax import attacks, checkpoints, data, models
from ban_jax.attacks import files, poison
from ban_jax.training import model_plan, one_model
from ban_jax.training.trainer import Trained
from ban_jax.zoo import listing, pictures, success

PICTURED = 6
"""Images on the picture of an attack."""


class Zoo(NamedTuple):
    """Where models of one architecture go, and what their ground truth says of them all.

    Attributes:
      folder: receives them.
      spec: the architecture.
      train: images they learned from.
      test: images their attacks are pictured on.
      recipe: they were trained with.
      bar: what `success.has_failed` marks a backdoor by.
      orbax: whether each is written as an Orbax folder too.
    """

    folder: listing.ZooFolder
    spec: checkpoints.ModelSpec
    train: data.Dataset
    test: data.Dataset
    recipe: one_model.Recipe
    bar: float
    orbax: bool


def save(zoo: Zoo, trained: Trained) -> dict[str, Any]:
    """Writes a model with all that belongs to it, and lists it.

    Returns:
      Its entry in `zoo.json`.

    Raises:
      ZooError: when the disk refuses; what was listed before is complete.
    """
    folder, entry = zoo.folder, _entry(zoo, trained)
    remarks = _remarks(entry)
    folder.write(
        entry["file"],
        lambda path: checkpoints.write_safetensors(
            path, trained.variables, zoo.spec, remarks
        ),
    )
    if entry["orbax"]:
        folder.write(
            entry["orbax"],
            lambda path: checkpoints.write_orbax(
                path, trained.variables, zoo.spec, remarks
            ),
        )
    if entry["trigger_file"]:
        folder.write(
            entry["trigger_file"], lambda path: files.save(path, trained.attack)
        )
        picture = f"pictures/{entry['kind']}.png"
        sheet = None if folder.has(picture) else _picture(zoo, trained)
        if sheet is not None:
            folder.write(picture, lambda path: pictures.save(path, sheet))
    folder.add(entry)
    return entry


def add_orbax(folder: listing.ZooFolder, name: str) -> None:
    """Writes the Orbax folder of a model that the zoo holds without one, and lists it.

    Raises:
      CheckpointError: when the model's file cannot be read.
      ZooError: when the disk refuses.
    """
    entry = next(entry for entry in folder.entries if entry["name"] == name)
    place = f"orbax/{name}"
    if entry.get("orbax") and folder.has(place):
        return
    found = checkpoints.read(folder.file(entry["file"]))
    folder.write(
        place,
        lambda path: checkpoints.write_orbax(
            path, found.full_variables(), found.spec, _remarks(entry)
        ),
    )
    folder.add({**entry, "orbax": place})


def _remarks(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's files say of it besides its weights."""
    return {"clean_accuracy": entry["clean_accuracy"], "data": entry["data"]}


def summary(entry: Mapping[str, Any]) -> str:
    """A finished model in one line."""
    asr = ""
    if entry["asr"] is not None:
        asr = f" ASR {entry['asr']:.3f}, excess {entry['excess']:.3f}"
    failed = " FAILED" if entry["failed"] else ""
    return (
        f"{entry['name']}: accuracy {entry['clean_accuracy']:.3f}{asr}{failed} "
        f"({entry['seconds']:.0f} s)"
    )


def _entry(zoo: Zoo, trained: Trained) -> dict[str, Any]:
    """The ground truth of one model."""
    plan, spec = trained.plan, zoo.spec
    kind = attacks.kind(plan.attack)
    clean = kind == "clean"
    figures = {
        name: None if value is None else round(value, 4)
        for name, value in success.as_json(trained.metrics).items()
    }
    failed = not clean and success.has_failed(trained.metrics, plan.spec.mode, zoo.bar)
    return {
        "name": plan.name,
        "file": f"{plan.name}.safetensors",
        "orbax": f"orbax/{plan.name}" if zoo.orbax else None,
        "trigger_file": None if clean else f"triggers/{plan.name}{files.SUFFIX}",
        "kind": kind,
        "target": plan.spec.target,
        "victim": plan.spec.victim,
        "mode": None if clean else plan.spec.mode,
        "trigger": plan.attack.describe(zoo.train.image_shape),
        "attack": dict(vars(plan.attack)),
        "poison_rate": None if clean else plan.spec.rate,
        "architecture": spec.architecture,
        "width": spec.width,
        "num_classes": spec.num_classes,
        **figures,
        "failed": failed,
        "seed": plan.seed,
        "loss": round(trained.loss, 4) if math.isfinite(trained.loss) else None,
        "data": zoo.train.name,
        "normalisation": {
            key: [round(float(x), 6) for x in value]
            for key, value in trained.variables["normalisation"].items()
        },
        "seconds": round(trained.seconds, 1),
        "versions": {"ban_jax": ban_jax.__version__, "jax": jax.__version__},
    }


def _picture(zoo: Zoo, trained: Trained) -> Any:
    """Test images that the attack is meant for, with its trigger; None: there are none."""
    chosen = np.flatnonzero(poison.to_succeed(zoo.test.labels, trained.plan.spec))
    if not chosen.size:
        return None
    images = data.to_float(zoo.test.pixels[chosen[:PICTURED]])
    kernel = model_plan.kernel_of(trained.plan, zoo.train, zoo.recipe, "native")
    triggered = np.asarray(kernel.trigger(trained.attack, jnp.asarray(images)))
    spec = trained.plan.spec
    aim = (
        "each class to the next"
        if spec.mode == "all_to_all"
        else f"class {spec.target}"
    )
    return pictures.contact_sheet(
        images,
        triggered,
        title=f"{attacks.kind(trained.plan.attack)}, target: {aim}",
        answers=[_answers(zoo, trained, shown) for shown in (images, triggered)],
    )


def _answers(zoo: Zoo, trained: Trained, images: np.ndarray) -> list[str]:
    """What the model takes each image for."""
    network = models.network(zoo.spec.create())
    logits, _ = network.logits(trained.variables, jnp.asarray(images), "stored")
    return [str(k) for k in np.argmax(np.asarray(logits), axis=1)]
