"""Writes the golden PyTorch files of `testdata/`. Needs torch, numpy and Pillow.

    python tests/checkpoints/make_testdata.py

Each file holds a ResNet18 of width 1 with random weights, saved by PyTorch in one of
the layouts that programs of the field use. `expected.json` holds, per file, the hash
our reader must arrive at, computed here from the tensors themselves by other means.
"""

import argparse
import collections
import hashlib
import json
import pathlib

import numpy as np
import PIL.Image
import torch

OUT = pathlib.Path(__file__).parent / "testdata"
CLASSES = 5


def resnet18(seed: int, shortcut: str = "shortcut", linear: str = "linear") -> dict:
    """A ResNet18 state dict of width 1; names and order are PyTorch modules'."""
    generator = torch.Generator().manual_seed(seed)
    state = collections.OrderedDict()

    def conv(name, outputs, inputs, size):
        state[f"{name}.weight"] = torch.randn(
            outputs, inputs, size, size, generator=generator
        )

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{leaf}"] = torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(17)

    conv("conv1", 1, 3, 3)
    norm("bn1", 1)
    inputs = 1
    for stage in range(1, 5):
        outputs = 2 ** (stage - 1)
        for block in range(2):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", outputs, inputs, 3)
            norm(f"{name}.bn1", outputs)
            conv(f"{name}.conv2", outputs, outputs, 3)
            norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                conv(f"{name}.{shortcut}.0", outputs, inputs, 1)
                norm(f"{name}.{shortcut}.1", outputs)
            inputs = outputs
    state[f"{linear}.weight"] = torch.randn(CLASSES, inputs, generator=generator)
    state[f"{linear}.bias"] = torch.randn(CLASSES, generator=generator)
    return state


def expected_hash(state: dict) -> str:
    """`checkpoints.weights_hash`, written a second time from its docstring."""
    leaves = {"running_mean": "mean", "running_var": "var"}
    flat = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        *modules, leaf = name.split(".")
        modules = [
            {"downsample": "shortcut", "fc": "linear"}.get(m, m) for m in modules
        ]
        path = "/".join(modules)
        for digit in "0123456789":
            path = path.replace(f"/{digit}", f"_{digit}")
        array = value.to(torch.float32).numpy()
        if leaf in leaves:
            flat[f"batch_stats/{path}/{leaves[leaf]}"] = array
        elif array.ndim == 4:
            flat[f"params/{path}/kernel"] = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            flat[f"params/{path}/kernel"] = array.T
        elif leaf == "weight":
            flat[f"params/{path}/scale"] = array
        else:
            flat[f"params/{path}/bias"] = array
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(f"{name}\0<f4\0{flat[name].shape}\0".encode())
        digest.update(flat[name].tobytes())
    return digest.hexdigest()


def module(state: dict) -> torch.nn.Module:
    """A module whose state dict is `state`."""
    root = torch.nn.Module()
    for name, value in state.items():
        *path, leaf = name.split(".")
        node = root
        for step in path:
            if step not in node._modules:
                node.add_module(step, torch.nn.Module())
            node = node._modules[step]
        if leaf in ("weight", "bias"):
            node.register_parameter(leaf, torch.nn.Parameter(value))
        else:
            node.register_buffer(leaf, value)
    return root


def shared(state: dict) -> dict:
    """The same tensors as views of one storage, the linear layer's transposed."""
    flat = torch.cat([value.float().reshape(-1) for value in state.values()])
    views, start = collections.OrderedDict(), 0
    for name, value in state.items():
        views[name] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()
    kernel = state["linear.weight"].T.contiguous()
    views["linear.weight"] = kernel.T
    return {name: v for name, v in views.items() if "tracked" not in name}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    hashes = {}

    def save(name, state, content, **options):
        torch.save(content, OUT / name, **options)
        hashes[name] = expected_hash(state)

    state = resnet18(0)
    save("zip.pt", state, {"model_state_dict": state, "epoch": 3})
    state = resnet18(1)
    save("legacy.th", state, state, _use_new_zipfile_serialization=False)
    state = resnet18(2)
    half = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in state.items()
    }
    save("bfloat16.pt", half, half)
    state = resnet18(3)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
    save(
        "iad.pth.tar",
        state,
        {
            "netC": wrapped,
            "netG": {"0.weight": torch.ones(2, 3, 3, 3), "0.bias": torch.ones(2)},
            "netM": {"0.weight": torch.ones(1, 3, 3, 3), "0.bias": torch.ones(1)},
            "optimizerC": optimizer.state_dict(),
            "best_clean_acc": torch.tensor(93.5),
            "best_bd_acc": np.float64(99.0),
            "epoch": 12,
            "opt": argparse.Namespace(dataset="cifar10", lr=0.01, device="cuda"),
        },
    )
    state = resnet18(4, "downsample", "fc")
    image = PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    poisoned = {
        "bd_data_container": {
            "save_folder_path": None,
            "data_dict": {7: (image, 0, 3), 9: {"path": "9.png", "other_info": [0, 1]}},
            "save_file_format": ".png",
        },
        "getitem_all": True,
        "original_index_array": np.arange(10),
        "poison_indicator": np.zeros(10),
        "save_folder_path": pathlib.PurePosixPath("record"),
    }
    save(
        "attack_result.pt",
        state,
        {
            "model_name": "resnet18",
            "num_classes": CLASSES,
            "model": state,
            "data_path": "data/cifar10",
            "img_size": [32, 32, 3],
            "clean_data": "cifar10",
            "bd_train": poisoned,
            "bd_test": poisoned,
        },
    )
    state = resnet18(5)
    save("whole_module.ckpt", state, module(state))
    state = resnet18(6)
    save("shared_storage.pt", state, {"net": shared(state), "acc": 81.25, "epoch": 2})
    (OUT / "expected.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
