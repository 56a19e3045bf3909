"""Writes tests/models/testdata/convnext.npz: logits of torchvision's and timm's networks.

Needs torch, torchvision and timm: `python -m tests.models.make_convnext_goldens`.
"""

from torch import nn

from tests.models import golden_torch, parity

# Behind the operators they need.
import timm  # isort: skip
from torchvision.models import convnext  # isort: skip

CLASSES = 5
WIDTHS = (8, 16, 32, 64)


def torchvision_net(depths: tuple[int, ...]) -> nn.Module:
    """torchvision's with few channels."""
    settings = [
        convnext.CNBlockConfig(width, after, depth)
        for width, after, depth in zip(WIDTHS, (*WIDTHS[1:], None), depths, strict=True)
    ]
    return convnext.ConvNeXt(settings, num_classes=CLASSES)


CASES = {
    "torchvision_convnext_tiny": lambda: torchvision_net((3, 3, 9, 3)),
    "timm_convnext": lambda: timm.create_model(
        "convnext_tiny", depths=(1, 1, 2, 1), dims=WIDTHS, num_classes=CLASSES
    ),
}


def main() -> None:
    golden_torch.write(parity.FOLDER / "convnext.npz", CASES, lambda name: 32)


if __name__ == "__main__":
    main()
