"""Writes tests/models/testdata/plain.npz: logits of networks as tutorials have them.

Needs torch and torchvision: `python -m tests.models.make_plain_goldens`.
"""

from torch import nn

from tests.models import golden_torch, parity

CLASSES = 5
SIZE = 16


class Named(nn.Module):
    """As PyTorch's tutorial on CIFAR-10: no padding, pooling behind each, three layers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.fc1 = nn.Linear(6 * 2 * 2, 12)
        self.fc2 = nn.Linear(12, 8)
        self.fc3 = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu()).flatten(1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class Normalised(nn.Module):
    """Blocks of convolution and normalisation, strides, one layer behind a mean."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.out(self.bn2(self.conv2(x)).relu().mean((2, 3)))


def sequential() -> nn.Module:
    """Pairs of convolutions, one list of all layers, ten and more."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 4), (4, 4), (4, 6), (6, 6)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        if len(layers) % 7 == 6:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 10),
        nn.ReLU(),
        nn.Linear(10, CLASSES),
    )


CASES = {"named": Named, "normalised": Normalised, "sequential": sequential}

if __name__ == "__main__":
    golden_torch.write(parity.FOLDER / "plain.npz", CASES, lambda name: SIZE)
