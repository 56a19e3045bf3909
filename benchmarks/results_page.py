"""The page of results, written from the result files: no number in it is typed by hand.

    python -m benchmarks.results_page [--check]

writes docs/results.md; with `--check` it writes nothing and ends with 1 where the page
there is another one. `trust_table` is the table of the README.
"""

import sys
from collections.abc import Sequence
from typing import Any

from ban_jax.report import glossary
from benchmarks import _results, _results_beyond, _results_devices, verdict_study

PAGE = _results.ROOT / "docs/results.md"


def _studies() -> dict[str, dict[str, Any]]:
    """Data set -> its study."""
    return {
        one["made"]["data"]["name"]: one
        for one in _results.load("verdict_study")["studies"]
    }


def trust_table() -> str:
    """What the verdicts of the default mode are worth, per baseline."""
    rows = []
    for data, study in _studies().items():
        for name, baseline in verdict_study.CALLED.items():
            rates = _results.rates(study["baselines"][name]["all"])
            rows.append([data, f"`{baseline}`", *rates])
    head = ("data", "compared with", "clean ones flagged", "backdoored ones found")
    return _results.table([*head, "right target"], rows)


def _by_group(group: str) -> str:
    rows = []
    for data, study in _studies().items():
        for name, found in study["baselines"]["alone"][group].items():
            rows.append([data, f"`{name}`", *_results.rates(found)[:2]])
    return _results.table([f"data, `{group}`", "", "clean flagged", "found"], rows)


def _without_tuned(variants: dict[str, Any]) -> list[str]:
    kept = [found for name, found in variants.items() if name != "finetuned"]
    clean, bad = (sum(one[key] for one in kept) for key in ("clean", "backdoored"))
    alarms, hits = (
        sum(one[key][0] for one in kept) for key in ("false_alarms", "detected")
    )
    return [f"{alarms} of {clean}", f"{hits} of {bad}"]


def _all_and(tables: dict[str, Any], *groups: str) -> list[list[str]]:
    """Rates of all models, and of each of some groups."""
    rows = [["all", *_results.rates(tables["all"])[:2]]]
    for group in groups:
        rows += [
            [f"`{name}`", *_results.rates(found)[:2]]
            for name, found in tables[group].items()
        ]
    return rows


def verdicts() -> str:
    """The study of verdicts."""
    shares, work, originals = [], [], []
    for data, study in _studies().items():
        every = study["baselines"]["alone"]["all"]
        trained = study["baselines"]["alone"]["variant"]["as trained"]
        total, own = (one["clean"] + one["backdoored"] for one in (every, trained))
        shares.append(f"{100 * (1 - own / total):.0f} % ({data})")
        work.append(f"{every['work']:,.0f} ({data})")
        clean, bad = every["clean_originals"], every["backdoored_originals"]
        originals.append(
            f"{clean} clean and {bad} backdoored ones are originals ({data})"
        )
    plain = {
        f"{data}, without fine-tuned": study["baselines"]["alone"]["variant"]
        for data, study in _studies().items()
    }
    strangers = _studies()["cifar10"]["strangers"]
    plain["strangers, without fine-tuned"] = strangers["variant"]
    untuned = [[name, *_without_tuned(found)] for name, found in plain.items()]
    alone = [
        [data, f"{100 * last['detected_at_0.01']:.0f} %", f"{last['auc']:.2f}"]
        for data, study in _studies().items()
        for last in [study["rules"]["report"]["last_layer alone"]]
    ]
    stranger_rows = _all_and(strangers, "variant", "recipe", "architecture")
    other_rows = _all_and(_studies()["cifar10"]["other_recipes"], "recipe")
    return f"""## Verdicts

From {_results.link("verdict_study")}.
Profiles were made on one half of the models and figures on the other half: each model's
weights, batches and poisoned images are drawn from its own name and seed (those of the
recipe `warm` all go on from one clean model). 95 % intervals (Clopper and Pearson) are in
brackets. They take variants for models of their own, which they are not:
{" and ".join(originals)}. Models that are judged wrongly are listed in the file, with what
each witness says of them; [how the rule was chosen](../benchmarks/README.md).

{trust_table()}

{" and ".join(shares)} of the counted models are variants after training. With the
`profile`, by what was done to a model, by kind, by recipe and by architecture:

{_by_group("variant")}

{_by_group("kind")}

{_by_group("recipe")}

{_by_group("architecture")}

A candidate costs {" and ".join(work)} forward passes of one image on average.

**Strangers**: a CIFAR-10 profile of the recipes `onecycle` and `step` on ResNet18 and
PreActResNet18 judges models of other recipes and of VGG16.

{_results.table(["strangers", "clean flagged", "found"], stranger_rows)}

**Other recipes**: all CIFAR-10 models of each recipe, judged by a profile of the clean
ones of all other recipes; the rule and its thresholds had seen half of them. Models of
`warm` go on from one of `onecycle`.

{_results.table(["recipe", "clean flagged", "found"], other_rows)}

**Without models that were fine-tuned**, judged with the profile:

{_results.table(["", "clean flagged", "found"], untuned)}

**The last layer alone** (L, no images):

{_results.table(["data", "found at 1 % false alarms", "AUC"], alone)}"""


def evading() -> str:
    """What an attacker who trains against the noise leaves of the verdicts."""
    table = _results.load("evading_attacker")["table"]
    witnesses = glossary.witnesses(table[0]["speaking"])
    rows = [
        [
            "clean"
            if one["clean"]
            else "backdoored"
            if one["strength"] is None
            else (f"strength {one['strength']}, {one['further_epochs']} epochs"),
            str(one["models"]),
            _results.spread(one["clean_accuracy"]),
            _results.spread(one["excess"]),
            _results.spread(one["reached_by_noise"]),
            ", ".join(f"{count} {word}" for word, count in one["verdicts"].items()),
            " ".join(str(one["speaking"][name]) for name in witnesses),
        ]
        for one in table
    ]
    letters = " ".join(one.letter for one in witnesses.values())
    head = ["trained on with", "models", "accuracy", "excess success"]
    head += ["reached by noise", "verdicts", f"{letters} speak"]
    return f"""## An attacker who trains against the noise

From {_results.link("evading_attacker")}.
Digits models are trained on with a penalty on what the detector's own noise search
reaches. The last column counts models whose target (of clean ones: strongest class) a
witness finds odd by itself.

{_results.table(head, rows)}"""


def attacks() -> str:
    """How well planted backdoors work."""
    text = []
    for name in ("attack_quality", "attack_quality_all_to_all"):
        rows = [
            [
                f"`{one['attack']}`",
                one["mode"].replace("_", " "),
                f"`{one['zoo']}`",
                ", ".join(f"{rate:g}" for rate in one["poison_rate"]),
                _results.spread(one["clean_accuracy"]),
                _results.spread(one["asr"]),
                _results.spread(one["cross_accuracy"]),
                str(len(one["failed"])),
            ]
            for one in _results.load(name)["table"]
        ]
        head = ["attack", "mode", "zoo", "poisoned", "accuracy", "raw success"]
        head += ["must not fire", "failed of 3"]
        text.append(f"From {_results.link(name)}:\n\n{_results.table(head, rows)}")
    joined = "\n\n".join(text)
    return f"""## Attacks

CIFAR-10 at 16x16, ResNet18 of width 8, three seeds and targets each. Success is the raw
rate: these models were measured before success was counted as excess over the same images
without trigger. "Must not fire" is the accuracy on images with another image's trigger or
with what cover images carry. Success of `ssdt`, which counts one victim class alone, is an
upper bound of unknown width. Success of all-to-all is bounded by accuracy; models of the
second file were trained longer and see triggers behind the augmentation (`--stamp-last`).
Runs that fell short are listed too; settings are in the files and in
[`benchmarks/README.md`](../benchmarks/README.md).

{joined}"""


def detection() -> str:
    """How long a scan takes, beside the released procedure."""
    fresh = _results.load("detection_speed_default")
    mode = fresh["default"]
    count = mode["candidates"]
    warm, cold = (
        mode["later_wall_seconds"]["mean"] / count,
        mode["first_wall_seconds"] / count,
    )
    device = mode["device_seconds_per_candidate"]["mean"]
    slow = fresh["released"]["seconds_per_candidate"]["mean"]
    lean = fresh["lean"]["seconds_per_candidate"]["mean"]
    rows = [
        ["released procedure, PyTorch twin, its README settings", f"{slow:.1f}", "", ""]
    ]
    rows.append(["the same without gradients nobody uses", f"{lean:.1f}", "", ""])
    for text, seconds in (
        ("default mode, whole command, compiled before", warm),
        ("default mode, whole command, compiled for the first time", cold),
        ("default mode, device time alone", device),
    ):
        ratios = [f"{slow / seconds:.0f}", f"{lean / seconds:.0f}"]
        rows.append([text, f"{seconds:.2f}", *ratios])
    old = _results.load("detection_speed")
    targeted = (
        old["ban_jax"]["later_wall_seconds"]["mean"] / old["ban_jax"]["candidates"]
    )
    reduced = old["reduced"]["seconds_per_candidate"]["mean"]
    search = _results.load("search_speed_cpu")["image_gradients_per_second"]
    gradients = [
        [f"`{way}`", _results.spread(found, 0)] for way, found in search.items()
    ]
    peak = _results.load("bench_cpu_resnet18_w16")["rows"][0]["share_of_peak"]
    return f"""## Detection speed

From {_results.link("detection_speed_default")}.
{count} ResNet18 of width 16 on CIFAR-10, two CPU
cores, an idle machine. The released procedure was timed whole on one of them.

{_results.table(["", "s per candidate", "times released", "times lean"], rows)}

A scan is faster because it does less, not because of the framework. Mode `targeted` takes
{targeted:.1f} s where PyTorch takes {reduced:.1f} s for the same reduced work without files
({_results.link("detection_speed")}).

The noise search alone, image gradients per second, mean of 7, from
{_results.link("search_speed_cpu")}:

{_results.table(["way", "image gradients per second"], gradients)}

`scan` is what a scan does on a CPU: models on host threads. XLA's CPU backend computes
stacked convolutions slowly, so stacking is left to accelerators. The search reaches
{100 * peak:.0f} % of the measured matrix-product peak
({_results.link("bench_cpu_resnet18_w16")})."""


def speed_sentence() -> str:
    """What the README says of speed."""
    fresh = _results.load("detection_speed_default")
    mode = fresh["default"]
    warm = mode["later_wall_seconds"]["mean"] / mode["candidates"]
    slow = fresh["released"]["seconds_per_candidate"]["mean"]
    lean = fresh["lean"]["seconds_per_candidate"]["mean"]
    return (
        f"{warm:.2f} s per candidate where the released procedure takes {slow:.1f} s"
        f" and the same without gradients nobody uses {lean:.1f} s:"
        f" {slow / warm:.0f} and {lean / warm:.0f} times less"
    )


def scale() -> str:
    """Cost per candidate and memory of large scans."""
    cost = [
        [str(one["candidates"]), _results.spread(one["seconds"])]
        for one in _results.load("scan_scale")["per_candidate"]
    ]
    memory = [
        [str(one["candidates"]), f"{one['peak_mib']:.0f}"]
        for one in _results.load("scan_memory")["rows"]
    ]
    return f"""## Scale

Digits models of width 4, one scan of distinct files, the whole command, from
{_results.link("scan_scale")}, and peak memory, from {_results.link("scan_memory")}:

{_results.table(["candidates", "seconds per candidate"], cost)}

{_results.table(["candidates", "peak MiB"], memory)}"""


def repair() -> str:
    """What repairs do to accuracy and to attacks."""
    text = []
    for name in ("repair_quality", "repair_longer"):
        rows = [
            [
                f"`{one['method']}`",
                one["attack"],
                str(one["clean_accuracy_before"]["n"]),
                *(
                    " / ".join(
                        f"{one[f'{figure}_{when}']['mean']:.3f}"
                        for figure in ("clean_accuracy", "asr", "recovered_accuracy")
                    )
                    for when in ("before", "after")
                ),
            ]
            for one in _results.load(name)["comparison"]
            if one["architecture"] == "all"
        ]
        head = ["method", "attack", "models", "before", "after"]
        text.append(f"From {_results.link(name)}:\n\n{_results.table(head, rows)}")
    never = [
        one["recovered_accuracy"]
        for one in _results.load("repair_quality")["never_backdoored"]
        if one["recovered_accuracy"] is not None
    ]
    speed = [
        [models, _results.spread(found, 2)]
        for models, found in _results.load("repair_speed_cpu")[
            "seconds_per_model"
        ].items()
    ]
    joined = "\n\n".join(text)
    return f"""## Repair

ResNet18 and PreActResNet18 of width 8 on 16x16 CIFAR-10, 2,500 clean images of which a
fifth are held out, the budget off. Each cell is accuracy / raw attack success / share of
triggered images recognised again. In the second table models were trained three times as
long.

{joined}

The same triggered images given to models that never had a backdoor: they recognise
{min(never):.2f} to {max(never):.2f} of them.

Seconds per repaired model, by how many are repaired together, from
{_results.link("repair_speed_cpu")}:

{_results.table(["together", "s per model"], speed)}"""


def page() -> str:
    """The whole page."""
    parts = (
        verdicts,
        _results_beyond.beyond,
        evading,
        detection,
        _results_devices.times,
        attacks,
        _results_devices.training,
        repair,
        _results_devices.families,
        scale,
        _results_devices.gpu,
    )
    head = """# Results

This page is written by `python -m benchmarks.results_page` from the files in
[`benchmarks/results`](../benchmarks/results). Each file says its command, commit,
hardware and versions."""
    return "\n\n".join([head, *(part() for part in parts)]) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or compares it."""
    if list(arguments) == ["--check"]:
        same = PAGE.read_text(encoding="utf-8") == page()
        print("docs/results.md is up to date" if same else "docs/results.md is stale")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
