"""What a zoo says of a model: its attack and its very trigger, to measure success with."""

import math
import os
from typing import NamedTuple

from ban_jax import attacks
from ban_jax.attacks import files, poison
from ban_jax.convolution import tables
from ban_jax.storage import json_file
from ban_jax.zoo import listing


def _schedule(rate: float) -> attacks.Schedule:
    """Triggers are made with it; nothing is trained.

    Its batches are so large that one image of each can be poisoned: how large those were
    that the model learned from is not told.
    """
    batch_size = max(128, math.ceil(1 / rate)) if rate else 128
    return attacks.Schedule(
        steps_per_epoch=1, epochs=1, batch_size=batch_size, lowering=tables.default()
    )


class GroundTruth(NamedTuple):
    """What was really done to a model, and all it takes to show it the trigger.

    Attributes:
      kind: name of the attack, `clean` for none.
      attack: with its settings.
      spec: what the attacker chose; rate 0 for a clean model.
      kernel: the attack's program.
      state: the trigger.
    """

    kind: str
    attack: attacks.Attack
    spec: poison.PoisonSpec
    kernel: attacks.Kernel
    state: attacks.AttackState


def none(num_classes: int) -> GroundTruth:
    """Of a model that carries no known trigger."""
    attack = attacks.Clean()
    return GroundTruth(
        kind="clean",
        attack=attack,
        spec=poison.PoisonSpec(0.0, mode="all_to_all"),
        kernel=attack.kernel(_schedule(0.0), 0.0, num_classes),
        state=attacks.AttackState((), ()),
    )


def find(
    path: str, image_shape: tuple[int, int, int], num_classes: int
) -> GroundTruth | None:
    """Looks for a `zoo.json` in the folder of a checkpoint, and in the one above.

    Args:
      path: of the checkpoint, a file or an Orbax folder.
      image_shape: `(H, W, C)` of the images the trigger is to be put on.
      num_classes: K.

    Returns:
      None where no zoo lists this very file.

    Raises:
      ValueError: where one does, but its trigger cannot be had.
    """
    wanted = os.path.realpath(path)
    near = os.path.dirname(wanted)
    for folder in (near, os.path.dirname(near)):
        index = os.path.join(folder, listing.INDEX)
        if not os.path.isfile(index):
            continue
        try:
            for entry in json_file.load(index):
                names = (entry["file"], entry.get("orbax"))
                places = [os.path.join(folder, name) for name in names if name]
                if wanted in map(os.path.realpath, places):
                    return _truth(entry, folder, image_shape, num_classes)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{index}: the ground truth of {path} cannot be used: {error}"
            ) from error
    return None


def _truth(
    entry: dict, folder: str, image_shape: tuple[int, int, int], num_classes: int
) -> GroundTruth:
    if entry["kind"] == "clean":
        return none(num_classes)
    attack = attacks.create(entry["kind"], **entry["attack"])
    spec = poison.PoisonSpec(
        entry["poison_rate"], entry["target"], entry["mode"], entry["victim"]
    )
    spec.check(num_classes, attack.policy)
    trigger = os.path.join(folder, entry["trigger_file"])
    return GroundTruth(
        kind=entry["kind"],
        attack=attack,
        spec=spec,
        kernel=attack.kernel(_schedule(spec.rate), spec.rate, num_classes),
        state=files.load(trigger, attack, image_shape),
    )
