"""Training as a library: models of one kind, side by side."""

from collections.abc import Iterator, Mapping
from typing import Any

from ban_jax import attacks, checkpoints, data
from ban_jax.convolution import tables
from ban_jax.training import one_model, plan, trainer


def train(
    images: data.Dataset,
    test: data.Dataset,
    *,
    architecture: str = "resnet18",
    width: int = 16,
    attack: str = "clean",
    target: int | None = 0,
    models: int = 1,
    first_seed: int = 0,
    attack_settings: Mapping[str, Any] | None = None,
    normalisation: data.Constants | None = None,
    folder: str | None = None,
    chunk: int | None = None,
    **recipe: Any,
) -> Iterator[trainer.Trained]:
    """Trains models of one kind side by side, clean or backdoored.

    Args:
      images: what they learn from, as `ban_jax.data.load` gives it.
      test: what they are measured on.
      architecture: its name, see `ban_jax.models`.
      width: channels of the first convolution.
      attack: its name, see `ban_jax.attacks`; `clean` for none.
      target: the attacked class; None for all to all.
      models: how many.
      first_seed: the first of their seeds.
      attack_settings: of the attack, such as `{"size": 4}`.
      normalisation: mean and deviation the models carry; None: of the images.
      folder: receives saves that a killed run goes on from; None: no saves.
      chunk: models side by side on each device; None: chosen for the device.
      recipe: of the optimiser, such as `epochs=10`; see `training.one_model.Recipe`.

    Yields:
      Each model with its variables, trigger and measured accuracy and attack success.

    Raises:
      ValueError: for what does not fit together, before anything is trained.
    """
    images, test = data.together(images, test)
    chosen = one_model.Recipe(**recipe)
    chosen.check()
    spec = checkpoints.ModelSpec.for_images(
        architecture, images.num_classes, width, images.image_shape
    )
    plans = plan.plan_models(
        plan.Wanted(
            attacks={attack: attacks.create(attack, **attack_settings or {})},
            targets=() if target is None else (target,),
            arch=(architecture,),
            width=width,
            seeds=models,
            first_seed=first_seed,
            poison_mode="all_to_all" if target is None else "all_to_one",
        ),
        images.num_classes,
    )
    run = trainer.Run(
        module=spec.create(lowering=tables.default()),
        train=images,
        test=test,
        recipe=chosen,
        normalisation=normalisation or data.pixel_constants(images),
        chunk=chunk,
        folder=folder,
    )
    yield from trainer.train_population(run, plans[architecture])
