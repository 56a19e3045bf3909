"""What the U-Net inversions are compared with PyTorch on; NumPy alone.

A classifier of two convolutions with normalisation and a U-Net of two levels, images of
8x8 pixels, and every draw. Weights go by the names of the Linen trees, flat, in Linen's
layouts; `make_transform_goldens` and `tests.detectors.test_transform_goldens` both begin
here, so the golden file holds results alone.
"""

import numpy as np

SIZE, CHANNELS, CLASSES, IMAGES, STEPS = 8, 3, 4, 12, 10
WIDTH, LEVELS = 2, 2
FEATURES = (4, 4, 6)
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)
TARGET = 2

Arrays = dict[str, np.ndarray]


def draw(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """U(-1, 1) times `scale`, float32."""
    rng = np.random.default_rng(seed)
    return ((2 * rng.random(shape) - 1) * scale).astype(np.float32)


def classifier() -> tuple[Arrays, Arrays]:
    """Parameters and stored statistics by name."""
    params = {
        "conv1/kernel": draw(1, 3, 3, CHANNELS, 5, scale=0.5),
        "bn1/scale": 1 + draw(2, 5, scale=0.3),
        "bn1/bias": draw(3, 5, scale=0.3),
        "conv2/kernel": draw(4, 3, 3, 5, FEATURES[-1], scale=0.4),
        "bn2/scale": 1 + draw(5, FEATURES[-1], scale=0.3),
        "bn2/bias": draw(6, FEATURES[-1], scale=0.5),
        "linear/kernel": draw(7, FEATURES[-1], CLASSES, scale=2.0),
        "linear/bias": draw(8, CLASSES, scale=0.2),
    }
    stats = {
        "bn1/mean": draw(9, 5, scale=0.3),
        "bn1/var": 2 + draw(10, 5, scale=0.5),
        "bn2/mean": draw(11, FEATURES[-1], scale=0.3),
        "bn2/var": 1.5 + draw(12, FEATURES[-1], scale=0.5),
    }
    return params, stats


def net(seed: int) -> Arrays:
    """A U-Net's parameters, of the size that PyTorch starts them with."""
    shapes: dict[str, tuple[int, ...]] = {}

    def block(name: str, inputs: int, outputs: int) -> None:
        for number, size in enumerate((inputs, outputs)):
            shapes[f"{name}/conv_{number}/kernel"] = (3, 3, size, outputs)
            shapes[f"{name}/conv_{number}/bias"] = (outputs,)
            shapes[f"{name}/norm_{number}/scale"] = (outputs,)
            shapes[f"{name}/norm_{number}/bias"] = (outputs,)

    inputs = CHANNELS
    for level in range(LEVELS):
        block(f"down_{level}", inputs, WIDTH * 2**level)
        inputs = WIDTH * 2**level
    block("middle", inputs, WIDTH * 2**LEVELS)
    for level in reversed(range(LEVELS)):
        wide = WIDTH * 2 ** (level + 1)
        shapes[f"double_{level}/kernel"] = (3, 3, wide, wide)
        shapes[f"double_{level}/bias"] = (wide,)
        block(f"up_{level}", wide + wide // 2, wide // 2)
    shapes["last/kernel"] = (1, 1, WIDTH, CHANNELS)
    shapes["last/bias"] = (CHANNELS,)
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 9.0
        found[name] = draw(1000 * seed + number, *shape, scale=fan_in**-0.5)
        if name.endswith("scale"):
            found[name] = 1 + found[name]
    return found


def cancelled(name: str) -> bool:
    """Whether the normalisation takes a parameter out again: its gradient is rounding."""
    return "/conv_" in name and name.endswith("/bias")


def images() -> np.ndarray:
    """`[N, H, W, C]` in [0, 1]: smooth enough for a structural similarity."""
    rng = np.random.default_rng(20)
    coarse = rng.random((IMAGES, SIZE // 2, SIZE // 2, CHANNELS)).astype(np.float32)
    return coarse.repeat(2, axis=1).repeat(2, axis=2)


def scaled() -> np.ndarray:
    """The same as the classifier wants them."""
    return (images() - np.float32(MEAN)) / np.float32(STD)


def labels() -> np.ndarray:
    """`[N]`, each class three times."""
    return np.arange(IMAGES, dtype=np.int32) % CLASSES


def batch(step: int) -> np.ndarray:
    """Which eight images a step takes."""
    return np.random.default_rng([30, step]).permutation(IMAGES)[:8]


def rows(step: int, count: int, among: int) -> np.ndarray:
    """Which of `among` features are drawn for `count` images, with repetition."""
    return np.random.default_rng([40, step]).integers(0, among, count)


def order(step: int, count: int) -> np.ndarray:
    """The order in which `count` clean images lend their features."""
    return np.random.default_rng([50, step]).permutation(count)


def others() -> np.ndarray:
    """Images that are not of `TARGET`."""
    return np.flatnonzero(labels() != TARGET)
