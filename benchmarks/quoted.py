"""Figures of result files as the documentation quotes them, for its tests.

A page that has other figures than the files fails a test: `PAGES` holds patterns of what
must stand in it, spaces and line breaks alike. Pages that are written whole from the files
are `results_page`'s.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ban_jax import verdict
from ban_jax.baselines import profile
from ban_jax.detectors import readings, witnesses
from benchmarks import (
    _quoted_methods,
    _results,
    _staged,
    _verdict_models,
    verdict_evidence,
)


def profile_scan() -> list[str]:
    """Twelve models of another make."""
    path = _results.RESULTS / "cifar10_profile_scan.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    right = [(one["verdict"] == "clean") == ("clean" in one["path"]) for one in lines]
    assert len(right) == 12
    return ["all twelve right"] if all(right) else ["twelve, of which wrong"]


def older_rules() -> list[str]:
    """How often the rules up to 0.3 flagged clean models, each judged by itself."""
    (whole,) = (
        one["flagged"][0]
        for one in _results.load("zoo_scan")["tables"]["within"]
        if (one["attack"], one["architecture"]) == ("clean", "all")
    )
    figures = _results.load("detection_quality")["figures"]
    rate = figures["targeted/within"]["false_positive_rate"][0]
    low, high = sorted((whole, rate))
    return [
        f"`targeted` within a model flagged {100 * low:.0f} to {100 * high:.0f} % of "
        "clean ones"
    ]


def patches() -> list[str]:
    """What a small patch proves, in the study and of models trained later."""
    path = str(_results.RESULTS / "verdict_evidence_cifar10.jsonl.xz")
    _, *lines = verdict_evidence.read(path)
    clean = [max(one["vectors"]["patch"]) for one in lines if one["kind"] == "clean"]
    alarms = sum(share > witnesses.PROOF for share in clean)
    proved = [
        one["vectors"]["patch"][one["target"]] > witnesses.PROOF
        for one in lines
        if (one["kind"], one["architecture"]) == ("badnets", "resnet18")
        and one.get("variant") == "finetuned"
        and one["excess"] >= _verdict_models.WORKING
    ]
    later = _results.load("patch_witness_unseen")["summary"]
    first, again = (
        later[kind]["badnets"]["patch"] for kind in ("as trained", "finetuned")
    )
    return [
        f"{sum(proved)} of {len(proved)} fine-tuned ResNet18 models with BadNets",
        f"flags {alarms or 'none'} of {len(clean)} clean models and variants",
        f"the most that a class gains in one is {max(clean):.2f}",
        f"finds {first[0]} of {first[1]}, and {again[0]} of {again[1]} fine-tuned ones",
    ]


def levels() -> list[str]:
    """What the level of universal perturbations shows, in both halves of the study."""
    clean: dict[bool, list[float]] = {True: [], False: []}
    shown = named = agreed = count = 0
    for data in ("digits", "cifar10"):
        path = str(_results.RESULTS / f"verdict_evidence_{data}.jsonl.xz")
        known = profile.baseline(profile.load(data))
        judge, without = (verdict.Judge("profile", profiles="shipped") for _ in "ab")
        for model in _verdict_models.load(path)[1]:
            line = model.line
            if "universal" not in line["vectors"]:
                continue
            beyond = readings.above(
                np.array(line["vectors"]["universal"], float), known.centre["universal"]
            )
            if model.is_clean:
                clean[model.is_design].append(float(np.max(beyond)))
            elif model.works and data == "cifar10" and _is_softened_blend(model):
                count += 1
                shown += bool(np.max(beyond) > witnesses.LEVEL)
                named += judge(line)["target"] == model.truth["target"]
                cheap = _staged.without(line, ("universal",))
                agreed += without(cheap)["verdict"] == "backdoored"
    return [
        f"finds {shown} of {count} fine-tuned Blend models of both halves",
        f"names the target of {named}",
        f"finds {agreed} of them",
        f"whose {len(clean[True])} clean models and variants of both data sets reach "
        f"{max(clean[True]):.2f}",
        f"the {len(clean[False])} of the reported half reach {max(clean[False]):.2f}",
    ]


def line_of_levels() -> list[str]:
    """What the line of the level was drawn from, of the design half of CIFAR-10."""
    studies = {
        one["made"]["data"]["name"]: one["design"]["levels"]
        for one in _results.load("verdict_study")["studies"]
    }
    found = studies["cifar10"]
    largest, named = found["largest"], found["named"]
    assert studies["digits"]["largest"]["clean"][-1] < largest["clean"][-1]
    return [
        rf"reach {largest['clean'][-1]:.2f} \(CIFAR-10\) and less \(digits\), Blend "
        f"models that were missed begin at {min(largest['not flagged']):.2f}",
        f"the largest odds ratio names the target of {named['by the odds ratio']} of "
        f"{named['beyond']} backdoored models beyond the line, the score of all "
        f"witnesses of {named['by all witnesses']}",
    ]


def _is_softened_blend(model: _verdict_models.Model) -> bool:
    return (model.truth["kind"], model.truth.get("variant")) == ("blend", "finetuned")


def _evaders(strength: float) -> dict[str, Any]:
    """Six models that were trained on for ten epochs against the noise."""
    (found,) = (
        one
        for one in _results.load("evading_attacker")["table"]
        if (one["strength"], one["further_epochs"]) == (strength, 10)
    )
    assert found["models"] == 6
    return found


def evaders() -> list[str]:
    """How many attackers who train against the noise are found."""
    called = _evaders(1)["verdicts"].get("backdoored", 0)
    return [
        "of six digits models that did so for ten epochs at strength 1 "
        f"{called or 'none'} is called backdoored"
    ]


def evasion() -> list[str]:
    """What evading costs, what still speaks, and what is judged wrongly besides."""
    found, plain = _evaders(1), _evaders(0)
    assert found["verdicts"] == {"clean": 6}
    accuracy, success = (
        f"{plain[one]['mean'] - found[one]['mean']:.3f}".removeprefix("0")
        for one in ("clean_accuracy", "excess")
    )
    before = [
        one
        for one in _results.load("evading_attacker")["models"]
        if one["strength"] is None
    ]
    (flagged,) = (
        one["score"]
        for one in before
        if (one["attack"], one["verdict"]) == ("clean", "backdoored")
    )
    (missed,) = (
        one["score"]
        for one in before
        if one["attack"] != "clean" and one["verdict"] != "backdoored"
    )
    return [
        f"with {accuracy} less accuracy and {success} less success than the same",
        f"speaks longest, in {found['speaking']['batch_minus_stored']} of the 6",
        rf"One of the six clean models is flagged \({flagged:.2f};",
        rf"one of the six backdoored ones is not before .* \({missed:.2f}\)",
    ]


def repairs() -> list[str]:
    """What repairs cost, and what they left alive."""
    costs = {}
    for one in _results.load("repair_quality")["comparison"]:
        if (one["architecture"], one["attack"]) == ("all", "badnets blend wanet bpp"):
            before, after = (
                one[f"clean_accuracy_{when}"] for when in ("before", "after")
            )
            costs[one["method"]] = 100 * (before["mean"] - after["mean"])
    path = _results.RESULTS / "repair_digits.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    after = [one["after"] for one in lines]
    assert [one["verdict"] for one in after] == ["backdoored", "clean"]
    assert lines[1]["before"]["verdict"] == "suspicious"
    kept = " and ".join(f"{one['asr']:.2f}" for one in after)
    changed = {
        name: [
            (one["changed"], one["models"])
            for kind, one in groups.items()
            if kind != "clean"
        ]
        for name, groups in _results.load("paper_repair")["methods"].items()
    }
    done = {name: sum(n for n, _ in pairs) for name, pairs in changed.items()}
    assert {sum(n for _, n in pairs) for pairs in changed.values()} == {6}
    return [
        f"`ban` with its default settings changed {done['ban']}, `finetune` "
        f"{done['finetune']} and `anp` {done['anp'] or 'none'} within three points",
        f"costs about {costs['ban']:.0f} points of accuracy",
        f"fine-tuning on so few images alone costs about {costs['finetune']:.0f}",
        f"keep an attack success of {kept}",
    ]


def numerics() -> list[str]:
    """What lesser precision and other lowerings change."""
    found = _results.load("numerics_bundled")
    variants = {one["variant"]: one for one in found["variants"]}
    half = variants["bfloat16, table"]
    (changed,) = half["verdicts_changed"]
    assert changed
    others = sum(
        len(one["verdicts_changed"])
        for name, one in variants.items()
        if not name.startswith("bfloat16")
    )
    return [
        f"in mode `{found['mode']}` bfloat16 moves scores by at most "
        f"{half['in_standard_errors']['max']:.2f} standard errors and changes one of "
        f"{half['scored']} verdicts; which lowering is used changes {others or 'none'}"
    ]


def without_statistics() -> list[str]:
    """What is said of networks without batch statistics beside their own clean models."""
    found = _results.load("families")["families"]
    measured = [one for one in found.values() if "verdicts_with_trusted" in one]
    beside = [one["verdicts_with_trusted"] for one in measured]
    total = sum(one["models"]["blend"] for one in measured)
    blend = sum(one.get("blend: right target", 0) for one in beside)
    alarms = sum(
        one.get(f"clean: {v}", 0)
        for one in beside
        for v in ("backdoored", "suspicious")
    )
    digits = _results.load("families_digits")["families"]
    those = [one["verdicts_with_trusted"] for one in digits.values()]
    shown = sum(one.get("blend: backdoored", 0) for one in those)
    of = sum(one["models"]["blend"] for one in digits.values())
    wrong = digits["vit"]["verdicts_with_trusted"].get("clean: backdoored", 0)
    won = max(found["convnext"]["witnesses"]["universal"]["largest_of_clean"])
    return [
        f"in {blend} of {total}, with {alarms or 'no'} clean one flagged",
        f"in {shown} of {of}, with {wrong} clean ViT",
        f"X wins up to {won:.2f} of the images in clean ConvNeXts",
    ]


def ray() -> list[str]:
    """What the page on large scans says of the cluster's overhead."""
    found = _results.load("ray_overhead")
    each, few = found["seconds_per_candidate"], str(found["few"])
    seconds = {name: one[few]["min"] for name, one in found["seconds"].items()}
    return [
        rf"{found['many']} digits candidates",
        rf"{each['ray']['whole']:.3f} s per candidate with Ray, its start included, and "
        rf"{each['process']['whole']:.3f} s without",
        rf"{few} candidates took {seconds['ray']:.1f} s with Ray and "
        rf"{seconds['process']:.1f} s without",
    ]


PAGES: dict[str, tuple[Callable[[], Iterable[str]], ...]] = {
    "docs/methods.md": _quoted_methods.PATTERNS,
    "docs/verdicts.md": (profile_scan, older_rules, patches, levels),
    "docs/limits.md": (evaders, without_statistics),
    "docs/repair.md": (repairs,),
    "docs/scale.md": (numerics,),
    "benchmarks/README.md": (line_of_levels, evasion),
    "benchmarks/SCALE.md": (ray,),
}
"""Page -> functions that give patterns of what must stand in it."""


def missing(page: str, text: str) -> list[str]:
    """Patterns of a page that its text does not have.

    Args:
      page: a key of `PAGES`.
      text: of the page.
    """
    plain = " ".join(re.sub(r"\| ?-+ ?(?=\|)", "| --- ", text).split())
    patterns = [" ".join(one.split()) for make in PAGES[page] for one in make()]
    return [one for one in patterns if not re.search(one, plain)]
