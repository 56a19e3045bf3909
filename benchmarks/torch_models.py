"""PyTorch counterparts of `ban_jax.models`: a yardstick the product never imports.

CIFAR-style ResNet18/34, PreActResNet18, VGG16-BN and DenseNet121 with a width factor
and the parameter names that published checkpoints of the BAN, BTI-DBF and BackdoorBench
code carry, so one state dict loads here, there, and after conversion in `ban_jax`.

Networks take `[B, C, H, W]` normalised inputs (`normalise` makes them from
`[B, H, W, C]` pixels) and are cut into `to_features` and `to_logits`, where the mask
goes. Their normalisation layers multiply scale and bias by `1 + delta` and `1 + xi`
once `set_noise_enabled` says so. The factors are no parameters: state dicts stay plain.

Checked against the networks of xiaoyunxxy/ban 8a0f918 at width 64 (ResNet18, VGG16 and
DenseNet121; torch 2.13.0, CPU): the same state dict names, and bit-equal features,
logits and moved statistics, in eval and train mode, noise off and on. PreActResNet18 is
not part of that code; it follows the description of BackdoorBench's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)


def normalise(
    pixels: torch.Tensor,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> torch.Tensor:
    """`[B, H, W, C]` pixels in [0, 1] -> `[B, C, H, W]` inputs."""
    images = pixels.permute(0, 3, 1, 2).contiguous()
    shape = (1, len(mean), 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(
        shape
    )


class NoisyBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose scale and bias can carry multiplicative noise.

    Attributes:
      delta: `[C]` noise on the scale, used while `noise_enabled`.
      xi: `[C]` noise on the bias.
      update_statistics: whether train mode moves the stored statistics; without, it
        normalises with those of the batch and leaves no trace.
    """

    delta: torch.Tensor
    xi: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.1)
        self.register_buffer("delta", torch.zeros(channels), persistent=False)
        self.register_buffer("xi", torch.zeros(channels), persistent=False)
        self.noise_enabled = False
        self.update_statistics = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = self.weight
        bias: torch.Tensor = self.bias
        if self.noise_enabled:
            scale, bias = scale * (1 + self.delta), bias * (1 + self.xi)
        stored = not self.training or self.update_statistics
        return functional.batch_norm(
            x,
            self.running_mean if stored else None,
            self.running_var if stored else None,
            scale,
            bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


def norms(model: nn.Module) -> Iterator[tuple[str, NoisyBatchNorm]]:
    """Name and module of every normalisation layer, in order of registration."""
    for name, module in model.named_modules():
        if isinstance(module, NoisyBatchNorm):
            yield name, module


def set_noise_enabled(model: nn.Module, enabled: bool) -> None:
    for _, norm in norms(model):
        norm.noise_enabled = enabled


def set_update_statistics(model: nn.Module, update: bool) -> None:
    for _, norm in norms(model):
        norm.update_statistics = update


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the stored statistics, by state dict name."""
    return {
        f"{name}.{kind}": getattr(norm, kind).detach().clone()
        for name, norm in norms(model)
        for kind in ("running_mean", "running_var")
    }


class Classifier(nn.Module):
    """What every network offers: `to_logits(to_features(x))`."""

    def to_features(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def to_logits(self, features: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.to_logits(self.to_features(x))


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _pool(features: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(features, 1).flatten(1)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = NoisyBatchNorm(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.bn2 = NoisyBatchNorm(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(_conv(inputs, outputs, 1, stride))
            self.shortcut.append(NoisyBatchNorm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = NoisyBatchNorm(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = NoisyBatchNorm(outputs)
        self.conv2 = _conv(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.bn1(x))
        # The projection reads the activated input, the identity the raw one.
        kept = self.shortcut(active) if hasattr(self, "shortcut") else x
        return self.conv2(functional.relu(self.bn2(self.conv1(active)))) + kept


class ResNet(Classifier):
    """Four stages of blocks; `preact` leaves out the norm after the first conv."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        depths: Sequence[int],
        num_classes: int,
        width: int,
        in_channels: int,
        preact: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width)
        if not preact:
            self.bn1 = NoisyBatchNorm(width)
        channels = width
        for stage, depth in enumerate(depths):
            blocks = nn.Sequential()
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage
            self.add_module(f"layer{stage + 1}", blocks)
        self.linear = nn.Linear(channels, num_classes)

    def to_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        if hasattr(self, "bn1"):
            x = functional.relu(self.bn1(x))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x

    def to_logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(_pool(features))


class VGG(Classifier):
    """VGG16 with normalisation; its `features` are the state dict's layers."""

    STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))

    def __init__(self, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = in_channels
        for stage in self.STAGES:
            for factor in stage:
                self.features.append(nn.Conv2d(channels, factor * width, 3, padding=1))
                self.features.append(NoisyBatchNorm(factor * width))
                self.features.append(nn.ReLU(inplace=True))
                channels = factor * width
            self.features.append(nn.MaxPool2d(2))
        self.classifier = nn.Linear(channels, num_classes)

    def to_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)

    def to_logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(_pool(features))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = NoisyBatchNorm(inputs)
        self.conv1 = _conv(inputs, 4 * growth, 1)
        self.bn2 = NoisyBatchNorm(4 * growth)
        self.conv2 = _conv(4 * growth, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        return torch.cat([y, x], 1)  # new channels first, as the checkpoints have it


class Transition(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn = NoisyBatchNorm(inputs)
        self.conv = _conv(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x))), 2)


class DenseNet(Classifier):
    """DenseNet121: growth is half the width; the last norm belongs to the head."""

    DEPTHS = (6, 12, 24, 16)
    dense1: nn.Sequential
    dense2: nn.Sequential
    dense3: nn.Sequential
    dense4: nn.Sequential
    trans1: Transition
    trans2: Transition
    trans3: Transition

    def __init__(self, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        growth = width // 2
        channels = 2 * growth
        self.conv1 = _conv(in_channels, channels)
        for stage, depth in enumerate(self.DEPTHS, start=1):
            layers = nn.Sequential()
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            self.add_module(f"dense{stage}", layers)
            if stage < len(self.DEPTHS):
                halved = math.floor(channels * 0.5)
                self.add_module(f"trans{stage}", Transition(channels, halved))
                channels = halved
        self.bn = NoisyBatchNorm(channels)
        self.linear = nn.Linear(channels, num_classes)

    def to_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.trans2(self.dense2(x))
        return self.dense4(self.trans3(self.dense3(x)))

    def to_logits(self, features: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.bn(features))
        # The released kernel: at 4x4 the adaptive one rounds differently.
        return self.linear(functional.avg_pool2d(active, active.shape[2:]).flatten(1))


NAMES = ("resnet18", "resnet34", "preact_resnet18", "vgg16", "densenet121")


def create(
    name: str, *, num_classes: int = 10, width: int = 64, in_channels: int = 3
) -> Classifier:
    """A network by its `ban_jax.models` name, with PyTorch's default weights."""
    if name == "resnet18":
        return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, width, in_channels)
    if name == "resnet34":
        return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, width, in_channels)
    if name == "preact_resnet18":
        return ResNet(PreActBlock, (2, 2, 2, 2), num_classes, width, in_channels, True)
    if name == "vgg16":
        return VGG(num_classes, width, in_channels)
    if name == "densenet121":
        return DenseNet(num_classes, width, in_channels)
    raise ValueError(f"unknown architecture {name!r}; known: {', '.join(NAMES)}")


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Loads a state dict strictly, batch counters and noise buffers of others apart."""
    foreign = ("num_batches_tracked", "neuron_noise", "neuron_noise_bias")
    own = {k: v for k, v in model.state_dict().items() if k.endswith(foreign)}
    kept = {k: v for k, v in weights.items() if not k.endswith(foreign)}
    model.load_state_dict({**own, **kept})
