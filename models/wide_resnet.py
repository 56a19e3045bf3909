"""Wide ResNets WRN-d-k (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016).

Three stages of pre-activation blocks of 16 k, 32 k and 64 k channels at width 16; features
are the last stage after the final normalisation and its ReLU. Files have the names of
xternalman's WideResNet-pytorch (`block1.layer.0.convShortcut`).
"""

import re
from collections.abc import Collection, Mapping

import jax

from ban_jax.models import architecture, common
from ban_jax.models.preact_resnet import PreActBlock
from ban_jax.types import Array, NormMode

STAGES = 3


class WideResNet(common.Classifier):
    """d = 6 `blocks` + 4 layers, k = `factor`.

    Attributes:
      blocks: per stage.
      factor: channels of the stages, in units of the width, twice and four times it.
    """

    width: int = 16
    blocks: int = 4
    factor: int = 1

    def setup(self) -> None:
        super().setup()
        self.conv1 = self.make_conv(self.width)
        for index in range(STAGES):
            filters = self.width * self.factor * 2**index
            projects = index > 0 or self.factor > 1
            first = PreActBlock(filters, 1 + (index > 0), projects, self.make_conv)
            rest = [
                PreActBlock(filters, 1, False, self.make_conv)
                for _ in range(self.blocks - 1)
            ]
            setattr(self, f"layer{index + 1}", [first, *rest])
        self.bn1 = common.Norm()
        self.linear = common.Linear(self.num_classes)

    def features(self, images: Array, mode: NormMode) -> Array:
        x = self.conv1(self.normalise(images))
        for index in range(STAGES):
            for block in getattr(self, f"layer{index + 1}"):
                x = block(x, mode)
        return common.widened(jax.nn.relu(self.bn1(x, mode)))

    def head(self, features: Array, mode: NormMode) -> Array:
        return self.linear(common.global_average(features))


_NAMES = (
    (r"^block(\d)\.layer\.", r"layer\1."),
    (r"\.convShortcut\.", ".shortcut.0."),
    (r"^fc\.", "linear."),
)
"""Parts of names, and what they are called here."""


def rename(names: Collection[str]) -> Mapping[str, str]:
    """See `Architecture.rename`; names of another program stay."""
    if not any(name.startswith("block1.layer.") for name in names):
        return {name: name for name in names}

    def renamed(name: str) -> str:
        for theirs, ours in _NAMES:
            name = re.sub(theirs, ours, name)
        return name

    return {name: renamed(name) for name in names}


def _blocks(shapes: architecture.Shapes) -> list[int]:
    """Blocks of each stage."""
    stages: dict[int, int] = {}
    for name in shapes:
        if match := re.match(r"layer(\d)\.(\d+)\.conv1\.weight$", name):
            stage, index = int(match[1]), int(match[2])
            stages[stage] = max(stages.get(stage, 0), index + 1)
    return list(stages.values())


def difference(shapes: architecture.Shapes) -> str | None:
    """See `Architecture.difference`."""
    stem, last = shapes.get("conv1.weight", ()), shapes.get("bn1.weight", ())
    # A ResNet's one stands behind the stem, and has its channels.
    is_wide = len(stem) == 4 and len(last) == 1 and last != stem[:1]
    return None if is_wide and len(_blocks(shapes)) == STAGES else ""


def fields(shapes: architecture.Shapes) -> architecture.Fields:
    """See `Architecture.fields`."""
    sizes = architecture.sizes(shapes, stem="conv1", head="linear")
    blocks = set(_blocks(shapes))
    wide = shapes.get("layer1.0.conv1.weight", ())
    if len(blocks) != 1 or len(wide) != 4:
        raise ValueError(f"stages of {_blocks(shapes)} blocks; expected three alike")
    return {**sizes, "blocks": blocks.pop(), "factor": wide[0] // sizes["width"]}


FAMILY = {
    "wide_resnet": architecture.Architecture(WideResNet, difference, fields, rename)
}
