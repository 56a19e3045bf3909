"""Writes tests/data/testdata/preparation.npz: images as torchvision prepares them.

Needs torch and torchvision: `python -m tests.data.make_preparation_goldens`. timm's
evaluation has the same two transforms, the shorter side being `floor(size / crop_pct)`.
"""

import math
import pathlib

import numpy as np
from PIL import Image

from tests.models import golden_torch  # declares the operators torchvision needs

from torchvision import transforms  # isort: skip

CASES = {
    "wide": (40, 53, 24, 0.875, "bilinear"),
    "tall": (61, 37, 21, 0.95, "bicubic"),
    "smaller": (9, 8, 16, 0.875, "bilinear"),
    "whole": (30, 41, 12, 1.0, "lanczos"),
    "squeezed": (30, 41, 14, 0.875, "bicubic"),
}
"""Height, width, size, share kept, filter; `squeezed` as timm's `crop_mode` squash."""
PATH = pathlib.Path(__file__).parent / "testdata" / "preparation.npz"


def main() -> None:
    assert golden_torch.BATCH
    arrays = {}
    for name, (height, width, size, kept, kind) in CASES.items():
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        short = math.floor(size / kept)
        sides = (short, short) if name == "squeezed" else short
        transform = transforms.Compose(
            [
                transforms.Resize(sides, transforms.InterpolationMode(kind)),
                transforms.CenterCrop(size),
            ]
        )
        arrays[f"{name}/image"] = image
        arrays[f"{name}/how"] = np.array([str(size), str(kept), kind])
        arrays[f"{name}/prepared"] = np.asarray(transform(Image.fromarray(image)))
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
