"""Writes tests/models/testdata/hugging_face.npz: logits of Hugging Face's networks.

Needs torch and transformers: `python -m tests.models.make_hugging_face_goldens`. Those of
image patches are in `make_vit_goldens`.
"""

from torch import nn

from tests.models import golden_torch, parity

# Behind the operators they need.
import transformers  # isort: skip

CLASSES = 5


def net(kind: str, **sizes) -> nn.Module:
    """A small one of its kind."""
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **sizes)
    make = getattr(transformers, f"{kind}ForImageClassification")
    return golden_torch.Logits(make(config))


CASES = {
    "resnet18": lambda: net(
        "ResNet",
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    ),
    "resnet50": lambda: net(
        "ResNet", embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3]
    ),
    "mobilenet_v2": lambda: net("MobileNetV2", depth_multiplier=0.35),
    "efficientnet_b0": lambda: net(
        "EfficientNet",
        width_coefficient=0.5,
        depth_coefficient=1.0,
        hidden_dim=640,
        image_size=64,
    ),
    "convnext": lambda: net(
        "ConvNext", hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 2, 1]
    ),
}


def main() -> None:
    golden_torch.write(parity.FOLDER / "hugging_face.npz", CASES, lambda name: 64)


if __name__ == "__main__":
    main()
