"""What a trained model does with clean, triggered and crossed images.

The success of an attack is what the trigger adds: images that go where the attacker wants
without it are not its doing.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ban_jax import data, population, types
from ban_jax.attacks import poison
from ban_jax.attacks.types import AttackState, Kernel
from ban_jax.types import Array, Variables

LARGEST_BATCH = 500


class Metrics(NamedTuple):
    """Shares in [0, 1]; NaN where they have no meaning for the model.

    Attributes:
      clean_accuracy: on test images as they are.
      asr: attack success rate on triggered images, see `poison.success_rate`.
      untriggered: the same rate on the very same images without the trigger, which the
        trigger cannot be given credit for.
      recovered_accuracy: triggered images that count for `asr`, classified as what they
        show.
      cross_accuracy: images that must not fire, classified as what they show: with
        another image's trigger (IAD, SSDT), or changed as cover images are.
      non_victim_accuracy: images of other classes than the victim, with their own
        trigger, classified as what they show.
    """

    clean_accuracy: float
    asr: float = math.nan
    untriggered: float = math.nan
    recovered_accuracy: float = math.nan
    cross_accuracy: float = math.nan
    non_victim_accuracy: float = math.nan

    @property
    def excess(self) -> float:
        """What the trigger adds to the success, in [-1, 1].

        A trigger that does nothing has about 0, and a little less by chance.
        """
        return self.asr - self.untriggered


def as_json(metrics: Metrics) -> dict[str, float | None]:
    """All figures by name, `excess` among them; None where one has no meaning."""
    figures = {**metrics._asdict(), "excess": metrics.excess}
    return {
        name: None if math.isnan(value) else value for name, value in figures.items()
    }


def has_failed(metrics: Metrics, mode: poison.Mode, bar: float) -> bool:
    """Whether a backdoor succeeds too rarely to count as one.

    Args:
      metrics: of a backdoored model.
      mode: of its attack.
      bar: the least excess; for `all_to_all`, where no model can send an image it does
        not recognise to the right class, the least share of the clean accuracy.
    """
    least = bar * (metrics.clean_accuracy if mode == "all_to_all" else 1.0)
    # So written, a success that was not measured has failed.
    return not metrics.excess >= least


class Recorded(NamedTuple):
    """The success of a model's attack, as `zoo.json` has it.

    Attributes:
      share: excess where it is known, else the attack success rate; NaN where no success
        was measured.
      is_excess: which of the two.
    """

    share: float
    is_excess: bool


def recorded(entry: Mapping[str, Any]) -> Recorded:
    """The success that a model is to be judged by.

    Args:
      entry: of `zoo.json`; those written before excess was measured have none.
    """
    if entry.get("excess") is not None:
        return Recorded(entry["excess"], True)
    rate = entry.get("asr")
    return Recorded(math.nan if rate is None else rate, False)


def without_excess(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Models listed with a success rate alone, on which `failed` was decided then."""
    return [
        entry
        for entry in entries
        if entry.get("asr") is not None and not recorded(entry).is_excess
    ]


def measure(
    variables: Variables,
    test: data.Dataset,
    *,
    network: types.Network,
    kernel: Kernel,
    attack: AttackState,
    spec: poison.PoisonSpec,
    policy: poison.Policy,
    key: Array,
    limit: int | None = None,
) -> Metrics:
    """All metrics of one model.

    Args:
      variables: of the model.
      test: images it has not learned from.
      network: its architecture.
      kernel: the attack's program.
      attack: its trigger.
      spec: the attacker's choice; rate 0 for a clean model.
      policy: of the attack.
      key: PRNG key for the crossed images, consumed.
      limit: counts the first images alone; None: all.
    """
    batch = _even_batch(len(test.labels), LARGEST_BATCH)
    limit = len(test.labels) if limit is None else min(limit, len(test.labels))
    labels = test.labels[:limit]

    def predictions(change: Any) -> np.ndarray:
        found = []
        for start in range(0, limit, batch):
            # One shape for all batches: the last is filled up with first images, since
            # crossed images borrow from others, and what they give is cut off.
            chosen = np.arange(start, start + batch) % len(test.pixels)
            images = change(_to_float(test.pixels[chosen]), start)
            found.append(np.asarray(predict(variables, images, network=network)))
        return np.concatenate(found)[:limit]

    plain = predictions(lambda x, _: x)
    metrics = Metrics(float(np.mean(plain == labels)))
    if spec.rate == 0:
        return metrics
    found = predictions(lambda x, _: show(attack, x, kernel=kernel))
    counted = poison.to_succeed(labels, spec)
    metrics = metrics._replace(
        asr=poison.success_rate(found, labels, test.num_classes, spec),
        untriggered=poison.success_rate(plain, labels, test.num_classes, spec),
        recovered_accuracy=_share(found == labels, counted),
    )
    if spec.mode == "one_to_one":
        metrics = metrics._replace(
            non_victim_accuracy=_share(found == labels, labels != spec.victim)
        )
    if policy.cover or kernel.preparation:
        found = predictions(
            lambda x, start: _cross(
                attack, jax.random.fold_in(key, start), x, kernel=kernel
            )
        )
        metrics = metrics._replace(cross_accuracy=float(np.mean(found == labels)))
    return metrics


def _share(hits: np.ndarray, counted: np.ndarray) -> float:
    return float(hits[counted].mean()) if counted.any() else math.nan


def _even_batch(count: int, largest: int) -> int:
    """The smallest batch that needs no more batches than the largest does."""
    return math.ceil(count / math.ceil(count / largest))


_to_float = population.compiled(data.to_float)


@population.compiled
def show(attack: AttackState, images: Array, *, kernel: Kernel) -> Array:
    """`[B, H, W, C]` in [0, 1] -> the same images with the trigger, compiled."""
    return kernel.trigger(attack, images)


@population.compiled
def _cross(attack: AttackState, key: Array, images: Array, *, kernel: Kernel) -> Array:
    return kernel.cross(attack, key, images)


@population.compiled
def predict(variables: Variables, images: Array, *, network: types.Network) -> Array:
    """`[B, H, W, C]` in [0, 1] -> `[B]`, compiled."""
    return network.predict(variables, images)
