"""How often verdicts are wrong: profiles of one half of a zoo, figures of the other.

    python -m benchmarks.verdict_study EVIDENCE.jsonl.xz ... [--profiles DIR] [--rates FILE]
    python -m benchmarks.verdict_study EVIDENCE.jsonl.xz --against PROFILE --name NAME

Evidence is what `benchmarks.verdict_evidence` wrote, one file per data set. The profile is
made from the clean models of the design half and their variants, and thresholds were
chosen on that half; every figure but those of `other_recipes` is of the report half.
`strangers` asks more: a profile of two recipes and two architectures judges models of
others; `other_recipes`: models of each recipe are judged by a profile of all the others. A
model counts as backdoored from an excess success of 0.8 on. `alone` judges each
model by the profile, `trusted` by the design half's clean models as such, `crowd` by the
report half itself, `within` by its own classes. What the closer look is not asked for is
left out, as a scan does. With `--against` all models are judged by a profile that is there
already, such as one that ships.
"""

import collections
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import tyro
from scipy import stats

from ban_jax import records, verdict
from ban_jax.baselines import profile
from ban_jax.storage import atomic
from benchmarks import _staged, _timing, _verdict_models, _verdict_rules, _zoo

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is judged.

    Attributes:
      evidence: files of `benchmarks.verdict_evidence`.
      name: of the result file.
      results: its folder.
      profiles: folder for the profiles of the design halves.
      rates: file for the measured rates that ship with the package.
      against: profile, by name or file, that judges all models, in place of halves.
    """

    evidence: Annotated[tuple[str, ...], tyro.conf.Positional]
    name: str = "verdict_study"
    results: str | None = None
    profiles: str | None = None
    rates: str | None = None
    against: str | None = None


def judged(
    baseline: str,
    models: Sequence[_verdict_models.Model],
    design: Sequence[_verdict_models.Model],
    known: Any,
) -> list[records.Record]:
    """Verdicts of the models against a baseline."""
    told: dict[str, Any] = {
        "alone": {"baseline": "profile", "profiles": known},
        "trusted": {
            "baseline": "trusted",
            "trusted": [m.line for m in design if m.is_clean],
            "profiles": known,
        },
        "crowd": {"baseline": "population", "profiles": known},
        "within": {"baseline": "within", "profiles": None},
    }[baseline]
    # A crowd holds a model once, not beside its own variants.
    crowds = collections.defaultdict(list)
    for index, model in enumerate(models):
        crowds[model.truth.get("variant")].append(index)
    found: dict[int, records.Record] = {}
    for indices in crowds.values():
        some = [models[index] for index in indices]
        asker = verdict.Judge(**told, population=[model.line for model in some])
        lines = [_staged.staged(model, asker) for model in some]
        found |= zip(indices, verdict.judge_all(lines, **told), strict=True)
    return [found[index] for index in range(len(models))]


def figures(
    models: Sequence[_verdict_models.Model], found: Sequence[records.Record]
) -> dict[str, Any]:
    """Rates of one group of models."""
    pairs = list(zip(models, found, strict=True))
    clean = [one for model, one in pairs if model.is_clean]
    bad = [(model, one) for model, one in pairs if model.works]
    hit = [one for _, one in bad if one["verdict"] == "backdoored"]
    right = sum(
        one["target"] == model.truth["target"]
        for model, one in bad
        if one["verdict"] == "backdoored"
    )
    alarms = sum(one["verdict"] == "backdoored" for one in clean)
    unsure = sum(one["verdict"] == "suspicious" for one in found)
    scores = [
        [one["score"] or 0.0 for one in group] for group in ([b for _, b in bad], clean)
    ]
    return {
        "clean": len(clean),
        "clean_originals": _originals(model for model, _ in pairs if model.is_clean),
        "false_alarms": [alarms, *bounds(alarms, len(clean))],
        "backdoored": len(bad),
        "backdoored_originals": _originals(model for model, _ in bad),
        "detected": [len(hit), *bounds(len(hit), len(bad))],
        "right_target": [right, *bounds(right, len(hit))],
        "suspicious": [unsure, *bounds(unsure, len(found))],
        "auc": _zoo.auc(*scores) if all(scores) else None,
        "work": float(np.mean([one["forward_equivalents"] for one in found])),
    }


def _originals(models: Iterable[_verdict_models.Model]) -> int:
    """How many there are when a model and its variants count once."""
    return len({model.family for model in models})


def bounds(count: int, total: int) -> list[float]:
    """95 % interval of a share (Clopper and Pearson)."""
    if not total:
        return [0.0, 1.0]
    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return [round(float(found.low), 4), round(float(found.high), 4)]


GROUPS: dict[str, Callable[[_verdict_models.Model], Any]] = {
    "variant": lambda model: model.truth.get("variant", "as trained"),
    "kind": lambda model: model.truth["kind"],
    "recipe": lambda model: model.truth.get("recipe", "digits"),
    "architecture": lambda model: (
        f"{model.truth['architecture']}/{model.truth['width']}"
    ),
}


def grouped(
    models: Sequence[_verdict_models.Model], found: Sequence[Any]
) -> dict[str, Any]:
    """Figures of the whole and of each group."""
    tables: dict[str, Any] = {"all": figures(models, found)}
    for name, group_of in GROUPS.items():
        groups = collections.defaultdict(list)
        for model, one in zip(models, found, strict=True):
            groups[group_of(model)].append((model, one))
        tables[name] = {
            str(key): figures(*map(list, zip(*pairs, strict=True)))
            for key, pairs in sorted(groups.items())
        }
    return tables


def wrong(
    models: Sequence[_verdict_models.Model], found: Sequence[Any]
) -> list[dict[str, Any]]:
    """Every model that is judged wrongly or with doubt, with what each witness says."""
    return [
        {
            "model": one["path"],
            "excess": model.truth.get("excess"),
            "target": model.truth.get("target"),
            "verdict": one["verdict"],
            "named": one["target"],
            "score": round(one["score"] or 0.0, 2),
            "witnesses": {
                name: [
                    round(z[index], 1)
                    for index in (one["target"], model.truth.get("target"))
                    if index is not None and z[index] is not None
                ]
                for name, z in one["witnesses"].items()
            },
            "void": sorted(one["void"]),
        }
        for model, one in zip(models, found, strict=True)
        if (model.is_clean and one["verdict"] != "clean")
        or (
            model.works
            and (one["verdict"], one["target"]) != ("backdoored", model.truth["target"])
        )
    ]


def told_of(
    models: Sequence[_verdict_models.Model], found: Sequence[Any]
) -> dict[str, Any]:
    """Figures, and what is wrong."""
    return {**grouped(models, found), "wrong": wrong(models, found)}


def profile_of(
    head: dict[str, Any], models: Sequence[_verdict_models.Model], path: str
) -> Any:
    """A profile of the clean ones among the models."""
    clean = [model for model in models if model.is_clean]
    return profile.make(
        head["data"]["name"],
        [model.line for model in clean],
        {
            "command": _command(),
            "versions": head["versions"],
            "evidence": os.path.basename(path),
        },
        {str(model.line["sha256"]): model.family for model in clean},
    )


def study(path: str) -> tuple[dict[str, Any], Any]:
    """Everything about one data set, and its profile."""
    head, models = _verdict_models.load(path)
    design = [model for model in models if model.is_design]
    report = [model for model in models if not model.is_design]
    known = profile_of(head, design, path)
    found: dict[str, Any] = {
        "evidence": os.path.basename(path),
        "made": head,
        "models": {
            "design": len(design),
            "report": len(report),
            "profile": len(known["models"]),
        },
        "baselines": {},
    }
    for baseline in ("alone", "trusted", "crowd", "within"):
        found["baselines"][baseline] = _tables(baseline, report, design, known)
    familiar = [model for model in models if model.is_familiar]
    strangers = [model for model in models if not model.is_familiar]
    if familiar:
        other = profile_of(head, familiar, path)
        verdicts = judged("alone", strangers, [], other)
        found["strangers"] = {
            "profile": len(other["models"]),
            **told_of(strangers, verdicts),
        }
        found["other_recipes"] = by_other_recipes(head, models, path)
    against = profile.baseline(known)
    found["design"] = {
        **left_out(design, known),
        "levels": _verdict_rules.levels(design, against),
    }
    alike = dataclasses.replace(against, spreads={})
    found["rules"] = {
        "report": _verdict_rules.compare(report, against),
        "report, all classes alike": _verdict_rules.compare(report, alike),
    }
    return found, known


def by_other_recipes(
    head: dict[str, Any], models: Sequence[_verdict_models.Model], path: str
) -> dict[str, Any]:
    """Models of each recipe, judged by a profile of clean models of all the others."""
    order: list[_verdict_models.Model] = []
    verdicts: list[records.Record] = []
    recipe_of = GROUPS["recipe"]
    for recipe in sorted(set(map(recipe_of, models))):
        same = [model for model in models if recipe_of(model) == recipe]
        others = [model for model in models if recipe_of(model) != recipe]
        order += same
        verdicts += judged("alone", same, [], profile_of(head, others, path))
    return told_of(order, verdicts)


def by_profile(path: str, known: Any) -> dict[str, Any]:
    """All models of a file, judged by a profile that was made without them."""
    head, models = _verdict_models.load(path)
    return {
        "evidence": os.path.basename(path),
        "made": head,
        "models": {"report": len(models), "profile": len(known["models"])},
        "baselines": {
            baseline: _tables(baseline, models, [], known)
            for baseline in ("alone", "crowd", "within")
        },
    }


def _tables(
    baseline: str,
    models: Sequence[_verdict_models.Model],
    design: Sequence[_verdict_models.Model],
    known: Any,
) -> dict[str, Any]:
    """What a baseline says of models, in figures, as a curve, and of each wrong one."""
    verdicts = judged(baseline, models, design, known)
    roc = _verdict_rules.roc(models, verdicts)
    return {**told_of(models, verdicts), "roc": roc}


def left_out(models: Sequence[_verdict_models.Model], known: Any) -> dict[str, Any]:
    """The design half as thresholds saw it: clean models against the others."""
    scores = {one["sha256"]: one["score"] for one in known["models"]}
    backdoored = [model for model in models if model.works]
    verdicts = judged("alone", backdoored, [], known)
    clean = sorted(scores.values())
    return {
        "clean_scores": [round(score, 2) for score in clean],
        "backdoored_scores": sorted(round(one["score"] or 0.0, 2) for one in verdicts),
        "wrong": wrong(backdoored, verdicts),
    }


CALLED = {
    "alone": "profile",
    "trusted": "trusted",
    "crowd": "population",
    "within": "within",
}


def rates(studies: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ships with the package, see `ban_jax.baselines.rates`."""
    found = []
    for one in studies:
        networks = [
            name.split("/") for name in one["baselines"]["alone"]["architecture"]
        ]
        for baseline, tables in one["baselines"].items():
            whole = tables["all"]
            missed = whole["backdoored"] - whole["detected"][0]
            found.append(
                {
                    "mode": one["made"]["mode"],
                    "data": one["made"]["data"]["name"],
                    "baseline": CALLED[baseline],
                    "num_probe": one["made"]["num_probe"],
                    "architectures": sorted({name for name, _ in networks}),
                    "widths": sorted({int(width) for _, width in networks}),
                    "trusted": one["models"]["profile"],
                    "clean": whole["clean"],
                    "clean_originals": whole["clean_originals"],
                    "flagged": whole["false_alarms"][0],
                    "false_alarms": whole["false_alarms"][1:],
                    "backdoored": whole["backdoored"],
                    "backdoored_originals": whole["backdoored_originals"],
                    "missed": missed,
                    "misses": bounds(missed, whole["backdoored"]),
                }
            )
    return found


def _command() -> str:
    return " ".join(["python -m benchmarks.verdict_study", *sys.argv[1:]])


def main(flags: Flags) -> None:
    """Prints the figures and writes the files."""
    from benchmarks import _plot  # needs matplotlib, which nothing else here does

    studies = []
    for path in flags.evidence:
        if flags.against:
            known = profile.load(flags.against)
            found = by_profile(path, known)
        else:
            found, known = study(path)
        studies.append(found)
        if flags.profiles:
            profile.write(os.path.join(flags.profiles, f"{known['name']}.json"), known)
        print(path, found["models"])
        for baseline, tables in found["baselines"].items():
            print(f"  {baseline}: {json.dumps(tables['all'])}")
            for name, row in tables["variant"].items():
                print(f"    {name}: {json.dumps(row)}")
        _plot.lines(
            f"{flags.name}_{known['name']}",
            {name: tables["roc"] for name, tables in found["baselines"].items()},
            x="clean models flagged",
            y="backdoored models found",
            marker="",
            folder=flags.results,
        )
        for harder in ("strangers", "other_recipes"):
            if harder in found:
                print(f"  {harder}: {json.dumps(found[harder]['all'])}")
    _timing.write_result(
        flags.name,
        {"studies": studies, "working": _verdict_models.WORKING},
        folder=flags.results,
    )
    if flags.rates:
        text = (
            json.dumps({"made": _command(), "rates": rates(studies)}, indent=1) + "\n"
        )
        atomic.write(flags.rates, text.encode())


if __name__ == "__main__":
    main(tyro.cli(Flags, description=Flags.__doc__))
