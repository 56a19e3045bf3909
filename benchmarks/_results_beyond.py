"""The part of the results page on models unlike those that the shipped profiles know."""

from typing import Any

from ban_jax import detectors
from benchmarks import _results, verdict_study

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


def beyond() -> str:
    """Wider models, and models of forty classes."""
    head = ("compared with", "clean flagged", "found", "right target")
    wide, turned = map(_study, STUDIES)
    left_out = turned["design"]["clean_scores"]
    limit = detectors.DETECTORS["ban"].rule.thresholds["profile"]
    over = sum(score > limit for score in left_out)
    passes = turned["baselines"]["alone"]["all"]["work"]
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
no longer works are left out. As in a scan, noise and changes of pixels are searched
towards twelve classes at most, where they are asked for: {passes:,.0f} passes a model.

{_results.table(head, _rows(turned))}

Of the even seeds' clean models, each judged by a profile without it and its variants,
{over} of {len(left_out)} score above {limit}: two originals are a thin profile."""
