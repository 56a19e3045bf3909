"""Evidence, scores and weights of a fixed run, to show that a change changed no number.

    python -m benchmarks.golden record --out golden.json [--zoo FOLDER --data-dir FOLDER]
    python -m benchmarks.golden compare golden.json [--zoo FOLDER --data-dir FOLDER]

Every mode scans the bundled zoo on digits, and the checkpoints in `--zoo` on CIFAR-10; a
small zoo is trained and repaired by every method. `compare` does the same again and prints
the largest difference of each: evidence and scores must agree to 1e-6, weights bit for bit.
That holds on one machine with one version of JAX: rounding differs between processors, and
sign steps amplify it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from ban_jax import checkpoints
from benchmarks import _timing

BAN = (
    "--ban.epsilon 0.5 --ban.radii 0.5 1.0 --ban.restarts 2 --ban.mask-steps 100"
    " --ban.mask-learning-rate 0.01"
)
"""Its settings of version 0.2.0."""
MODES = {
    "targeted": [],
    "ban": BAN.split(),
    "weights": [],
    "reference": ["--reference.steps", "2"],
}
TRAIN = (
    "--data digits --arch resnet18,vgg16 --image-size 32 --width 4 --attacks"
    " clean,badnets,iad,wanet --iad.width 4 --epochs 1 --num-train 512 --batch-size 64"
    " --no-orbax"
)
REPAIRED = ("preact_resnet18_w4_clean_s1", "resnet18_w4_badnets_t1_s0")
REPAIRS = {
    "ban": "--ban.epochs 2 --ban.batch-size 48",
    "finetune": "--finetune.epochs 2 --finetune.batch-size 48",
    "anp": "--anp.epochs 1 --anp.iterations 8 --anp.batch-size 48",
}
KEPT = (
    "vectors", "errors", "curves", "histogram", "histogram_without_noise",
    "clean_accuracy", "score", "standard_error", "target", "verdict", "z",
)  # fmt: skip
TOLERANCE = 1e-6
REDEFINED = {
    "ban": ("errors", "standard_error", "score", "target", "verdict", "z"),
}
"""By mode, what is measured or judged otherwise than in 0.2.0; it is not compared."""


def measure(zoo: str | None, data_dir: str | None) -> dict[str, Any]:
    """Everything, by name."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundled = _bundled()
        for mode, more in MODES.items():
            found[f"digits {mode}"] = _scan(folder, bundled, "digits", mode, more)
            if zoo:
                more = [*more, *(["--data-dir", data_dir] if data_dir else [])]
                found[f"cifar10 {mode}"] = _scan(folder, zoo, "cifar10", mode, more)
        trained = os.path.join(folder, "trained")
        _run("train", "--out", trained, *TRAIN.split())
        found["trained"] = _hashes(trained)
        repaired = [os.path.join(bundled, f"{name}.safetensors") for name in REPAIRED]
        for method, settings in REPAIRS.items():
            out = os.path.join(folder, method)
            told = ["--data", "digits", "--num-clean", "300", "--method", method]
            told += ["--no-orbax", *settings.split()]
            _run("repair", *repaired, "--out", out, *told)
            found[f"repaired {method}"] = _hashes(out)
    return found


def _bundled() -> str:
    import ban_jax

    package = os.path.dirname(ban_jax.__file__)
    for name in ("zoo/bundled", "zoo"):
        if os.path.exists(os.path.join(package, name, "zoo.json")):
            return os.path.join(package, name)
    raise FileNotFoundError("the bundled zoo")


def _run(*told: str) -> None:
    command = [sys.executable, "-m", "ban_jax.cli", *told]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode > 2:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def _scan(
    folder: str, zoo: str, data: str, mode: str, more: list[str]
) -> dict[str, dict[str, Any]]:
    out = os.path.join(folder, f"{data}_{mode}")
    told = [] if mode == "weights" else ["--data", data]
    told += ["--mode", mode, "--baseline", "within", "--fail-on", "never"]
    _run("scan", zoo, *told, "--out", out, *more)
    with open(os.path.join(out, "results.jsonl")) as file:
        records = [json.loads(line) for line in file]
    return {
        os.path.basename(record["path"]): {name: _find(record, name) for name in KEPT}
        for record in records
    }


def _find(record: dict[str, Any], name: str) -> Any:
    """A field of a record, wherever its version keeps it."""
    info = record.get("info") or {}
    return record[name] if name in record else info.get(name)


def _hashes(folder: str) -> dict[str, str]:
    """Hash of the weights of every model, by file."""
    return {
        os.path.basename(path): checkpoints.read(path).sha256
        for path in checkpoints.find([folder])
        if path.endswith(".safetensors")
    }


def _compared(name: str, models: dict[str, Any]) -> dict[str, Any]:
    """Without what has no value, which another version may leave out, or another one."""
    left_out = REDEFINED.get(name.rpartition(" ")[2], ())
    return {
        model: {
            field: value for field, value in fields.items() if field not in left_out
        }
        if isinstance(fields, dict)
        else fields
        for model, fields in _present(models).items()
    }


def _present(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _present(value) for name, value in tree.items() if value}
    return tree


def difference(old: Any, new: Any) -> float:
    """The largest difference of two JSON values, absolute below 1 and relative above.

    Infinite where shapes differ.
    """
    if isinstance(old, dict) and isinstance(new, dict) and set(old) == set(new):
        return max((difference(old[name], new[name]) for name in old), default=0.0)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return max(map(difference, old, new), default=0.0)
    if isinstance(old, int | float) and isinstance(new, int | float):
        return float(np.abs(old - new)) / max(1.0, abs(old))
    return 0.0 if old == new else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("--out", required=True)
    compare = commands.add_parser("compare")
    compare.add_argument("golden")
    for command in (record, compare):
        command.add_argument("--zoo")
        command.add_argument("--data-dir")
    flags = parser.parse_args()
    found = measure(flags.zoo, flags.data_dir)
    if flags.command == "record":
        about = {
            "command": _timing.command_line(),
            "commit": _timing.commit(),
            "hardware": _timing.hardware(),
            "versions": _timing.versions(),
        }
        with open(flags.out, "w") as file:
            json.dump({"about": about, "found": found}, file, sort_keys=True)
        return 0
    with open(flags.golden) as file:
        golden = json.load(file)["found"]
    worst = 0.0
    for name in sorted(golden):
        if name not in found:
            print(f"{name:20} not run: give --zoo")
            continue
        apart = difference(_compared(name, golden[name]), _compared(name, found[name]))
        worst = max(worst, apart)
        print(f"{name:20} {apart:.2e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
