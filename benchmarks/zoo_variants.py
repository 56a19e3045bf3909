"""What becomes of a zoo's models and their backdoors after training, as a zoo of its own.

    python -m benchmarks.zoo_variants ZOO --data cifar10 --data-dir tfds --out FOLDER

For each model: BatchNorm statistics estimated anew on clean images, one epoch of
fine-tuning on them, a fifth of the weights pruned, weights in bfloat16. Entries of
`zoo.json` are those of the originals with their figures measured again, and two more
fields: `variant`, and `of`, the original's name. The clean images are of the split that
training holds back. The same command goes on where it was stopped.
"""

import collections
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import tyro

from ban_jax import checkpoints, data, models, population
from ban_jax.attacks import files
from ban_jax.commands import train
from ban_jax.convolution import tables
from ban_jax.repairs import comparison
from ban_jax.storage import lock
from ban_jax.training import writing
from ban_jax.types import Variables
from ban_jax.zoo import ground_truth, listing, success
from benchmarks import _zoo, _zoo_changes, _zoo_files


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which variants are made.

    Attributes:
      zoo: folder written by `ban-jax train` or `benchmarks.zoo_pack`, with its triggers:
        without them the success of an attack is not measured and counts as failed.
      out: the variants' folder.
      data: the zoo's data set.
      data_dir: TFDS's folder.
      image_size: side the models were trained at.
      kinds: variants to make.
      num_clean: clean images of the defender's split, or all where there are fewer.
      num_test: test images the figures are taken on; None: all.
      flip: whether fine-tuning mirrors images.
      bar: a backdoor with a lower excess success is marked as failed.
      limit: models to make variants of, the first ones; None: all.
    """

    zoo: Annotated[str, tyro.conf.Positional]
    out: str
    data: str = "cifar10"
    data_dir: str | None = None
    image_size: int | None = None
    kinds: train.Names = tuple(_zoo_changes.CHANGES)
    num_clean: int = 2500
    num_test: int | None = 2000
    flip: bool = True
    bar: float = 0.9
    limit: int | None = None


DECISIVE = ("data", "image_size", "num_clean", "num_test", "flip", "bar")
"""Flags that all variants of one folder share."""


class Original(NamedTuple):
    """A model of the zoo: its entry, and what its file holds."""

    entry: dict[str, Any]
    candidate: checkpoints.Candidate


class Variant(NamedTuple):
    """What was made of a model: its variables and its entry."""

    original: Original
    variables: Variables
    entry: dict[str, Any]


def originals_of(flags: Flags) -> list[list[Original]]:
    """The zoo's models, those of one architecture together."""
    groups = collections.defaultdict(list)
    for entry in _zoo.entries(flags.zoo)[: flags.limit]:
        candidate = checkpoints.read(os.path.join(flags.zoo, entry["file"]))
        groups[candidate.spec].append(Original(entry, candidate))
    return list(groups.values())


def images_of(flags: Flags) -> tuple[data.Dataset, data.Dataset]:
    """Clean images that no model has learned from, and the test images."""
    clean = data.load(
        flags.data,
        data_dir=flags.data_dir,
        split="defender",
        num=flags.num_clean,
        at_most=True,
        image_size=flags.image_size,
    )
    test = data.load(
        flags.data,
        data_dir=flags.data_dir,
        num=flags.num_test,
        image_size=flags.image_size,
    )
    return clean, test


def is_there(folder: listing.ZooFolder, name: str, original: Original) -> bool:
    """Whether a variant of this very model is listed and whole."""
    return folder.holds(name) and any(
        entry["name"] == name and entry["of_sha256"] == original.candidate.sha256
        for entry in folder.entries
    )


def make(
    kind: str,
    originals: Sequence[Original],
    setting: _zoo_changes.Setting,
    flags: Flags,
) -> list[Variant]:
    """Variants of one kind, measured; one that the change spoiled is told and left out."""
    began = time.perf_counter()
    changed = _zoo_changes.CHANGES[kind](
        [
            _zoo_changes.Model(one.candidate.full_variables(), one.candidate.sha256)
            for one in originals
        ],
        setting,
    )
    pairs = []
    for original, variables in zip(originals, changed, strict=True):
        if variables is None:
            print(f"{original.entry['name']}: {kind} left out, its loss is not finite")
        else:
            pairs.append((original, variables))

    found = population.side_by_side(
        lambda pair: measured(*pair, setting, flags), pairs, population.cores()
    )
    seconds = round((time.perf_counter() - began) / len(originals), 1)
    return [
        Variant(
            original,
            variables,
            {**entry_of(original, kind), **figures, "seconds": seconds},
        )
        for (original, variables), figures in zip(pairs, found, strict=True)
    ]


def measured(
    original: Original,
    variables: Variables,
    setting: _zoo_changes.Setting,
    flags: Flags,
) -> dict[str, Any]:
    """The figures of a variant: the fields of `success.as_json`, and `failed`."""
    entry, test, truth = original.entry, setting.test, None
    clean = entry["kind"] == "clean"
    if clean or entry["trigger_file"]:
        path = original.candidate.path
        truth = ground_truth.find(path, test.image_shape, test.num_classes)
    truth = truth or ground_truth.none(test.num_classes)
    found = comparison.figures(variables, truth, network=setting.network, test=test)
    metrics = success.Metrics(
        *(
            math.nan if found[name] is None else found[name]
            for name in ("clean_accuracy", "asr", "untriggered")
        )
    )
    rounded = {
        name: None if value is None else round(value, 4)
        for name, value in found.items()
    }
    failed = not clean and success.has_failed(metrics, entry["mode"], flags.bar)
    return {**rounded, "failed": failed}


def entry_of(original: Original, kind: str) -> dict[str, Any]:
    """A variant's entry, but for what is measured."""
    entry = original.entry
    name, trigger = f"{entry['name']}_{kind}", entry["trigger_file"]
    return {
        **entry,
        "name": name,
        "file": f"{name}.safetensors",
        "orbax": None,
        "trigger_file": f"triggers/{entry['name']}{files.SUFFIX}" if trigger else None,
        "variant": kind,
        "of": entry["name"],
        "of_sha256": original.candidate.sha256,
        "loss": None,
    }


def write(variant: Variant, folder: listing.ZooFolder, zoo: str) -> None:
    """Writes a variant with its original's trigger, and lists it."""
    original, variables, entry = variant
    remarks = {"clean_accuracy": entry["clean_accuracy"], "data": entry["data"]}
    folder.write(
        entry["file"],
        lambda path: checkpoints.write_safetensors(
            path, variables, original.candidate.spec, remarks
        ),
    )
    if entry["trigger_file"]:
        source = os.path.join(zoo, original.entry["trigger_file"])
        folder.write(entry["trigger_file"], _zoo_files.copy_of(source))
    folder.add(entry)
    print(writing.summary(entry), flush=True)


def main(flags: Flags) -> None:
    """Makes the variants that the folder does not hold yet."""
    unknown = [kind for kind in flags.kinds if kind not in _zoo_changes.CHANGES]
    if unknown:
        raise ValueError(
            f"--kinds: expected some of {', '.join(_zoo_changes.CHANGES)}, found "
            f"{', '.join(unknown)}"
        )
    groups = originals_of(flags)
    clean, test = images_of(flags)
    making = {name: getattr(flags, name) for name in DECISIVE}
    folder = listing.ZooFolder(
        flags.out, {"made_by": "python -m benchmarks.zoo_variants", **making}
    )
    placement = population.default_placement()
    size = placement.rounded(population.default_chunk(placement.devices[0].platform))
    with lock.held(folder.file(listing.INDEX)):
        folder.check_contents(making)  # what another process made until now
        for group in groups:
            module = group[0].candidate.spec.create(lowering=tables.default())
            setting = _zoo_changes.Setting(
                models.network(module), clean, test, flags.flip, size
            )
            for kind in flags.kinds:
                missing = [
                    one
                    for one in group
                    if not is_there(folder, f"{one.entry['name']}_{kind}", one)
                ]
                for first in range(0, len(missing), size):
                    some = missing[first : first + size]
                    for variant in make(kind, some, setting, flags):
                        write(variant, folder, flags.zoo)
    print(f"{len(folder.entries)} variants in {flags.out}")


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
