"""Writes golden files of `parity`; needs torch and torchvision."""

import json
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from tests.models import drawn

BATCH = 4
_OPERATORS = torch.library.Library("torchvision", "DEF")
"""torchvision's C++ part, which nothing here needs, would declare them."""
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float threshold) -> Tensor")


class Logits(nn.Module):
    """A network of Hugging Face's, under its names, that gives its logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        for name, module in model.named_children():
            self.add_module(name, module)
        self.run = [model]

    def forward(self, images):
        return self.run[0](images).logits


def write(
    path: pathlib.Path,
    cases: Mapping[str, Callable[[], nn.Module]],
    size: Callable[[str], int],
) -> None:
    """The logits of all networks under drawn weights.

    Args:
      path: of the file.
      cases: name -> makes the network.
      size: name -> pixels a side of its images.
    """
    arrays: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(0)
    for name, make in cases.items():
        images = generator.integers(0, 256, (BATCH, 8, 8, 3), dtype=np.uint8)
        model = make().float()
        shapes = {
            key: tuple(value.shape)
            for key, value in model.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        state = {k: torch.from_numpy(v) for k, v in drawn.state(shapes).items()}
        pixels = torch.from_numpy(drawn.pixels(images, size(name))).permute(0, 3, 1, 2)
        for mode in ("stored", "batch"):
            model.load_state_dict(state, strict=False)
            model.train(mode == "batch")
            _without_chance(model)
            with torch.no_grad():
                arrays[f"{name}/{mode}"] = model(pixels).numpy()
        arrays[f"{name}/images"] = images
        arrays[f"{name}/shapes"] = np.array(json.dumps(shapes))
        print(name, arrays[f"{name}/stored"][0], arrays[f"{name}/batch"][0])
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)


def _without_chance(model: nn.Module) -> None:
    """Nothing is dropped, whatever the mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if getattr(module, "drop_rate", None):
            module.drop_rate = 0.0
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.eval()
