"""Writes `patches_resnet18.npz`: searches of Neural Cleanse and TABOR in PyTorch.

    python -m tests.testdata.make_patch_goldens      (from the root; needs torch)

The network is that of `forward_resnet18` at 8x8 pixels, in eval mode; images and starts are
drawn by `patch_case.draws`. Masks and patterns are boxed, and losses exchanged, as the
released code writes it. Keys, for `CASE` in `KIND/{right,released}/COST`:

  CASE/mask, CASE/pattern              gradients in the first step
  CASE/after/mask, CASE/after/pattern  the unbounded trigger after ten steps
  CASE/loss                            [S] what was minimised, before each step
"""

import os

import numpy as np
import torch
from torch.nn import functional

from benchmarks import torch_models
from tests.testdata import goldens, patch_case

EPSILON = 1e-7


def boxed(free: torch.Tensor) -> torch.Tensor:
    """The released map into [0, 1]."""
    return torch.tanh(free) / (2 - EPSILON) + 0.5


def loss_towards(
    logits: torch.Tensor, labels: torch.Tensor, released: bool
) -> torch.Tensor:
    """The cross-entropy; released: Keras' own with its arguments exchanged."""
    if not released:
        return functional.cross_entropy(logits, labels)
    truth = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    clipped = truth.clamp(EPSILON, 1 - EPSILON)
    return -(logits.softmax(dim=1) * clipped.log()).sum(dim=1).mean()


def differences(x: torch.Tensor, released: bool) -> torch.Tensor:
    """Squared differences of neighbours in `[H, W, C]`; released: with a leading axis, so
    that one direction compares nothing and the other the rows."""
    x = x[None] if released else x
    first = (x[:-1] - x[1:]).square().sum()
    return first + (x[:, :-1] - x[:, 1:]).square().sum()


def penalty(
    model: torch_models.Classifier,
    mask: torch.Tensor,
    pattern: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    released: bool,
) -> torch.Tensor:
    """TABOR's weighted terms."""
    weights = patch_case.RELEASED_WEIGHTS if released else patch_case.WEIGHTS
    target = torch.tensor([patch_case.TARGET])
    blocked = model(torch_models.normalise((1 - mask) * images))
    alone = model(torch_models.normalise((mask * pattern)[None]))
    if released:
        mask, pattern = mask.repeat(1, 1, 3), 255 * pattern
        labels = labels[:1].repeat(len(labels))
    hidden = (1 - mask) * pattern
    terms = (
        mask.abs().sum() + mask.square().sum(),
        hidden.abs().sum() + hidden.square().sum(),
        differences(mask, released),
        differences(hidden, released),
        loss_towards(blocked, labels, released),
        loss_towards(alone, target, released),
    )
    return sum(
        (weight * term for weight, term in zip(weights.values(), terms, strict=True)),
        torch.zeros(()),
    )


def search(
    model: torch_models.Classifier, kind: str, released: bool, cost: float
) -> dict[str, np.ndarray]:
    """The values of one case."""
    images, labels, mask, pattern = patch_case.draws()
    dtype = torch.get_default_dtype()
    free = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (mask, pattern)]
    optimizer = torch.optim.Adam(
        free, lr=patch_case.rate(kind, released), betas=(0.5, 0.9)
    )
    found: dict[str, np.ndarray] = {}
    losses = []
    for batch, truth in zip(images, labels, strict=True):
        x = torch.tensor(batch, dtype=dtype)
        y = torch.tensor(truth)
        optimizer.zero_grad()
        m, p = boxed(free[0]), boxed(free[1])
        logits = model(torch_models.normalise((1 - m) * x + m * p))
        loss = loss_towards(logits, torch.full_like(y, patch_case.TARGET), released)
        loss = loss + cost * m.abs().sum()
        if kind == "tabor":
            loss = loss + penalty(model, m, p, x, y, released)
        loss.backward()
        losses.append(float(loss))
        if not found:
            found = {name: _array(f.grad) for name, f in zip(NAMES, free, strict=True)}
        optimizer.step()
    after = {
        f"after/{name}": _array(f.detach()) for name, f in zip(NAMES, free, strict=True)
    }
    return {**found, **after, "loss": np.array(losses)}


NAMES = ("mask", "pattern")


def _array(x: torch.Tensor | None) -> np.ndarray:
    """A copy: the optimiser goes on in the same memory."""
    assert x is not None
    return x.numpy().copy()


def main() -> None:
    """Writes the file, where single and double precision agree."""
    found = {}
    weights = goldens.load("forward_resnet18")["weights"]
    for kind in patch_case.KINDS:
        for released in (False, True):
            for cost in patch_case.COSTS:
                runs = {}
                for dtype in (torch.float64, torch.float32):
                    torch.set_default_dtype(dtype)
                    model = torch_models.create("resnet18", num_classes=10, width=4)
                    torch_models.load_weights(
                        model,
                        {k: torch.from_numpy(np.array(v)) for k, v in weights.items()},
                    )
                    model.eval()
                    runs[dtype] = search(model, kind, released, cost)
                case = f"{kind}/{'released' if released else 'right'}/{cost}"
                for name, value in runs[torch.float64].items():
                    other = runs[torch.float32][name]
                    scale = np.abs(value).max()
                    np.testing.assert_allclose(other, value, atol=5e-5 * scale)
                    found[f"{case}/{name}"] = value.astype(np.float32)
                print(case, runs[torch.float64]["loss"].round(3))
    np.savez_compressed(os.path.join(goldens.FOLDER, "patches_resnet18.npz"), **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
