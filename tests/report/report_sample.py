"""Records of a scan that never took place, shaped like real ones."""

import base64
import hashlib
import random
from typing import Any

import numpy as np

from ban_jax.zoo import pictures

CLASS_NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def judged(
    path: str = "zoo/badnets_0.pt",
    *,
    target: int | None = 1,
    num_classes: int = 10,
    score: float = 8.71,
    **changes: Any,
) -> dict[str, Any]:
    """One judged candidate; flagged where it has a target and a high score."""
    name = path.encode(errors="surrogateescape")
    draw = random.Random(name)
    base = [0.16 + 0.15 * draw.random() for _ in range(num_classes)]
    strong = list(base)
    histogram = [1 / num_classes * (0.7 + 0.6 * draw.random()) for _ in base]
    flagged = score > 3.5
    if target is not None and flagged:
        strong[target] = 0.66
        histogram[target] = 0.47
    still = [1 / num_classes for _ in base]
    small = [value / num_classes for value in strong]
    record: dict[str, Any] = {
        "schema_version": 2,
        "path": path,
        "sha256": hashlib.sha256(name).hexdigest(),
        "architecture": "resnet18",
        "width": 16,
        "num_classes": num_classes,
        "normalisation": {
            "mean": [0.4914, 0.4822, 0.4465],
            "std": [0.247, 0.243, 0.261],
            "source": "cifar10",
        },
        "verdict": "backdoored" if flagged else "clean",
        "score": score,
        "standard_error": 0.42,
        "threshold": 3.5,
        "threshold_source": "default",
        "baseline": "population",
        "target": target,
        "reason": f"class {target} stands {score} spreads above the crowd"
        if flagged
        else "no class stands out against the crowd",
        "clean_accuracy": 0.8125,
        "info": {
            "curves": {"targeted": [[v * f for v in strong] for f in (0.5, 1.0, 1.3)]},
            "histogram": histogram,
            "histogram_without_noise": still,
        },
        "images": {},
        "num_probe": 1024,
        "seconds": 3.42,
        "mode": "targeted",
        "seed": 0,
        "error": None,
        "vectors": {
            "targeted": strong,
            "batch": small,
            "batch_minus_stored": [value - 0.02 for value in small],
            "stored": [0.02 for _ in small],
            "last_layer": [value - 0.2 for value in base],
        },
        "z": [score if k == target else draw.gauss(0, 0.5) for k in range(num_classes)],
        "forward_equivalents": 38_400,
        "config": {
            "epsilon": 0.2,
            "radii": [0.5, 1.0, 1.5],
            "steps": 8,
            "restarts": 2,
            "update": {"momentum": 0.9},
        },
        "config_hash": "6c1f0b2a",
        "versions": {"ban_jax": "0.1.0", "jax": "0.10.2", "backend": "cpu"},
        "notes": ["normalisation taken from the data set's known constants"],
    }
    record.update(changes)
    return record


def weights_only(path: str = "zoo/only_weights.safetensors") -> dict[str, Any]:
    """A candidate judged from its last layer alone."""
    record = judged(path, mode="weights", baseline="within", clean_accuracy=None)
    record["vectors"] = {"last_layer": record["vectors"]["last_layer"]}
    record |= {"info": {}, "config": {}, "num_probe": 0}
    return record


def triggers(num_classes: int = 10) -> list[str]:
    """`[K]` recovered triggers as PNGs in base64: a square that moves with its class."""
    encoded = []
    for k in range(num_classes):
        image = np.full((16, 16, 3), 0.45, np.float32)
        image[k : k + 4, 10:14] = (0.9, 0.1 * (k % 10), 0.2)
        encoded.append(base64.b64encode(pictures.png(image)).decode())
    return encoded


VECTORS = ("untargeted", "batch_minus_stored", "last_layer", "targeted", "universal")


def witnessed(
    path: str = "zoo/badnets_0.pt",
    *,
    verdict: str = "backdoored",
    target: int = 1,
    score: float = 5.2,
    num_classes: int = 10,
    speaking: tuple[str, ...] = ("untargeted", "targeted"),
    **changes: Any,
) -> dict[str, Any]:
    """A candidate judged by witnesses against a profile; the last one was void."""
    draw = random.Random(path.encode(errors="surrogateescape"))
    odd: dict[str, list[float | None]] = {}
    for name in VECTORS[:-1]:
        odd[name] = [draw.gauss(0, 0.8) for _ in range(num_classes)]
        odd[name][target] = score if name in speaking else 0.9
    record = judged(path, target=target, score=score, num_classes=num_classes)
    record |= {
        "schema_version": 3,
        "mode": "ban",
        "verdict": verdict,
        "baseline": "profile",
        "compared_with": "profile cifar10, 24 clean models",
        "threshold": 3.5,
        "suspicious_above": 2.7,
        "interval": [score - 0.82, score + 0.82],
        "p_value": 0.04 if score > 2.7 else 0.52,
        "p_models": 24,
        "q_value": 0.06 if score > 2.7 else 0.6,
        "witnesses": odd,
        "void": {"universal": "no class differs from the others by more than chance"},
        "data": {"name": "cifar10", "classes": CLASS_NAMES, "image_shape": [32, 32, 3]},
        "vectors": {name: record["vectors"]["targeted"] for name in VECTORS},
    }
    return record | changes


def graded() -> list[dict[str, Any]]:
    """All four grades, judged by witnesses."""
    return [
        witnessed(),
        witnessed("zoo/blend_2.pt", target=2, score=22.7, speaking=VECTORS[:4]),
        witnessed("zoo/odd_9.pt", verdict="suspicious", target=9, score=3.1),
        witnessed("zoo/clean_0.pt", verdict="clean", target=4, score=1.6),
        unreadable(),
    ]


def with_images(path: str = "zoo/badnets_1.pt", **changes: Any) -> dict[str, Any]:
    """A candidate whose detector recovered a trigger of each class."""
    record = judged(path, **changes)
    record["images"] = {"trigger": triggers(record["num_classes"])}
    record["info"] |= {"steps_taken": 8, "trigger_size": [0.5] * record["num_classes"]}
    return record


def of_another_package(path: str = "zoo/elsewhere.pt") -> dict[str, Any]:
    """A candidate of a detector that is not installed here."""
    vectors = {"odd_vector": [0.1, 0.2, 5.0], "other": [0.1, 0.2, 0.3]}
    record = judged(path, mode="foreign", num_classes=3, target=2)
    return record | {
        "vectors": vectors,
        "info": {"curves": {"odd_vector": [[1.0] * 3] * 3}},
    }


def unreadable(path: str = "zoo/truncated.pt") -> dict[str, Any]:
    """A file that could not be read."""
    error = (
        f"{path}: expected 11,173,962 bytes of tensors, found 4,096; it is cut short"
    )
    return {
        "path": path,
        "verdict": "inconclusive",
        "score": None,
        "target": None,
        "reason": error,
        "error": error,
        "seconds": 0.02,
    }


def near_chance(path: str = "zoo/wrong_normalisation.pt") -> dict[str, Any]:
    """A candidate whose clean accuracy says that something is wrong."""
    return judged(
        path,
        target=None,
        score=1.2,
        verdict="inconclusive",
        clean_accuracy=0.118,
        reason="clean accuracy 0.118 is near chance (0.1): the normalisation or the "
        "order of the classes may be wrong",
    )


def mixed() -> list[dict[str, Any]]:
    """One of each kind."""
    return [
        judged(),
        judged("zoo/blend_2.pt", target=2, score=3.62),
        judged("zoo/clean_0.pt", target=2, score=1.63),
        judged("zoo/deep/clean_10.pt", target=5, score=1.81),
        weights_only(),
        near_chance(),
        unreadable(),
    ]
