"""MM-BD: the largest margin a class can reach anywhere in input space. No images at all.

A backdoor lifts the logit of its target far above all others somewhere in input space,
whatever the trigger looks like. So for every class the margin, its logit less the largest
other one, is raised by gradient steps from random inputs; the target's is unusually large
among the classes. Normalisation layers use their stored statistics.

The verdict is the published one: a gamma distribution is fitted to all margins but the
largest, and the largest is tested as the maximum of K draws from it, `p <= 0.05`. That
test is not calibrated: with ten margins drawn alike, of no backdoor, it fires for 16 % of
normal ones and for 36 % of lognormal ones, since the largest is removed before the fit.
Against trusted models or a profile the margins are compared class by class instead.

`released` repeats the code released with the paper, which keeps no momentum (the
optimiser is made anew in every step) and never brings back a pixel that has left [0, 1].

References:
  Wang, Xiang, Miller, Kesidis, "MM-BD: Post-Training Detection of Backdoor Attacks with
  Arbitrary Backdoor Pattern Types Using a Maximum Margin Statistic", IEEE S&P 2024;
  `univ_bd.py` of wanghangpsu/MM-BD.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax.detectors import evidence, rules
from ban_jax.detectors.detector import Detector
from ban_jax.detectors.rules import Scores
from ban_jax.detectors.words import Words
from ban_jax.registry import at_least
from ban_jax.types import Array, Network, Probe, Variables

LEVEL = 0.05
FIRST_LOSS = 1000.0
"""What the first step's loss is compared with, as released."""
CHANNELS = 3
"""Where the network says nothing of its pixels."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["learning_rate", "momentum", "tolerance"],
    meta_fields=["steps", "restarts", "image_size", "released"],
)
@dataclasses.dataclass(frozen=True)
class Settings:
    """Those of the released code. Floats are traced.

    Attributes:
      learning_rate: length of a gradient step, in pixels of [0, 1] per unit of margin.
      momentum: share of the last step that the next one keeps; declared in the released
        code, where it has no effect.
      tolerance: relative change of the loss below which a class is finished.
      steps: gradient steps at most.
      restarts: random inputs per class.
      image_size: side of the square inputs, where no image tells it.
      released: repeats the released code: no momentum, and pixels that leave [0, 1] stay
        outside.
    """

    learning_rate: float = 0.01
    momentum: float = 0.2
    tolerance: float = 1e-5
    steps: int = at_least(1, 300)
    restarts: int = at_least(1, 30)
    image_size: int = at_least(1, 32)
    released: bool = False


class Search(NamedTuple):
    """The search of one class.

    Attributes:
      inputs: `[Q, H, W, C]`.
      velocity: `[Q, H, W, C]`.
      margins: `[Q]` of the inputs before the last step.
      loss: `[]` before the last step, less the sum of the margins.
      step: `[]` how many were made.
      is_done: `[]` whether the loss has settled.
    """

    inputs: Array
    velocity: Array
    margins: Array
    loss: Array
    step: Array
    is_done: Array


def margins(logits: Array, target: Array) -> Array:
    """Logits `[Q, K]` -> the target's less the largest other one `[Q]`."""
    is_target = jnp.arange(logits.shape[-1]) == target
    others = jnp.max(jnp.where(is_target, -jnp.inf, logits), axis=-1)
    return logits[..., target] - others


def advance(
    search: Search,
    target: Array,
    *,
    network: Network,
    variables: Variables,
    config: Settings,
) -> Search:
    """One gradient step on all inputs; a pixel outside [0, 1] has no gradient."""
    apply_fn = evidence.logits_of(network, "stored")

    def loss_of(inputs: Array) -> tuple[Array, Array]:
        found = margins(apply_fn(variables, inputs), target)
        return -jnp.sum(found), found

    inside = (search.inputs >= 0) & (search.inputs <= 1)
    clipped = jnp.clip(search.inputs, 0.0, 1.0)
    (loss, found), gradient = jax.value_and_grad(loss_of, has_aux=True)(clipped)
    velocity = jnp.where(inside, gradient, 0.0)
    if not config.released:
        velocity = config.momentum * search.velocity + velocity
    inputs = search.inputs - config.learning_rate * velocity
    if not config.released:
        inputs = jnp.clip(inputs, 0.0, 1.0)
    change = jnp.abs(search.loss - loss) / jnp.abs(search.loss)
    return Search(
        inputs, velocity, found, loss, search.step + 1, change < config.tolerance
    )


def detect(
    network: Network,
    variables: Variables,
    probe: Probe | None = None,
    *,
    key: Array,
    config: Settings = Settings(),
) -> evidence.Evidence:
    """Measures one candidate; pure.

    Args:
      network: the model's two functions.
      variables: its collections.
      probe: images whose shape the inputs take; None: squares of `config.image_size`.
      key: typed key, consumed.
      config: see `Settings`.

    Returns:
      Evidence whose vector `margin` `[K]` is the largest margin of each class, whose
      images are the inputs that reach it, and whose accuracy is NaN: nothing was
      predicted of images. `info` has the steps that each class took.
    """
    shape = _shape(variables, probe, config)

    def of_class(target: Array) -> tuple[Array, Array, Array, Array]:
        start = jax.random.uniform(
            jax.random.fold_in(key, target), (config.restarts, *shape)
        )
        nothing = jnp.full(config.restarts, -jnp.inf)
        first = Search(
            start,
            jnp.zeros_like(start),
            nothing,
            jnp.asarray(FIRST_LOSS),
            jnp.zeros((), jnp.int32),
            jnp.asarray(False),
        )
        last = jax.lax.while_loop(
            lambda search: ~search.is_done & (search.step < config.steps),
            lambda search: advance(
                search, target, network=network, variables=variables, config=config
            ),
            first,
        )
        best = jnp.argmax(last.margins)
        picture = jnp.clip(last.inputs[best], 0.0, 1.0)
        return last.margins[best], picture, last.step, last.is_done

    vector, pictures, steps, settled = jax.lax.map(
        of_class, jnp.arange(network.num_classes)
    )
    return evidence.Evidence(
        vectors={"margin": vector},
        errors={"margin": jnp.zeros_like(vector)},
        clean_accuracy=jnp.array(jnp.nan),
        is_finite=jnp.all(jnp.isfinite(vector)),
        info={"steps": steps, "settled": settled},
        images={"largest_margin": pictures},
        work=2 * config.restarts * jnp.sum(steps),
    )


def _shape(
    variables: Variables, probe: Probe | None, config: Settings
) -> tuple[int, int, int]:
    """`(H, W, C)` of the inputs; channels as many as the network normalises."""
    if probe is not None:
        height, width, channels = probe.images.shape[2:]
        return height, width, channels
    constants: Any = variables.get("normalisation")
    channels = CHANNELS if constants is None else jnp.shape(constants["mean"])[-1]
    return config.image_size, config.image_size, channels


@dataclasses.dataclass(frozen=True)
class LargestMargin(rules.Published):
    """The gamma test of the largest margin as the maximum of K draws.

    A score is -log10 of that probability, for every class as if it were the largest.
    """

    def own(self, vector: np.ndarray, errors: np.ndarray) -> Scores:
        """See `rules.Published.own`; NaN where no gamma distribution can be fitted."""
        del errors
        return Scores(
            -np.array(log_p(vector)) / math.log(10),
            0.0,
            are_z=False,
            meaning="-log10 of the probability of such a margin, as the largest of all "
            "classes, under the gamma distribution of the others",
        )


def log_p(vector: np.ndarray) -> list[float]:
    """Natural logarithm of `1 - F(r)^K` for every margin r of `[K]`.

    F is the gamma distribution (shape, location, scale by maximum likelihood, SciPy's
    start) of all but the largest.
    """
    # Imported here: it takes half a second, and only this rule needs it.
    from scipy import special, stats

    count = len(vector)
    rest = np.delete(vector, np.argmax(vector))
    if not np.all(np.isfinite(vector)) or np.ptp(rest) <= 0:
        return [math.nan] * count
    try:
        shape, place, scale = stats.gamma.fit(rest)
    except (ValueError, RuntimeError):  # SciPy's FitError is one of them
        return [math.nan] * count
    found = []
    for margin in vector:
        x = (margin - place) / scale
        above = float(special.gammaincc(shape, max(x, 0.0)))
        if above > 1e-290:
            # 1 - (1 - above)^K without losing small numbers.
            p = -math.expm1(count * math.log1p(-above)) if above < 1 else 1.0
            found.append(math.log(p))
        else:  # the first term of the tail's expansion, where the function is 0
            tail = (shape - 1) * math.log(x) - x - special.gammaln(shape)
            found.append(math.log(count) + float(tail))
    return found


def work(config: Settings, num_classes: int, num_images: int) -> int:
    """Image forward-equivalents at most, see `Detector.work`; a class may stop earlier."""
    del num_images
    return 2 * num_classes * config.steps * config.restarts


DETECTOR = Detector(
    detect=detect,
    settings=Settings,
    rule=LargestMargin(
        ("margin",),
        {"within": -math.log10(LEVEL), "trusted": 5.0, "population": 3.5},
    ),
    work=work,
    summary="the largest margin that each class can reach anywhere; no images were used",
    vectors={
        "margin": Words(
            "Largest margin",
            "How far the logit of each class can be raised above all others by an input "
            "that is free to choose. No images are needed.",
            "number",
        ),
        "largest_margin": Words(
            "Inputs of the largest margin",
            "The input that raises each class furthest above all others.",
        ),
    },
    needs=frozenset(),
    published=True,
)
