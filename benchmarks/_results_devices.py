"""Parts of the page of results: networks, training, methods' times, accelerators."""

from benchmarks import _results


def families() -> str:
    """What is known of networks without batch statistics."""
    return f"""## Networks without batch statistics

Small ones, each clean or with a backdoor of an excess success of .9 or more, judged one at
a time by default, and beside half of their clean models as models one vouches for; the AUC
is of a vector's largest class. On CIFAR-10, from {_results.link("families")}:

{_families("families")}

On digits enlarged to 16 pixels a side, from {_results.link("families_digits")}:

{_families("families_digits")}"""


def _families(name: str) -> str:
    rows = []
    for family, one in _results.load(name)["families"].items():
        proved = one["proved_by_a_patch"]
        shown = ", ".join(f"{kind} {n} of {m}" for kind, (n, m) in proved.items())
        noise = one["witnesses"]["untargeted"]
        at_target = f"{noise['at_target'][0]} of {noise['at_target'][1]}"
        change = one["witnesses"].get("universal")
        reached = f"{change['auc']:.2f}" if change else ""
        sets = (one["verdicts_by_default"], one.get("verdicts_with_trusted", {}))
        told = [", ".join(f"{n} {v}" for v, n in found.items()) for found in sets]
        rows.append([family, f"{noise['auc']:.2f}", at_target, reached, shown, *told])
    head = ["family", "AUC of noise", "leads to the target", "AUC of X", "patch proves"]
    head += ["verdicts by default", "verdicts beside half of the clean ones"]
    return _results.table(head, rows)


def gpu() -> str:
    """What was measured on an accelerator."""
    found = _results.load("gpu_h100")
    beside = _results.load("gpu_h100_pytorch")
    ours = beside["ban_jax"]["seconds_per_candidate"]["mean"]
    theirs = min(one["median_of_last_four"] for one in beside["torch"])
    rows = []
    for one in found["rows"]:
        seconds = one.get("seconds_per_candidate")
        told = _results.spread(seconds) if isinstance(seconds, dict) else ""
        row = [one["precision"], str(one["candidates"]), told, one.get("printed", "")]
        rows.append(row)
    return f"""## On a GPU

From {_results.link("gpu_h100")}: {found["what"]}.

{_results.table(["precision", "candidates", "s per candidate", "printed"], rows)}

Not measured: {found["not_measured"].rstrip(".")}.

Beside PyTorch on the same device, from {_results.link("gpu_h100_pytorch")}: the work of
`--mode targeted` takes {ours:.3f} s per candidate, eight at once in TF32, and
{theirs:.3f} s in PyTorch, the faster of two memory formats in TF32,
{theirs / ours:.1f} times as long. The default mode beside it, bfloat16 and
`torch.compile` were not measured."""


def times() -> str:
    """What each method takes, and what it would take by its documented counts."""
    found = _results.load("paper_time_per_detector")
    rows = [
        [
            f"`{one['detector']}`",
            f"{one['passes_measured']:,.0f}",
            _results.seconds(one["seconds_measured"]),
            f"{one['passes']:,.0f}" if one["is_product"] else "the same",
            _results.seconds(one["seconds"]) if one["is_product"] else "",
        ]
        for one in found["rows"]
    ]
    head = ["", "passes spent", "s", "documented passes, at most", "s, computed"]
    inverted = _results.load("inversion_speed")
    stopped = inverted["neural_cleanse_to_its_stop"]
    at_once = [
        [
            f"`{one['method']}`",
            *(f"{one[way]['seconds']:.2f}" for way in ("one", "two", "eight")),
            f"{one['ratio_to_one']:.2f}",
            f"{one['ratio_to_two']:.2f}",
        ]
        for one in inverted["rows"]
    ]
    ways = ["", "one, s", "two, s", "eight, s", "eight / one", "eight / two"]
    return f"""## Time per detector

From {_results.link("paper_time_per_detector")}.
ResNet18 of width {found["width"]}, CIFAR-10, two models side by side on two idle CPU
cores, compiled before. Methods whose documented counts take hours ran with fewer, down to
{found["passes"]:,} passes where their least counts allow it. `ban` did not look closer at
these models, which had hardly been trained. The last column is the measured time times
documented passes by passes spent. A pass of a method with a U-Net (`feature_re`,
`unicorn`, `bti_dbf`, `bti_dbf_star`) costs more than one of the others.

{_results.table(head, rows)}

Neural Cleanse at its documented counts, ended by its own early stop, takes
{stopped["seconds"]:.0f} s and {stopped["forward_equivalents"]:,.0f} passes per model
({_results.link("inversion_speed")}; ResNet18 of width 8, CIFAR-10 at 16x16, two cores).
Inversions of models one at a time on one thread, two side by side and eight at once, in
seconds per model and few steps (width 4, digits):

{_results.table(ways, at_once)}"""


def training() -> str:
    """How fast populations train."""
    rows = [
        [f"`{one['row']}`", str(one["models"]), f"{one['images_per_second']:.0f}"]
        for one in _results.load("training_speed_cpu")["table"]
    ]
    parts, halves = (
        {one["row"]: one["images_per_second"] for one in _results.load(name)["table"]}
        for name in ("training_speed_cpu_w32", "training_speed_cpu_w32_halves")
    )
    return f"""## Training speed

From {_results.link("training_speed_cpu")}.
ResNet18 of width 16, 32x32 images, batch 128, two CPU
cores; models x images per second.

{_results.table(["row", "models", "models x images per second"], rows)}

At width 32 one model alone trains on {parts["population"]:.0f} images per second with
the gradients of kernels taken in parts that fit a CPU's caches
({_results.link("training_speed_cpu_w32")}), and on {halves["population"]:.0f} with them
in halves, as they were ({_results.link("training_speed_cpu_w32_halves")}).

`benchmarks/full_size.sh` is the recipe for a GPU, not run to the end yet."""
