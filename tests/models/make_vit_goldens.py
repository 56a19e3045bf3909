"""Writes tests/models/testdata/vit.npz: logits of networks of image patches.

Needs torch, torchvision, timm and transformers:
`python -m tests.models.make_vit_goldens`.
"""

from torch import nn

from tests.models import golden_torch, parity

# Behind the operators they need.
import timm  # isort: skip
import transformers  # isort: skip
from timm.models import deit, mlp_mixer, vision_transformer  # isort: skip
from torchvision import models  # isort: skip

CLASSES = 5
SIZE = 16
PATCH = 4
SMALL = {
    "img_size": SIZE,
    "patch_size": PATCH,
    "embed_dim": 16,
    "depth": 2,
    "num_classes": CLASSES,
}


def vit(**more) -> nn.Module:
    """timm's, of four heads."""
    return vision_transformer.VisionTransformer(**SMALL, num_heads=4, **more)


def transformer(kind: str, base: str) -> nn.Module:
    """Hugging Face's."""
    config = getattr(transformers, f"{base}Config")(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=SIZE,
        patch_size=PATCH,
        num_labels=CLASSES,
    )
    return golden_torch.Logits(getattr(transformers, kind)(config))


CASES = {
    "torchvision_vit": lambda: models.VisionTransformer(
        SIZE, PATCH, 2, 2, 16, 24, num_classes=CLASSES
    ),
    "timm_vit": vit,
    "averaged_vit": lambda: vit(global_pool="avg", mlp_ratio=2),
    "classless_vit": lambda: vit(
        class_token=False, global_pool="avg", fc_norm=False, init_values=0.1
    ),
    "unplaced_vit": lambda: vit(no_embed_class=True),
    "distilled_vit": lambda: deit.VisionTransformerDistilled(**SMALL, num_heads=1),
    "transformers_vit": lambda: transformer("ViTForImageClassification", "ViT"),
    "transformers_deit_vit": lambda: transformer(
        "DeiTForImageClassificationWithTeacher", "DeiT"
    ),
    "timm_mlp_mixer": lambda: mlp_mixer.MlpMixer(
        num_classes=CLASSES,
        img_size=SIZE,
        patch_size=PATCH,
        embed_dim=16,
        num_blocks=2,
        mlp_ratio=(0.75, 3.0),
    ),
}


def main() -> None:
    assert timm.__version__ and transformers.__version__
    golden_torch.write(parity.FOLDER / "vit.npz", CASES, lambda name: SIZE)


if __name__ == "__main__":
    main()
