"""Writes testdata/classical.npz: logits of torchvision's, timm's and CIFAR networks.

Needs torch, torchvision and timm: `python -m tests.models.make_classical_goldens`. The
networks are torchvision's and timm's with fewer channels.
"""

import torch
from torch import nn
from torch.nn import functional

from tests.models import golden_torch, parity

# Behind the operators they need.
from timm import layers as timm_layers  # isort: skip
from timm.models import densenet as timm_densenet  # isort: skip
from timm.models import resnet as timm_resnet  # isort: skip
from timm.models import vgg as timm_vgg  # isort: skip
from torchvision.models import densenet, resnet, vgg  # isort: skip

CLASSES = 5


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with one `less`-th of its channels."""

    less = 8

    def __init__(self, blocks, block=resnet.Bottleneck, less=8, **more):
        self.less = less
        super().__init__(block, blocks, num_classes=CLASSES, **more)
        width = 64 // less
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = self._norm_layer(width)
        self.fc = nn.Linear(8 * width * block.expansion, CLASSES)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:
            self.inplanes = 64 // self.less
        return super()._make_layer(block, planes // self.less, blocks, stride, dilate)


def narrow_timm_resnet(blocks, block=timm_resnet.Bottleneck, less=8, **more):
    """timm's ResNet with one `less`-th of its channels, whose stem has 64 in any case."""
    channels = tuple(64 // less * factor for factor in (1, 2, 4, 8))
    net = timm_resnet.ResNet(block, blocks, CLASSES, channels=channels, **more)
    width, first = channels[0], net.layer1[0]
    net.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    old = first.conv1
    first.conv1 = nn.Conv2d(
        width, old.out_channels, old.kernel_size, 1, old.padding, bias=False
    )
    if block.expansion == 1:
        first.downsample = None
    else:
        first.downsample[0] = nn.Conv2d(width, width * block.expansion, 1, bias=False)
    return net


def narrow_timm_vgg(letter: str, normalised: bool) -> nn.Module:
    """timm's VGG with the channels and hidden units of `NarrowVGG`."""
    plan = [x if x == "M" else x // 16 for x in vgg.cfgs[letter]]
    norm = nn.BatchNorm2d if normalised else None
    net = timm_vgg.VGG(plan, CLASSES, norm_layer=norm)
    net.pre_logits = timm_vgg.ConvMlp(32, 16, 7, drop_rate=0.0)
    net.head = timm_layers.ClassifierHead(16, CLASSES)
    return net


class NarrowVGG(nn.Module):
    """torchvision's VGG with 4 channels for 64 and 16 hidden units for 4,096."""

    def __init__(self, letter: str, normalised: bool):
        super().__init__()
        plan = [x if x == "M" else x // 16 for x in vgg.cfgs[letter]]
        self.features = vgg.make_layers(plan, batch_norm=normalised)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(32 * 49, 16),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(16, CLASSES),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class CifarBlock(nn.Module):
    """Section 4.2 of the paper: shortcuts of option A have no weights."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.more, self.stride = planes - inputs, stride

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.more // 2, self.more // 2))
        return torch.relu(x + y)


class CifarResNet20(nn.Module):
    """ResNet20 with 4 channels for 16."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        inputs = 4
        for index, planes in enumerate((4, 8, 16), 1):
            blocks = []
            for place in range(3):
                stride = 2 if index > 1 and place == 0 else 1
                blocks.append(CifarBlock(inputs, planes, stride))
                inputs = planes
            setattr(self, f"layer{index}", nn.Sequential(*blocks))
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Pre-activation block under the names of xternalman's WideResNet-pytorch."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.convShortcut = None
        if inputs != planes:
            self.convShortcut = nn.Conv2d(inputs, planes, 1, stride, bias=False)

    def forward(self, x):
        active = torch.relu(self.bn1(x))
        y = self.conv2(torch.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideResNet(nn.Module):
    """WRN-10-2 with 4 channels for 16."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        inputs = 4
        for index, planes in enumerate((8, 16, 32), 1):
            block = nn.Module()
            stride = 1 if index == 1 else 2
            block.layer = nn.Sequential(WideBlock(inputs, planes, stride))
            inputs = planes
            setattr(self, f"block{index}", block)
        self.bn1 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        return self.fc(torch.relu(self.bn1(x)).mean((2, 3)))


CASES = {
    "torchvision_resnet50": lambda: NarrowResNet([3, 4, 6, 3]),
    "torchvision_resnet34": lambda: NarrowResNet([3, 4, 6, 3], resnet.BasicBlock),
    "torchvision_wide_resnet50_2": lambda: NarrowResNet(
        [3, 4, 6, 3], width_per_group=128
    ),
    "torchvision_resnext50_32x4d": lambda: NarrowResNet(
        [3, 4, 6, 3], less=2, groups=32, width_per_group=4
    ),
    "cifar_resnet20": CifarResNet20,
    "xternalman_wide_resnet": WideResNet,
    "torchvision_vgg11": lambda: NarrowVGG("A", True),
    "torchvision_vgg13_plain": lambda: NarrowVGG("B", False),
    "torchvision_vgg19": lambda: NarrowVGG("E", True),
    "torchvision_densenet121": lambda: densenet.DenseNet(
        4, (6, 12, 24, 16), 8, num_classes=CLASSES
    ),
    "torchvision_resnet18": lambda: NarrowResNet(
        [2, 2, 2, 2],
        resnet.BasicBlock,
        norm_layer=lambda channels: nn.GroupNorm(8, channels),
    ),
    "timm_resnet50": lambda: narrow_timm_resnet((3, 4, 6, 3)),
    "timm_resnet34": lambda: narrow_timm_resnet((3, 4, 6, 3), timm_resnet.BasicBlock),
    "timm_wide_resnet50_2": lambda: narrow_timm_resnet((3, 4, 6, 3), base_width=128),
    "timm_resnext50_32x4d": lambda: narrow_timm_resnet(
        (3, 4, 6, 3), less=2, cardinality=32, base_width=4
    ),
    "timm_vgg13_plain": lambda: narrow_timm_vgg("B", False),
    "timm_vgg19": lambda: narrow_timm_vgg("E", True),
    "timm_densenet121": lambda: timm_densenet.DenseNet(4, num_classes=CLASSES),
}


def main() -> None:
    golden_torch.write(
        parity.FOLDER / "classical.npz",
        CASES,
        lambda name: 64 if name.startswith(("torchvision", "timm")) else 16,
    )


if __name__ == "__main__":
    main()
