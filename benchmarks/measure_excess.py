"""Measures success without trigger in zoos that were listed before it was counted.

    python -m benchmarks.measure_excess ZOO [ZOO ...] --data-dir tfds

Nothing is trained. Every backdoored model is shown the test images that the zoo's
`config.json` names, with the trigger of its file and without; `zoo.json` gets `untriggered`
and `excess`, `failed` is decided again by the bar in `config.json`, and `summary.txt` is
written anew. All else in `zoo.json` stays. A model that does not show the accuracy and the
success that are listed (with other images, say) is refused, and its zoo stays as it is.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from ban_jax import checkpoints, data, models
from ban_jax.convolution import tables
from ban_jax.repairs import comparison
from ban_jax.storage import lock, run_folder
from ban_jax.types import Network
from ban_jax.zoo import ground_truth, listing, success

TOLERANCE = 0.03
"""Of figures in another compiled program: a few of the images of one victim class."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which zoos are completed.

    Attributes:
      zoos: folders written by `ban-jax train`.
      data_dir: TFDS's folder.
    """

    zoos: Annotated[tuple[str, ...], tyro.conf.Positional]
    data_dir: str | None = None


def completed(
    entry: Mapping[str, Any], figures: Mapping[str, float | None], bar: float
) -> dict[str, Any]:
    """An entry of `zoo.json` with the success it has without trigger.

    Args:
      entry: of a backdoored model.
      figures: measured now, as `success.as_json` names them.
      bar: of its zoo.

    Raises:
      ValueError: where what was measured is not what the entry says.
    """
    for name in ("clean_accuracy", "asr"):
        listed, found = entry[name], figures[name]
        if listed is None or found is None or abs(listed - found) > TOLERANCE:
            raise ValueError(
                f"{entry['file']}: {name} is listed as {listed}, measured as {found}; "
                "are these the images and the trigger it was measured with?"
            )
    untriggered = round(figures["untriggered"] or 0.0, 4)
    metrics = success.Metrics(
        entry["clean_accuracy"], asr=entry["asr"], untriggered=untriggered
    )
    return {
        **entry,
        "untriggered": untriggered,
        "excess": round(metrics.excess, 4),
        "failed": success.has_failed(metrics, entry["mode"], bar),
    }


def measured(
    zoo: listing.ZooFolder,
    entry: Mapping[str, Any],
    test: data.Dataset,
    networks: dict[checkpoints.ModelSpec, Network],
) -> dict[str, float | None]:
    """What a model does now; networks are made once, so that programs are compiled once."""
    candidate = checkpoints.read(zoo.file(entry["file"]))
    spec = candidate.spec
    if spec not in networks:
        networks[spec] = models.network(spec.create(lowering=tables.default()))
    truth = ground_truth.find(candidate.path, test.image_shape, spec.num_classes)
    assert truth is not None, "the zoo that lists the file is beside it"
    return comparison.figures(
        candidate.full_variables(), truth, network=networks[spec], test=test
    )


def complete(path: str, data_dir: str | None) -> str:
    """Measures what is missing in one zoo, and writes it; the new table.

    Raises:
      ValueError: for a folder that is no zoo, and where figures listed are not found.
    """
    with open(os.path.join(path, run_folder.CONFIG), encoding="utf-8") as file:
        making = json.load(file)
    zoo = listing.ZooFolder(path, making)
    with lock.held(zoo.file(listing.INDEX)):
        zoo.check_contents(making)
        missing = success.without_excess(zoo.entries)
        test = data.load(
            making["data"],
            data_dir=data_dir,
            split="test",
            num=making["num_test"],
            image_size=making["image_size"],
        )
        networks: dict[checkpoints.ModelSpec, Network] = {}
        found = {
            entry["name"]: completed(
                entry, measured(zoo, entry, test, networks), making["bar"]
            )
            for entry in missing
        }
        zoo.replace([found.get(entry["name"], entry) for entry in zoo.entries])
        return zoo.summarise()


def main(flags: Flags) -> None:
    """Completes the zoos one after the other."""
    for path in flags.zoos:
        print(f"{path}\n{complete(path, flags.data_dir)}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
