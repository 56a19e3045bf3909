"""Writes `transforms.npz`: the U-Net inversions in PyTorch, for tests without PyTorch.

    python -m tests.testdata.make_transform_goldens      (from the root; needs torch)

Networks, images and draws are those of `transform_case`, computed in float64. Keys, of
which P is a parameter's name:

  bti/pretrain/KIND/gradient/P, /loss, /output       KIND: right, released
  bti/mask/KIND/gradient [h,w,c], /mask, /losses     KIND: right, released (drifting)
  bti/mask/released/stats/NAME                       statistics after ten steps
  bti/mask/star/mask                                 BAN's mask, all images in each step
  bti/generator/KIND/gradient/P, /loss, /output      KIND: within, beyond (of the bounds)

  re/warm/gradient/P, /loss                          FeatureRE's warm-up
  re/net/KIND/gradient/P, re/mask/KIND/gradient      of the first epoch's two steps
  re/KIND/values, /mask [h,w,c], /output             ten epochs; KIND: inside, outside

  uni/pretrain/gradient/P, /loss                     UNICORN's pretraining
  uni/structure                                      of images and noisier ones
  uni/nets/KIND/gradient/P, uni/trigger/KIND/gradient/mask, /pattern [H,W,C],
  uni/mask/KIND/gradient [h,w,c]                     first steps; of one step each
  uni/steps/KIND/trigger, /pattern, /mask            an epoch of ten steps of each
  uni/epochs/KIND/losses, /output, /mask             ten epochs of one step of each

A gradient is the first step's; losses are of all ten steps, before each; `output` is what
the U-Net makes of all images after ten steps, and so is a mask.
"""

import os
from collections.abc import Callable

import numpy as np
import torch

from tests.testdata import torch_transforms as twin
from tests.testdata import transform_case as case

RE_BOUNDS = {"inside": (50.0, 50.0, 0.95), "outside": (0.15, 0.05, 0.1)}
"""Of image, spread and mask."""
UNICORN_BOUNDS = {"inside": (5.0, 50.0, 0.3, 0.3), "outside": (0.1, 0.05, 0.1, 0.1)}
"""Of structure, spread, mask and feature mask. Without any bound on the masks, ten steps in
float32 and in float64 differ by a hundredth in PyTorch too."""
BOUNDS = {"within": (5.0, 50.0), "beyond": (0.05, 3.0)}


def descend(
    params: twin.Leaves,
    loss_of: Callable[[int], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int = case.STEPS,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """First gradients and all losses of so many steps."""
    first: dict[str, np.ndarray] = {}
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        if step == 0:
            first = {
                name: leaf.grad.numpy().copy()
                for name, leaf in params.items()
                if leaf.grad is not None
            }
        optimizer.step()
        losses.append(loss.item())
    return first, np.array(losses)


def trained_net(
    loss_of: Callable[[twin.Leaves, torch.Tensor], torch.Tensor],
) -> case.Arrays:
    """Ten steps of a U-Net on the batches of `case`."""
    params = twin.leaves(case.net(1))
    images = twin.chw(case.scaled())
    gradient, losses = descend(
        params,
        lambda step: loss_of(params, images[case.batch(step)]),
        torch.optim.Adam(params.values(), lr=1e-3),
    )
    found = {f"gradient/{name}": value for name, value in gradient.items()}
    found["loss"] = losses
    found["output"] = twin.hwc(twin.unet(params, images))
    return found


def trained_mask(kind: str) -> case.Arrays:
    """Ten steps of BTI-DBF's mask."""
    model = twin.Classifier()
    model.drifts = kind == "released"
    images, labels = twin.chw(case.scaled()), torch.tensor(case.labels()).long()
    free = torch.tensor(
        np.moveaxis(case.draw(60, *case.FEATURES), -1, 0).astype(np.float64),
        requires_grad=True,
    )
    gradient, losses = descend(
        {"mask": free},
        lambda step: twin.mask_loss(
            model, twin.box(free), images[case.batch(step)], labels[case.batch(step)]
        ),
        torch.optim.Adam([free], lr=0.01),
    )
    found = {
        "gradient": np.moveaxis(gradient["mask"], 0, -1),
        "mask": twin.hwc(twin.box(free)),
        "losses": losses,
    }
    if model.drifts:
        found |= {f"stats/{name}": v.numpy() for name, v in model.stats.items()}
    return found


def star_mask() -> case.Arrays:
    """Ten steps of BAN's mask on all images, clamped after each."""
    model = twin.Classifier()
    images, labels = twin.chw(case.scaled()), torch.tensor(case.labels()).long()
    start = (case.draw(61, *case.FEATURES) + 1) / 2
    mask = torch.tensor(
        np.moveaxis(start, -1, 0).astype(np.float64), requires_grad=True
    )
    optimizer = torch.optim.Adam([mask], lr=0.01)
    for _ in range(case.STEPS):
        optimizer.zero_grad()
        loss = twin.mask_loss(model, mask, images, labels) + 0.75 * mask.mean()
        loss.backward()
        optimizer.step()
        mask.data.clamp_(0, 1)
    return {"mask": twin.hwc(mask)}


def bti_dbf() -> case.Arrays:
    """All stages of BTI-DBF."""
    model = twin.Classifier()
    mask = twin.box(twin.chw(case.draw(60, *case.FEATURES)))
    parts = {
        "pretrain/right": trained_net(
            lambda p, x: twin.pretrain_loss(model, p, x, False)
        ),
        "pretrain/released": trained_net(
            lambda p, x: twin.pretrain_loss(model, p, x, True)
        ),
        "mask/right": trained_mask("right"),
        "mask/released": trained_mask("released"),
        "mask/star": star_mask(),
    }
    for kind, bounds in BOUNDS.items():
        parts[f"generator/{kind}"] = trained_net(
            lambda p, x, bounds=bounds: twin.generator_loss(model, p, mask, x, *bounds)
        )
    return joined("bti", parts)


def feature_re() -> case.Arrays:
    """FeatureRE's steps and epochs, far inside the bounds and outside of all of them."""
    warm = twin.FeatureRE(0.15, 1.0, 0.5)
    gradient, losses = descend(warm.net, lambda step: warm.warm_loss(), warm.optimizer)
    found = {
        "warm": {f"gradient/{name}": value for name, value in gradient.items()}
        | {"loss": losses}
    }
    for kind, bounds in RE_BOUNDS.items():
        search = twin.FeatureRE(*bounds)
        count, among = len(case.others()), case.IMAGES
        values = []
        for step in range(case.STEPS):
            rows = (case.rows(step + extra, count, among) for extra in (0, 100))
            values.append(search.epoch(*rows))
            if step == 0:
                found[f"net/{kind}"] = {
                    f"gradient/{name}": leaf.grad.numpy().copy()
                    for name, leaf in search.net.items()
                }
                slope = np.moveaxis(search.mask.grad.numpy(), 0, -1).copy()
                found[f"mask/{kind}"] = {"gradient": slope}
        found[kind] = {
            "values": np.array(values),
            "mask": twin.hwc(twin.box(search.mask)),
            "output": twin.hwc(twin.unet(search.net, twin.chw(case.scaled()))),
        }
    return joined("re", found)


def unicorn() -> case.Arrays:
    """UNICORN's pretraining, and its epochs inside and outside of all bounds."""
    first = twin.Unicorn(0.15, 1.0, 0.15, 0.15)
    gradient, losses = descend(first.nets, lambda step: first.undone(), first.optimizer)
    images = twin.chw(case.scaled())
    noise = twin.chw(case.draw(70, case.IMAGES, case.SIZE, case.SIZE, case.CHANNELS))
    found: dict[str, case.Arrays] = {
        "pretrain": {f"gradient/{name}": value for name, value in gradient.items()}
        | {"loss": losses}
    }
    for kind, bounds in UNICORN_BOUNDS.items():
        long, count = twin.Unicorn(*bounds), len(case.others())
        orders = [case.order(step, count) for step in range(1 + 2 * case.STEPS)]
        _, slopes = long.epoch(np.stack(orders), case.STEPS)
        found[f"nets/{kind}"] = {f"gradient/{n}": v for n, v in slopes["nets"].items()}
        found[f"trigger/{kind}"] = {
            f"gradient/{name}": np.moveaxis(value, 0, -1)
            for name, value in slopes["trigger"].items()
        }
        found[f"steps/{kind}"] = {
            "trigger": twin.hwc(twin.box(long.space_mask)),
            "pattern": twin.hwc(twin.box(long.pattern)),
            "mask": twin.hwc(twin.box(long.mask)),
        }
        short = twin.Unicorn(*bounds)
        values = [
            short.epoch(
                np.stack([case.order(3 * step + k, count) for k in range(3)]), 1
            )
            for step in range(case.STEPS)
        ]
        slope = values[0][1]["mask"]["mask"]
        found[f"mask/{kind}"] = {"gradient": np.moveaxis(slope, 0, -1)}
        found[f"epochs/{kind}"] = {
            "losses": np.array([value for value, _ in values]),
            "output": twin.hwc(short.stamped(images)),
            "mask": twin.hwc(twin.box(short.mask)),
        }
    structure = twin.structure_loss(images, images + noise).detach().numpy()
    return joined("uni", found) | {"uni/structure": structure}


def joined(method: str, parts: dict[str, case.Arrays]) -> case.Arrays:
    """Keys with the method and the part before them."""
    return {
        f"{method}/{part}/{name}": value
        for part, arrays in parts.items()
        for name, value in arrays.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    found = bti_dbf() | feature_re() | unicorn()
    path = os.path.join(os.path.dirname(__file__), "transforms.npz")
    single = {name: np.asarray(value, np.float32) for name, value in found.items()}
    np.savez_compressed(path, allow_pickle=False, **dict(sorted(single.items())))
    print(f"{os.path.basename(path)}: {os.path.getsize(path):,} bytes")


if __name__ == "__main__":
    main()
