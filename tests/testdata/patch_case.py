"""What `make_patch_goldens` and the test of its numbers share: draws and settings."""

import numpy as np

KINDS = ("neural_cleanse", "tabor")
COSTS = (0.0, 0.02)
"""Weight of the mask's size: the two stages of a search."""
TARGET, SIZE, STEPS, BATCH = 3, 8, 10, 6
LEARNING_RATE = {False: 0.1, True: 0.1, "tabor": 1e-3}
"""Of either loss; TABOR's released code has one of its own."""
WEIGHTS = {
    "size": 1e-2,
    "hidden": 2e-2,
    "rough": 3e-2,
    "hidden_rough": 1e-2,
    "blocking": 0.3,
    "overlaying": 0.5,
}
"""Of TABOR's penalties, in their order; so large that each of them counts."""
RELEASED_WEIGHTS = {**WEIGHTS, "hidden": 1e-6, "hidden_rough": 3e-7}
"""The same for pixels up to 255."""


def rate(kind: str, released: bool) -> float:
    """Adam's step."""
    return LEARNING_RATE["tabor" if released and kind == "tabor" else released]


def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images `[S, B, H, W, C]` in [0, 1], labels `[S, B]`, an unbounded mask `[H, W, 1]`
    and pattern `[H, W, C]`."""
    rng = np.random.default_rng(11)
    images = rng.random((STEPS, BATCH, SIZE, SIZE, 3), dtype=np.float32)
    labels = rng.integers(0, 10, (STEPS, BATCH))
    mask = rng.normal(0, 1, (SIZE, SIZE, 1)).astype(np.float32)
    return images, labels, mask, rng.normal(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
