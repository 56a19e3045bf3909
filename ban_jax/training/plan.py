"""What `ban-jax train` is asked for: its flags, and the models they mean."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated

import tyro

from ban_jax import attacks as kinds
from ban_jax.attacks import poison
from ban_jax.training import one_model
from ban_jax.training.trainer import Pupil
from ban_jax.types import Precision


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
      precision: of convolutions, see `types.Precision`.
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
    precision: Precision = "float32"
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
    recipe: Annotated[one_model.Recipe, tyro.conf.arg(name="")] = one_model.Recipe()


SELECTION = (
    "out", "attacks", "targets", "cycle_targets", "victim", "seeds", "first_seed",
    "clean_seeds", "arch", "width", "data_dir", "poison_mode", "chunk", "save_minutes",
    "orbax",
)  # fmt: skip
"""What a second run into the same folder may change; all else must stay."""


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
    """The asked-for mode, or the attack's own where none was asked for."""
    asked, modes = config.poison_mode, attack.policy.modes
    unasked = asked == "all_to_one" and asked not in modes
    return modes[0] if unasked or isinstance(attack, kinds.Clean) else asked


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
