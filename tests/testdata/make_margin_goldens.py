"""Writes `margin_resnet18.npz`: MM-BD's search in PyTorch, for a test without PyTorch.

    python -m tests.testdata.make_margin_goldens      (from the root; needs torch)

The network is that of `forward_resnet18` at 8x8 pixels, in eval mode; inputs are drawn by
`starts`, which the test calls too. Keys, for `kind` in released, momentum:

  gradient/KIND   [T, Q, H, W, C] of minus the sum of margins, in the first step
  after_10/KIND   [T, Q, H, W, C] inputs after ten steps
  margins/KIND    [T, Q] of the inputs before the tenth step
  p               [4] of `HAND_MADE`: 1 - F(largest)^K by `scipy.stats`
"""

import os

import numpy as np
import torch
from scipy import stats

from benchmarks import torch_models
from tests.testdata import goldens

TARGETS = (0, 7)
STARTS, SIZE, STEPS = 3, 8, 10
LEARNING_RATE = {"released": 0.05, "momentum": 0.05}
"""Five times the method's: so pixels of this random network leave [0, 1]."""
MOMENTUM = 0.2
HAND_MADE = (
    (1.0, 1.2, 1.1, 1.4, 1.3, 1.25, 1.05, 1.15, 1.35, 6.0),
    (1.0, 1.2, 1.1, 1.4, 1.3, 1.25, 1.05, 1.15, 1.35, 1.5),
    (3.0, 9.0, 4.0, 5.5, 6.0),
    (2.0, 2.5, 2.2, 2.1, 2.9, 2.3, 2.6, 30.0),
)


def starts() -> np.ndarray:
    """`[T, Q, H, W, C]` float32 in [0, 1]."""
    rng = np.random.default_rng(4)
    return rng.random((len(TARGETS), STARTS, SIZE, SIZE, 3), dtype=np.float32)


def margins(logits: torch.Tensor, target: int) -> torch.Tensor:
    """`[Q, K]` -> `[Q]`."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.max(dim=1).values


def search(
    model: torch_models.Classifier, start: np.ndarray, target: int, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First gradient, inputs after `STEPS` steps, margins of the last evaluation."""
    inputs = torch.tensor(start, requires_grad=True, dtype=torch.get_default_dtype())
    rate = LEARNING_RATE[kind]
    kept = torch.optim.SGD([inputs], lr=rate, momentum=MOMENTUM)
    first = None
    for _ in range(STEPS):
        # As released: an optimiser made anew has no momentum to go on with.
        fresh = torch.optim.SGD([inputs], lr=rate, momentum=MOMENTUM)
        optimizer = fresh if kind == "released" else kept
        optimizer.zero_grad()
        pixels = torch.clamp(inputs, 0, 1)
        found = margins(model(torch_models.normalise(pixels)), target)
        (-found.sum()).backward()
        assert inputs.grad is not None
        first = inputs.grad.clone() if first is None else first
        optimizer.step()
        if kind != "released":
            with torch.no_grad():
                inputs.clamp_(0, 1)
    assert first is not None
    return first.numpy(), inputs.detach().numpy(), found.detach().numpy()


def p_value(vector: tuple[float, ...]) -> float:
    """The published test, in the words of its formula."""
    rest = sorted(vector)[:-1]
    law = stats.gamma(*stats.gamma.fit(rest))
    return float(1 - law.cdf(max(vector)) ** len(vector))


def main() -> None:
    """Writes the file, where single and double precision agree."""
    found: dict[str, np.ndarray] = {"p": np.array([p_value(v) for v in HAND_MADE])}
    weights = goldens.load("forward_resnet18")["weights"]
    for kind in LEARNING_RATE:
        runs = {}
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            model = torch_models.create("resnet18", num_classes=10, width=4)
            torch_models.load_weights(
                model, {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
            )
            model.eval()
            runs[dtype] = [
                search(model, start, target, kind)
                for start, target in zip(starts(), TARGETS, strict=True)
            ]
        for single, double in zip(
            runs[torch.float32], runs[torch.float64], strict=True
        ):
            for one, other in zip(single, double, strict=True):
                np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
        for place, name in enumerate(("gradient", "after_10", "margins")):
            stacked = [run[place] for run in runs[torch.float32]]
            found[f"{name}/{kind}"] = np.stack(stacked).astype(np.float32)
    path = os.path.join(goldens.FOLDER, "margin_resnet18.npz")
    np.savez_compressed(path, **found)  # type: ignore[arg-type]
    outside = np.mean(
        (found["after_10/released"] < 0) | (found["after_10/released"] > 1)
    )
    print(f"{path}: {outside:.0%} of the released pixels left [0, 1]; p {found['p']}")


if __name__ == "__main__":
    main()
