"""Writes tests/models/testdata/mobile.npz: logits of torchvision's and timm's networks.

Needs torch, torchvision and timm: `python -m tests.models.make_mobile_goldens`.
"""

import torch
from torch import nn

from tests.models import golden_torch, parity

# Behind the operators they need.
import timm  # isort: skip
from torchvision import models  # isort: skip

CLASSES = 5


class CifarBlock(nn.Module):
    """kuangliu's pytorch-cifar: a convolution in the shortcut without a stride."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        planes = expansion * inputs
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, groups=planes, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return y + self.shortcut(x) if self.stride == 1 else y


class CifarNet(nn.Module):
    """kuangliu's MobileNetV2 with a quarter of the channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        stages = [
            (1, 8, 1, 1),
            (6, 8, 2, 1),
            (6, 16, 3, 2),
            (6, 16, 4, 2),
            (6, 24, 3, 1),
            (6, 40, 3, 2),
            (6, 80, 1, 1),
        ]
        blocks, inputs = [], 8
        for expansion, outputs, count, stride in stages:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(CifarBlock(inputs, outputs, expansion, step))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(80, 96, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(96)
        self.linear = nn.Linear(96, CLASSES)

    def forward(self, x):
        x = self.layers(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def efficientnet(scale: float, depth: float) -> nn.Module:
    """torchvision's with channels and depth scaled."""
    from torchvision.models import efficientnet as theirs

    settings, last = theirs._efficientnet_conf(
        "efficientnet_b0", width_mult=scale, depth_mult=depth
    )
    return theirs.EfficientNet(settings, 0.0, last_channel=last, num_classes=CLASSES)


def timm_net(name: str, **more) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **more)


CASES = {
    "torchvision_mobilenet_v2": lambda: models.mobilenet_v2(
        width_mult=0.25, num_classes=CLASSES
    ),
    "timm_mobilenet_v2": lambda: timm_net("mobilenetv2_035"),
    "kuangliu_mobilenet_v2": CifarNet,
    "torchvision_mobilenet_v3_small": lambda: models.mobilenet_v3_small(
        width_mult=0.25, num_classes=CLASSES
    ),
    "torchvision_mobilenet_v3_large": lambda: models.mobilenet_v3_large(
        width_mult=0.25, num_classes=CLASSES
    ),
    "timm_mobilenet_v3_small": lambda: timm_net("mobilenetv3_small_050"),
    "tf_mobilenet_v3_small": lambda: timm_net("tf_mobilenetv3_small_075"),
    "timm_mobilenet_v3_large": lambda: timm_net("mobilenetv3_large_075"),
    "torchvision_efficientnet_b0": lambda: efficientnet(0.25, 1.0),
    "timm_efficientnet_b0": lambda: timm_net("efficientnet_b0"),
    "tf_efficientnet_b0": lambda: timm_net("tf_efficientnet_b0"),
    "torchvision_efficientnet_b3": lambda: efficientnet(0.3, 1.4),
}


def main() -> None:
    golden_torch.write(
        parity.FOLDER / "mobile.npz",
        CASES,
        lambda name: 32 if name.startswith("kuangliu") else 64,
    )


if __name__ == "__main__":
    main()
