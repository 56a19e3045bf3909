"""`ban-jax train`: populations of clean and backdoored models with ground truth."""

import dataclasses
import functools
from typing import Annotated, Any

import tyro

from ban_jax import attacks, checkpoints, data, models
from ban_jax.attacks import poison
from ban_jax.commands import kinds, outcome, settings
from ban_jax.convolution import tables
from ban_jax.data import normalisation as normalisations
from ban_jax.storage import lock, run_folder
from ban_jax.training import model_plan, one_model, plan, trainer, writing
from ban_jax.training.progress import Progress
from ban_jax.types import Precision
from ban_jax.zoo import listing


def _listing(kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """Several values as one flag, `--targets 0,3,7`."""
    shown = "NAME" if kind is str else "N"
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{shown},...",
        instance_from_str=lambda texts: tuple(
            kind(text) for text in texts[0].split(",") if text
        ),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(map(str, values))],
    )


Names = Annotated[tuple[str, ...], _listing(str)]
Numbers = Annotated[tuple[int, ...], _listing(int)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Trains every combination of architecture, attack, target and seed.

    Attributes:
      out: the zoo's folder; models already in it are not trained again.
      attacks: kinds: clean, badnets, blend, wanet, iad, bpp, adap_blend, ssdt, sig, and
        those of other packages. Each has its settings below.
      targets: target classes, each a model of its own; clean models have none.
      cycle_targets: each model takes the next of the targets, in place of one model per
        target.
      victim: class that ssdt attacks; by default the one after the target.
      seeds: models per combination.
      first_seed: the first of their seeds.
      clean_seeds: clean models per architecture; by default as many as --seeds.
      arch: architectures.
      width: channels of the first convolution.
      precision: as for `scan`.
      data: TFDS name, image folder with train and test, .npz, or digits.
      data_dir: where TFDS data lie.
      image_size: resizes all images to squares of this side; by default they stay.
      num_train: training images, a fixed random choice; by default all. The
        defender's tenth of the training images is never among them.
      num_test: test images the metrics are taken on; by default all.
      normalisation: name or MEAN/STD of the pixel constants; auto: the data set's known
        ones, or computed from the training images.
      start_from: checkpoint that all models go on from, in place of random weights.
      poison_rate: in place of every attack's own rate, see there.
      poison_mode: all_to_one or all_to_all; ssdt is one_to_one in any case.
      bar: a backdoor whose success exceeds that of the same images without trigger by
        less is marked as failed; for all_to_all, by less than this share of the clean
        accuracy.
      chunk: models trained side by side on each device; by default one per core of a
        CPU, 8 on accelerators.
      save_minutes: least time between two saves of models in training.
      orbax: writes each model as an Orbax folder too, those of an earlier run included.
      recipe: the optimiser.
    """

    out: kinds.Path
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
    data: kinds.Name = "cifar10"
    data_dir: kinds.MaybePath = None
    image_size: int | None = None
    num_train: int | None = None
    num_test: int | None = None
    normalisation: kinds.Name = "auto"
    start_from: kinds.MaybePath = None
    poison_rate: float | None = None
    poison_mode: poison.Mode = "all_to_one"
    bar: float = 0.9
    chunk: int | None = None
    save_minutes: float = 1.0
    orbax: bool = True
    recipe: Annotated[one_model.Recipe, tyro.conf.arg(name="")] = one_model.Recipe()

    def __post_init__(self) -> None:
        outcome.require_least(
            self, seeds=0, clean_seeds=0, first_seed=0, chunk=1, save_minutes=0
        )
        outcome.require(0 <= self.bar <= 1, "--bar", "in 0..1", self.bar)
        self.recipe.check("--")


SETTINGS: dict[str, Any] = {
    name: kind
    for name, kind in attacks.ATTACKS.items()
    if dataclasses.is_dataclass(kind)
}


Flags: Any = settings.with_settings(TrainFlags, SETTINGS)
"""What the command line is read into: `TrainFlags` with `--badnets.size` and the like."""

SELECTION = (
    "out", "attacks", "targets", "cycle_targets", "victim", "seeds", "first_seed",
    "clean_seeds", "arch", "width", "data_dir", "poison_mode", "chunk", "save_minutes",
    "orbax",
)  # fmt: skip
"""What a second run into the same folder may change; all else must stay."""


def run(flags: TrainFlags) -> int:
    """Trains what the folder does not hold yet; the exit code."""
    train_zoo(flags)
    return 0


def train_zoo(flags: TrainFlags) -> list[dict[str, Any]]:
    """Trains what the folder does not hold yet.

    Returns:
      The entries of `zoo.json`, all models of the folder.

    Raises:
      ValueError: for settings that do not fit together; nothing is trained.
      DataError: when the images are not there, `ZooError`: see `listing.ZooFolder`.
    """
    settings.warn_of_idle(
        flags, ",".join(flags.attacks), "--attacks", "recipe", *flags.attacks
    )
    train, test = _load(flags)
    plans = plan.plan_models(_wanted(flags), train.num_classes)
    runs = _runs(flags, train, test)
    for arch, group in plans.items():
        for one in group:
            model_plan.kernel_of(one, train, flags.recipe, runs[arch].module.lowering)
    making = dataclasses.asdict(flags)
    folder = listing.ZooFolder(
        flags.out, {key: making[key] for key in making if key not in SELECTION}
    )
    with lock.held(folder.file(listing.INDEX)):
        # What another process made until now is not made again.
        folder.check_contents(folder.read(run_folder.CONFIG))
        missing = {
            arch: [one for one in group if not folder.holds(one.name)]
            for arch, group in plans.items()
        }
        for arch, one in (
            (arch, one) for arch, group in plans.items() for one in group
        ):
            if folder.holds(one.name):
                trainer.saves_of(runs[arch], one, flags.out).clear()
                if flags.orbax:
                    writing.add_orbax(folder, one.name)
        left = sum(map(len, missing.values()))
        print(
            f"{left} models to train, {len(folder.entries)} in {flags.out}", flush=True
        )
        with Progress(left) as progress:
            for arch, group in missing.items():
                spec = _spec(flags, arch, train)
                zoo = writing.Zoo(
                    folder, spec, train, test, flags.recipe, flags.bar, flags.orbax
                )
                told = dataclasses.replace(
                    runs[arch], report=functools.partial(progress.report, arch)
                )
                for trained in trainer.train_population(told, group):
                    progress.finish(writing.summary(writing.save(zoo, trained)))
    print(folder.summarise(), end="")
    return folder.entries


def _attack(flags: TrainFlags, name: str) -> attacks.Attack:
    """An attack with the settings it was given.

    Raises:
      ValueError: for an unknown attack, and for a number that its settings do not allow.
    """
    kind: Any = attacks.ATTACKS[name]
    return settings.chosen(flags, name, kind) if name in SETTINGS else kind()


def _wanted(flags: TrainFlags) -> plan.Wanted:
    """What of the flags decides which models there are."""
    given = {
        field.name: getattr(flags, field.name)
        for field in dataclasses.fields(plan.Wanted)
    }
    chosen = {name: _attack(flags, name) for name in flags.attacks}
    return plan.Wanted(**{**given, "attacks": chosen})


def _runs(
    flags: TrainFlags, train: data.Dataset, test: data.Dataset
) -> dict[str, trainer.Run]:
    """How the models of each architecture are trained.

    Raises:
      ValueError: for an unknown architecture, images too small for one, and a model to
        start from that is of another kind.
    """
    runs = {}
    for arch in flags.arch:
        spec = _spec(flags, arch, train)
        module = spec.create(
            lowering=tables.default(flags.precision), precision=flags.precision
        )
        models.abstract_variables(module, min(train.image_shape[:2]))
        runs[arch] = trainer.Run(
            module=module,
            train=train,
            test=test,
            recipe=flags.recipe,
            normalisation=_normalisation(flags.normalisation, train),
            begin=_start(flags.start_from, spec) if flags.start_from else None,
            chunk=flags.chunk,
            folder=flags.out,
            save_seconds=60 * flags.save_minutes,
        )
    return runs


def _spec(flags: TrainFlags, arch: str, train: data.Dataset) -> checkpoints.ModelSpec:
    return checkpoints.ModelSpec.for_images(
        arch, train.num_classes, flags.width, train.image_shape
    )


def _start(path: str, spec: checkpoints.ModelSpec) -> trainer.Start:
    """The model that others go on from.

    Raises:
      CheckpointError: when it cannot be read.
      ValueError: when it is another network.
    """
    found = checkpoints.read(path)
    known = found.spec.create()
    # Weights do not say with which of these they were made.
    if spec.stem in known.alike:
        known = dataclasses.replace(found.spec, stem=spec.stem).create()
    if known != spec.create():  # a network may have two names
        raise ValueError(
            f"--start-from {path}: this is {_told(found.spec)}, the models to train are "
            f"{_told(spec)}"
        )
    return trainer.Start(found.sha256, found.variables)


def _told(spec: checkpoints.ModelSpec) -> str:
    return (
        f"{spec.architecture} of width {spec.width} with {spec.num_classes} classes and "
        f"{spec.in_channels} channels"
    )


def _load(flags: TrainFlags) -> tuple[data.Dataset, data.Dataset]:
    train, test = (
        data.load(
            flags.data,
            data_dir=flags.data_dir,
            split=split,
            num=num,
            image_size=flags.image_size,
        )
        for split, num in (("attacker", flags.num_train), ("test", flags.num_test))
    )
    return data.together(train, test)


def _normalisation(name: str, train: data.Dataset) -> data.Constants:
    channels = train.image_shape[2]
    if name != "auto":
        return normalisations.parse_normalisation(name, channels)
    known = normalisations.NORMALISATIONS.get(train.name)
    if channels == 3 and known:
        return next(iter(known.values()))
    return data.pixel_constants(train)
