"""What a checkpoint turns into."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ban_jax import models


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build the network a checkpoint belongs to.

    Attributes:
      architecture: a name known to `models.create`.
      num_classes: K, from the shape of the last layer.
      width: channels of the first convolution.
      in_channels: C of the images.
      stem: `cifar` (3x3, no pooling) or `imagenet` (7x7 and max pooling).
      further: other arguments of a registered architecture's constructor, hashable.
    """

    architecture: str
    num_classes: int
    width: int
    in_channels: int = 3
    stem: str = "cifar"
    further: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, architecture: str, **fields: Any) -> "ModelSpec":
        """The network that `models.create` builds from these fields.

        Raises:
          ValueError: for fields the architecture does not take.
        """
        try:
            module = models.create(architecture, **fields)
        except TypeError as error:
            raise ValueError(f"{architecture} takes no such sizes: {error}") from error
        named = {
            field: getattr(module, field)
            for field in ("num_classes", "width", "in_channels", "stem")
        }
        further = sorted((k, v) for k, v in fields.items() if k not in named)
        return cls(architecture, **named, further=tuple(further))

    @classmethod
    def for_images(
        cls, architecture: str, num_classes: int, width: int, shape: tuple[int, ...]
    ) -> "ModelSpec":
        """The network to be trained on images of a shape `(H, W, C)`.

        Raises:
          ValueError: for an unknown architecture, or sizes that it does not take.
        """
        return cls.of(
            architecture,
            num_classes=num_classes,
            width=width,
            in_channels=shape[2],
            **models.fields_for(architecture, min(shape[:2])),
        )

    def create(self, **fields: Any) -> models.Classifier:
        """The Linen module; `fields` are passed on to `models.create`."""
        if self.stem != "cifar":
            fields["stem"] = self.stem
        return models.create(
            self.architecture,
            num_classes=self.num_classes,
            width=self.width,
            in_channels=self.in_channels,
            **{**dict(self.further), **fields},
        )


@dataclasses.dataclass(frozen=True)
class Names:
    """What a file called its tensors: enough to write it back under its own names.

    Attributes:
      container: path of the state dict inside the file, such as `netC`; empty if bare.
      keys: pairs of our name (`params/linear/kernel`) and the file's.
      counters: the file's `num_batches_tracked` entries, which the model does not use.
    """

    container: str
    keys: tuple[tuple[str, str], ...]
    counters: tuple[tuple[str, int], ...] = ()

    @property
    def is_torch(self) -> bool:
        """Whether the file has PyTorch's layout, rather than Flax's."""
        return not any(ours == theirs for ours, theirs in self.keys)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One checkpoint under suspicion.

    Attributes:
      path: as it was given.
      sha256: `weights_hash` of the variables; independent of the file format.
      spec: the network.
      variables: nested dicts `params` and `batch_stats`, float32 NumPy leaves.
      normalisation: mean and std per channel, if the file or its neighbours say so.
      normalisation_source: where they were found.
      recorded_accuracy: clean accuracy in [0, 1] that the file claims, if any.
      names: the file's own names.
      notes: what a reader of the verdict should know about the file.
      calls: what the file asks to have called when it is loaded by pickle, apart from
        what every checkpoint asks for, such as `os.system`.
      part_of: path of the file, where that holds several classifiers and this is one of
        them; then `path` is as `part_paths` says. Empty where it is the only one.
    """

    path: str
    sha256: str
    spec: ModelSpec
    variables: Mapping[str, Mapping[str, Any]]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    normalisation_source: str | None
    recorded_accuracy: float | None
    names: Names
    notes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    part_of: str = ""

    def full_variables(
        self, normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    ) -> dict[str, Any]:
        """`variables` with the `normalisation` collection; none known is identity."""
        channels = self.spec.in_channels
        mean, std = normalisation or self.normalisation or ((0.0,), (1.0,))
        return {
            **self.variables,
            "normalisation": {
                "mean": np.full(channels, mean, np.float32),
                "std": np.full(channels, std, np.float32),
            },
        }
