"""PyTorch counterparts of the U-Net inversions; the tests' golden numbers come from here.

Written after the papers and the behaviour of the released code, not from the package:
parameters are leaves in Linen's layouts, so that gradients compare as they are; everything
else is PyTorch's own. Images are `[B, C, H, W]`.
"""

import numpy as np
import torch
from torch.nn import functional as F

from tests.testdata import transform_case as case

Leaves = dict[str, torch.Tensor]


def leaves(arrays: case.Arrays, *, trained: bool = True) -> Leaves:
    """NumPy arrays as float64 leaves."""
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=trained)
        for name, value in arrays.items()
    }


def chw(array: np.ndarray) -> torch.Tensor:
    """`[..., H, W, C]` -> `[..., C, H, W]`, float64."""
    return torch.tensor(np.moveaxis(array, -1, -3).astype(np.float64))


def hwc(tensor: torch.Tensor) -> np.ndarray:
    """The way back."""
    return np.moveaxis(tensor.detach().numpy(), -3, -1).copy()


def convolve(x: torch.Tensor, kernel: torch.Tensor, bias=None, **how) -> torch.Tensor:
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, **how)


class Classifier:
    """Features and head with weights of `transform_case.classifier`.

    Attributes:
      drifts: whether statistics are those of the batch, and the stored ones move.
    """

    def __init__(self) -> None:
        params, stats = case.classifier()
        self.params = leaves(params, trained=False)
        self.stats = leaves(stats, trained=False)
        self.drifts = False

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(
            x,
            self.stats[f"{name}/mean"],
            self.stats[f"{name}/var"],
            self.params[f"{name}/scale"],
            self.params[f"{name}/bias"],
            training=self.drifts,
            momentum=0.1,
        )

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = convolve(x, self.params["conv1/kernel"], padding=1)
        x = torch.relu(self.norm(x, "bn1"))
        x = convolve(x, self.params["conv2/kernel"], padding=1, stride=2)
        return torch.relu(self.norm(x, "bn2"))

    def head(self, features: torch.Tensor) -> torch.Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled @ self.params["linear/kernel"] + self.params["linear/bias"]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def unet(p: Leaves, x: torch.Tensor) -> torch.Tensor:
    """`[B, C, H, W]` -> the same."""

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        for number in range(2):
            conv, norm = f"{name}/conv_{number}", f"{name}/norm_{number}"
            x = convolve(x, p[f"{conv}/kernel"], p[f"{conv}/bias"], padding=1)
            x = F.instance_norm(x, weight=p[f"{norm}/scale"], bias=p[f"{norm}/bias"])
            x = F.leaky_relu(x)
        return x

    seen = []
    for level in range(case.LEVELS):
        x = block(x, f"down_{level}")
        seen.append(x)
        x = F.max_pool2d(x, 2)
    x = block(x, "middle")
    for level in reversed(range(case.LEVELS)):
        # Linen's kernel is the transposed one turned by half a circle.
        kernel = p[f"double_{level}/kernel"].permute(2, 3, 0, 1).flip(2, 3)
        x = F.conv_transpose2d(
            x,
            kernel,
            p[f"double_{level}/bias"],
            stride=2,
            padding=1,
            output_padding=1,
        )
        x = torch.cat([F.leaky_relu(x), seen[level]], dim=1)
        x = block(x, f"up_{level}")
    return convolve(x, p["last/kernel"], p["last/bias"])


def box(free: torch.Tensor) -> torch.Tensor:
    return torch.tanh(free) / (2 + 1e-7) + 0.5


def mse(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return ((one - other) ** 2).mean()


def pretrain_loss(
    model: Classifier, p: Leaves, x: torch.Tensor, released: bool
) -> torch.Tensor:
    """BTI-DBF's first loss."""
    generated = unet(p, x)
    clean, changed = model(x), model(generated)
    if released:
        answers = F.cross_entropy(clean.softmax(1), changed.softmax(1))
    else:
        answers = F.kl_div(
            changed.log_softmax(1), clean.softmax(1), reduction="batchmean"
        )
    image = mse(x, generated)
    weight = 100 if image > 0.1 else 0.01
    return answers + mse(model.features(x), model.features(generated)) + weight * image


def mask_loss(
    model: Classifier, mask: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """BTI-DBF's mask loss; `mask` boxed `[c, h, w]`."""
    features = model.features(x)
    kept = F.cross_entropy(model.head(features * mask), y)
    return kept - F.cross_entropy(model.head(features * (1 - mask)), y)


def generator_loss(
    model: Classifier,
    p: Leaves,
    mask: torch.Tensor,
    x: torch.Tensor,
    image_bound: float,
    feature_bound: float,
) -> torch.Tensor:
    """BTI-DBF's second loss of the generator."""
    generated = unet(p, x)
    before, after = model.features(x), model.features(generated)
    benign = mse(mask * before, mask * after)
    other = mse((1 - mask) * before, (1 - mask) * after)
    image = mse(x, generated)
    if image > image_bound or benign > feature_bound:
        return image
    return -other + 0.01 * benign


def spread(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """FeatureRE's and UNICORN's deviation of masked features."""
    return (features * mask).std(0).sum() / mask.abs().sum()


def towards(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and success of `case.TARGET`."""
    target = torch.full((len(logits),), case.TARGET)
    return F.cross_entropy(logits, target), (logits.argmax(1) == target).double().mean()


def centre(model: Classifier) -> torch.Tensor:
    """Mean features of the target's images `[c, h, w]`."""
    own = chw(case.scaled())[case.labels() == case.TARGET]
    return model.features(own).mean(0)


def above(value: torch.Tensor, bound: float) -> torch.Tensor:
    return torch.clamp(value - bound, min=0) / bound


class FeatureRE:
    """The search for one class; one batch of all images of other classes per epoch."""

    def __init__(self, image_bound: float, spread_bound: float, mask_size: float):
        self.model = Classifier()
        self.bounds = image_bound, spread_bound
        self.most = int(np.prod(case.FEATURES) * mask_size)
        self.net = leaves(case.net(1))
        shape = case.FEATURES
        self.mask = torch.ones(
            shape[-1], *shape[:2], dtype=torch.float64, requires_grad=True
        )
        self.optimizer = torch.optim.Adam(self.net.values(), lr=1e-3, betas=(0.5, 0.9))
        self.mask_optimizer = torch.optim.Adam([self.mask], lr=0.1, betas=(0.5, 0.9))
        self.images = chw(case.scaled())[case.others()]
        self.bank = self.model.features(chw(case.scaled()))
        self.centre = centre(self.model)
        self.pressure = [1.0, 1.0, 1.0]
        """Of image, success, spread."""

    def warm_loss(self) -> torch.Tensor:
        changed = unet(self.net, self.images)
        entropy, _ = towards(self.model(changed))
        image = mse(changed, self.images)
        return entropy + (image * 100 if image > self.bounds[0] else 0)

    def mixed(self, features: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        mask = box(self.mask)
        return mask * features + (1 - mask) * self.bank[rows]

    def net_loss(self, rows: np.ndarray) -> tuple[torch.Tensor, dict]:
        image_bound, spread_bound = self.bounds
        changed = unet(self.net, self.images)
        features = self.model.features(changed)
        entropy, success = towards(self.model.head(self.mixed(features, rows)))
        cosine = torch.cosine_similarity(
            self.centre.flatten(), features.mean(0).flatten(), dim=0
        )
        image = mse(changed, self.images)
        deviation = spread(features, box(self.mask).detach())
        loss = 5 * cosine if cosine >= 0 else 0 * cosine
        if deviation > spread_bound:
            loss = loss + deviation * 10 * (1 + self.pressure[2])
        if image > image_bound:
            loss = loss + image * 10 * (1 + self.pressure[0])
        if success < 0.9:
            loss = loss + entropy * (1 + self.pressure[1])
        seen = {"cosine": cosine, "success": success, "image": image}
        return loss, {**seen, "spread": deviation}

    def mask_loss(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.model.features(unet(self.net, self.images)).detach()
        entropy, _ = towards(self.model.head(self.mixed(features, rows)))
        norm = box(self.mask).abs().sum()
        return entropy + (norm if norm > self.most else 0), norm

    def epoch(self, rows: np.ndarray, mask_rows: np.ndarray) -> float:
        """The epoch's value; gradients of its first steps stay on the leaves."""
        self.optimizer.zero_grad()
        self.mask.requires_grad_(False)
        loss, seen = self.net_loss(rows)
        loss.backward()
        self.optimizer.step()
        self.mask.requires_grad_(True)
        self.mask_optimizer.zero_grad()
        loss, norm = self.mask_loss(mask_rows)
        loss.backward()
        self.mask_optimizer.step()
        seen = {name: value.detach() for name, value in seen.items()}
        image, deviation = (
            above(seen[name], bound)
            for name, bound in zip(("image", "spread"), self.bounds, strict=True)
        )
        self.pressure = [
            float(image),
            max(0.9 - float(seen["success"]), 0) / 0.9,
            float(deviation),
        ]
        value = seen["cosine"] - seen["success"] + image + deviation
        return float(value + above(norm.detach(), self.most))


def structure_loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """1 - SSIM of scaled images, mean over them; windows of at most 11 pixels."""
    shape = (1, -1, 1, 1)
    mean, std = (
        torch.tensor(c, dtype=torch.float64).view(shape) for c in (case.MEAN, case.STD)
    )
    x, y = ((images * std + mean).clamp(0, 1) for images in (one, other))
    size = min(11, case.SIZE - 1)
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-(place**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    kernel = window.expand(case.CHANNELS, 1, size, size)

    def blur(images: torch.Tensor) -> torch.Tensor:
        return F.conv2d(images, kernel, groups=case.CHANNELS)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * both + c2) / (var_x + var_y + c2)
    return 1 - (light * structure).mean()


class Unicorn:
    """The search for one class; one batch of all images of other classes per epoch."""

    def __init__(
        self, structure: float, deviation: float, mask: float, features: float
    ):
        self.model = Classifier()
        self.bounds = structure, deviation
        size = case.SIZE * case.SIZE * case.CHANNELS
        self.most = size * mask, int(np.prod(case.FEATURES) * features)
        self.into, self.back = leaves(case.net(1)), leaves(case.net(2))
        self.nets = {f"into/{name}": leaf for name, leaf in self.into.items()}
        self.nets |= {f"back/{name}": leaf for name, leaf in self.back.items()}

        def free(value: float, *shape: int) -> torch.Tensor:
            return torch.full(shape, value, dtype=torch.float64, requires_grad=True)

        image = (case.CHANNELS, case.SIZE, case.SIZE)
        self.space_mask, self.pattern = free(1.0, *image), free(0.0, *image)
        self.mask = free(1.0, case.FEATURES[-1], *case.FEATURES[:2])
        how = {"betas": (0.5, 0.9)}
        self.optimizer = torch.optim.Adam(self.nets.values(), lr=1e-3, **how)
        self.trigger_optimizer = torch.optim.Adam(
            [self.space_mask, self.pattern], lr=0.1, **how
        )
        self.mask_optimizer = torch.optim.Adam([self.mask], lr=0.1, **how)
        self.images = chw(case.scaled())[case.others()]
        self.clean = self.model.features(self.images)
        self.centre = centre(self.model)
        self.pressure = [1.0, 1.0, 1.0]

    def undone(self) -> torch.Tensor:
        return mse(unet(self.back, unet(self.into, self.images)), self.images)

    def stamped(self, images: torch.Tensor) -> torch.Tensor:
        there = unet(self.into, images)
        low, high = there.min(), there.max()
        unit = (there - low) / (high - low)
        mask = box(self.space_mask)
        unit = (1 - mask) * unit + mask * box(self.pattern)
        return unet(self.back, unit * (high - low) + low)

    def loss(self, order: np.ndarray, least: float) -> tuple[torch.Tensor, dict]:
        changed = self.stamped(self.images)
        features, mask = self.model.features(changed), box(self.mask)
        mixed = mask * features + (1 - mask) * self.clean[order]
        entropy, success = towards(self.model.head(mixed))
        structure = structure_loss(changed, self.images)
        cosine = torch.cosine_similarity(
            self.centre.flatten(), features.mean(0).flatten(), dim=0
        )
        deviation = spread(features, mask)
        loss = cosine if cosine >= least else 0 * cosine
        if deviation > self.bounds[1]:
            loss = loss + deviation * 10 * (1 + self.pressure[2])
        if structure > self.bounds[0]:
            loss = loss + structure * 10 * (1 + self.pressure[0])
        if success < 0.9:
            loss = loss + entropy * (1 + self.pressure[1])
        return loss, {"structure": structure, "success": success, "spread": deviation}

    def epoch(self, orders: np.ndarray, steps: int) -> tuple[float, dict]:
        """Value of the last trigger step's loss, and the first gradients of all three."""
        first: dict[str, np.ndarray] = {}

        def step(optimizer, loss, name, leaves_):
            for leaf in (*self.nets.values(), self.space_mask, self.pattern, self.mask):
                leaf.grad = None
            loss.backward()
            if name not in first:
                first[name] = {
                    n: leaf.grad.numpy().copy() for n, leaf in leaves_.items()
                }
            optimizer.step()

        successes = []
        loss, seen = self.loss(orders[0], 0.0)
        successes.append(float(seen["success"]))
        step(self.optimizer, loss + 200 * self.undone(), "nets", self.nets)
        trigger = {"mask": self.space_mask, "pattern": self.pattern}
        for order in orders[1 : 1 + steps]:
            loss, seen = self.loss(order, 0.5)
            successes.append(float(seen["success"]))
            norm = box(self.space_mask).abs().sum()
            last = loss.item()
            total = loss + (10 * norm if norm > self.most[0] else 0)
            step(self.trigger_optimizer, total, "trigger", trigger)
        for order in orders[1 + steps :]:
            mask = box(self.mask)
            features = self.model.features(self.stamped(self.images)).detach()
            mixed = mask * features + (1 - mask) * self.clean[order]
            entropy, _ = towards(self.model.head(mixed))
            norm = mask.abs().sum()
            total = entropy + (norm if norm > self.most[1] else 0)
            step(self.mask_optimizer, total, "mask", {"mask": self.mask})
        success = float(np.mean(successes))
        self.pressure = [
            float(above(seen["structure"].detach(), self.bounds[0])),
            max(0.9 - success, 0) / 0.9,
            float(above(seen["spread"].detach(), self.bounds[1])),
        ]
        return last, first
