"""Which models a zoo is to have: every combination of what a user asks for."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from ban_jax import attacks as kinds
from ban_jax.attacks import poison
from ban_jax.training.model_plan import ModelPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be combined.

    Attributes:
      attacks: with their settings, by name; `clean` is one of them.
      arch: architectures.
      width: of all models, for their names.
      targets: target classes, each a model of its own; clean models have none.
      cycle_targets: each model takes the next of the targets, in place of one model per
        target.
      victim: class that `one_to_one` attacks; None: the one after the target.
      seeds: models per combination.
      first_seed: the first of their seeds.
      clean_seeds: clean models per architecture; None: as many as `seeds`.
      poison_rate: None: what is documented for each attack.
      poison_mode: where the attack leaves a choice.
    """

    attacks: Mapping[str, kinds.Attack]
    arch: Sequence[str]
    width: int
    targets: Sequence[int]
    cycle_targets: bool = False
    victim: int | None = None
    seeds: int = 1
    first_seed: int = 0
    clean_seeds: int | None = None
    poison_rate: float | None = None
    poison_mode: poison.Mode = "all_to_one"


def plan_models(wanted: Wanted, num_classes: int) -> dict[str, list[ModelPlan]]:
    """The models asked for, each once, by architecture.

    Raises:
      ValueError: for a poisoning that is impossible with K classes, and when no model is
        asked for, or none of an attack for want of a target.
    """
    plans: dict[str, list[ModelPlan]] = {}
    names = set()
    cycle = itertools.cycle(wanted.targets)
    for arch, (kind, attack) in itertools.product(wanted.arch, wanted.attacks.items()):
        clean = kind == "clean"
        count = wanted.seeds
        if clean and wanted.clean_seeds is not None:
            count = wanted.clean_seeds
        mode = _mode(wanted, attack)
        for seed in range(wanted.first_seed, wanted.first_seed + count):
            aims: Sequence[int | None] = wanted.targets
            if mode == "all_to_all":
                aims = (None,)
            elif not wanted.targets:
                raise ValueError(
                    f"no model to train by {kind}: give at least one of --targets"
                )
            elif wanted.cycle_targets:
                aims = tuple(itertools.islice(cycle, 1))
            for target in aims:
                spec = _spec(wanted, attack, mode, target, num_classes)
                spec.check(num_classes, attack.policy)
                aim = "" if clean else "_all" if target is None else f"_t{target}"
                aim += f"v{spec.victim}" if spec.victim is not None else ""
                name = f"{arch}_w{wanted.width}_{kind}{aim}_s{seed}"
                if name in names:  # asked for twice
                    continue
                names.add(name)
                plans.setdefault(arch, []).append(ModelPlan(name, attack, spec, seed))
    if not plans:
        raise ValueError(
            "no model to train: give at least one of each of --attacks, "
            "--targets, --seeds and --arch"
        )
    return plans


def _mode(wanted: Wanted, attack: kinds.Attack) -> poison.Mode:
    """The asked-for mode, or the attack's own where none was asked for."""
    asked, modes = wanted.poison_mode, attack.policy.modes
    unasked = asked == "all_to_one" and asked not in modes
    own = modes == ("one_to_one",) or isinstance(attack, kinds.Clean)
    return modes[0] if unasked or own else asked


def _spec(
    wanted: Wanted,
    attack: kinds.Attack,
    mode: poison.Mode,
    target: int | None,
    num_classes: int,
) -> poison.PoisonSpec:
    rate = wanted.poison_rate
    # A victim is attacked with every image of its class: the rate is not a choice there.
    if rate is None or isinstance(attack, kinds.Clean) or mode == "one_to_one":
        rate = attack.policy.rate
    victim = None
    if mode == "one_to_one":
        victim = wanted.victim
        if victim is None and target is not None:
            victim = (target + 1) % num_classes
    return poison.PoisonSpec(rate, target, mode, victim)
