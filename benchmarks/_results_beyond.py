"""The part of the results page on models unlike those that the shipped profiles know."""

import json
import os
from typing import Any

from ban_jax import detectors
from benchmarks import _results, _verdict_models, verdict_study

SCAN = "forty_classes_scan"
STUDIES = {"w16": "verdict_study_w16", "turned": "verdict_study_turned"}


def _study(name: str) -> dict[str, Any]:
    (found,) = _results.load(STUDIES[name])["studies"]
    return found


def _rows(study: dict[str, Any]) -> list[list[str]]:
    """Per baseline: clean models flagged, backdoored ones found, right targets."""
    return [
        [f"`{verdict_study.CALLED[name]}`", *_results.rates(tables["all"])]
        for name, tables in study["baselines"].items()
    ]


def _scanned() -> tuple[str, str]:
    """Of a scan of forty classes: its rates in words, and passes per candidate."""
    path = _results.RESULTS / f"{SCAN}.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    evidence = _results.RESULTS / "verdict_evidence_cifar10_turned.jsonl.xz"
    _, models = _verdict_models.load(str(evidence))
    known = {f"{model.truth['name']}.safetensors": model for model in models}
    pairs = [(known[os.path.basename(line["path"])], line) for line in lines]
    found = verdict_study.figures(*map(list, zip(*pairs, strict=True)))
    flagged, hit, right = _results.rates(found)
    words = f"{flagged} clean ones are flagged, {hit} found, {right} targets right"
    return words, f"{found['work']:,.0f}"


def beyond() -> str:
    """Wider models, and models of forty classes."""
    head = ("compared with", "clean flagged", "found", "right target")
    wide, turned = map(_study, STUDIES)
    left_out = turned["design"]["clean_scores"]
    limit = detectors.DETECTORS["ban"].rule.thresholds["profile"]
    over = sum(score > limit for score in left_out)
    scanned, passes = _scanned()
    return f"""## Wider models, and forty classes

Few models, each counted with its four variants.

**ResNet18 of width 16**, CIFAR-10 at 32x32: two clean ones, one with BadNets, one with
Blend, judged by the shipped profile, which knows widths of 8 alone
({_results.link(STUDIES["w16"])}):

{_results.table(head, _rows(wide))}

**Forty classes**: CIFAR-10 whose images are turned, the quarter turn being part of the
label (`python -m benchmarks.quarter_turns`); ResNet18 of width 8, accuracy about .3; six
clean models and two each of BadNets, Blend, WaNet and Bpp. Profile of the even seeds,
figures of the odd ones ({_results.link(STUDIES["turned"])}). Variants whose trigger
no longer works are left out. Noise and changes of pixels towards classes were measured at
all forty:

{_results.table(head, _rows(turned))}

A scan of the same odd seeds searches twelve classes and takes {passes} passes a model
([`{SCAN}.jsonl`]({_results.REPOSITORY_RESULTS}/{SCAN}.jsonl), profile and scan as in
[benchmarks](../benchmarks/README.md)): {scanned}.

Of the even seeds' clean models, each judged by a profile without it and its variants,
{over} of {len(left_out)} score above {limit}: two originals are a thin profile, and forty
classes are more chances to be odd than the ten at which that threshold was chosen."""
