"""The paper's tables: every command they would run is one that `ban-jax` takes."""

import importlib
import json
import os
import re

import pytest
import tyro

from ban_jax.commands import compare
from benchmarks.paper import (
    _joined,
    _steps,
    detection,
    other_data,
    repair,
    time_per_detector,
    work,
)
from tests.comparing import test_figures

TABLES = ["detection", "bti_dbf", "time_per_detector", "adaptive", "repair"]


def commands(capsys, main, flags):
    """What `--list` prints, as words; nothing is run."""
    main(flags)
    lines = capsys.readouterr().out.splitlines()
    return [line.split()[1:] for line in lines if line.startswith("ban-jax ")]


def parse(words):
    module = importlib.import_module(f"ban_jax.commands.{words[0]}")
    return tyro.cli(module.Flags, args=words[1:])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_every_step_is_a_command_with_flags_that_exist(name, full, capsys, tmp_path):
    table = importlib.import_module(f"benchmarks.paper.{name}")
    flags = _steps.Flags(out=str(tmp_path), data_dir="tfds", full=full, list=True)
    found = commands(capsys, table.main, flags)
    assert found
    for words in found:
        assert str(tmp_path) in " ".join(words)
        parse(words)
    trains = [parse(words) for words in found if words[0] == "train"]
    if full and trains:
        assert {one.width for one in trains} == {64}
    assert not list(tmp_path.iterdir())


def made(names, models=("a", "b"), **told):
    """What a comparison of detectors says, as far as joining reads it."""
    found = {
        "zoo": "zoo",
        "models": 2,
        "clean": 1,
        "failed": [],
        "budget": None,
        "passes": 9,
        "flags": {"detectors": ",".join(names), "data": "digits"},
        "versions": {},
    }
    candidates = [{"model": one} for one in models]
    methods = [{"name": one, "candidates": candidates} for one in names]
    return {**found, "methods": methods, **told}


def test_every_inversion_is_a_command_with_a_folder_of_its_own(capsys, tmp_path):
    only = "inverted_tabor,digits_inverted_unicorn"
    flags = _steps.Flags(out=str(tmp_path), list=True, only=only)
    found = [parse(words) for words in commands(capsys, detection.main, flags)]
    assert {one.names for one in found} == {("tabor",), ("unicorn",)}
    assert {one.passes for one in found} == {detection.PASSES}
    assert {os.path.basename(one.out) for one in found} == set(only.split(","))
    with pytest.raises(SystemExit, match="--only nonsense: expected names of compared"):
        detection.main(_steps.Flags(out="o", list=True, only="nonsense"))


def test_comparisons_that_were_run_apart_are_one_table(capsys, tmp_path):
    for name in ("tabor", "unicorn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text(json.dumps(made([name])))
    (tmp_path / "bti_dbf").mkdir()
    (tmp_path / "bti_dbf" / "bti_dbf.jsonl").write_text("{}\n{}\n")
    folders = ["unicorn", "bti_dbf", "mm_bd", "tabor"]
    found = _joined.read(str(tmp_path), folders)
    assert [one["name"] for one in found["methods"]] == ["unicorn", "tabor"]
    assert found["flags"] == {"detectors": "unicorn,tabor", "data": "digits"}
    printed = capsys.readouterr().out
    assert "bti_dbf: not through, 2 results so far" in printed
    assert "mm_bd: not run" in printed
    assert _joined.read(str(tmp_path), ["mm_bd"]) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (made(["b"], passes=8), "b/comparison.json: .*passes"),
        (made(["b"], flags={"data": "cifar10"}), "flags differ.*expected.*digits"),
        (made(["b"], models=("a", "c")), "models differ"),
        (made(["a"]), "a in more than one"),
    ],
)
def test_comparisons_of_other_models_or_flags_are_never_one_table(other, told):
    with pytest.raises(ValueError, match=told):
        _joined.joined({"a": made(["a"]), "b": other})


def test_other_data_sets_are_only_shown_and_those_without_images_are_named(
    capsys, tmp_path
):
    flags = other_data.Flags(out=str(tmp_path), folder=("gtsrb=images",))
    other_data.main(flags)
    printed = capsys.readouterr().out
    assert "tiny_imagenet: no --folder" in printed and "imagenet200: no" in printed
    found = [line.split()[1:] for line in printed.splitlines() if "ban-jax " in line]
    trained, compared = [parse(words) for words in found]
    assert trained.image_size == compared.image_size == 32 and "--no-flip" in found[0]
    with pytest.raises(SystemExit, match="expected one of"):
        other_data.main(other_data.Flags(out="o", folder=("svhn=images",)))


def test_detectors_that_are_not_there_are_left_out_and_named(capsys):
    words = _steps.compare(_steps.Flags(out="o"), ["zoo"], "ban,nonsense", "c")
    assert parse(words).names == ("ban",)
    assert "no nonsense" in capsys.readouterr().out


def test_further_flags_win():
    flags = _steps.Flags(out="o", more="--detectors weights --budget 3")
    found = parse(_steps.compare(flags, ["zoo"], "ban", "c"))
    assert found.names == ("weights",) and found.budget == 3


def test_further_flags_of_trainings_and_repairs_win(capsys):
    flags = _steps.Flags(out="o", list=True, training="--width 2", more="--num-clean 9")
    trained, *repaired = [
        parse(words) for words in commands(capsys, repair.main, flags)
    ]
    assert trained.width == 2 and {one.num_clean for one in repaired} == {9}


def test_repairs_that_were_not_run_are_left_out_and_named(capsys, tmp_path):
    (tmp_path / "repaired_ban").mkdir()
    line = {"attack": {"kind": "blend"}, "before": {"asr": 0.9}, "after": {"asr": 0.1}}
    (tmp_path / "repaired_ban" / repair.LINES).write_text(json.dumps(line))
    place = str(tmp_path)
    repair.main(_steps.Flags(out=place, collect=True, results=place))
    assert "anp: not run" in capsys.readouterr().out
    found = json.loads((tmp_path / "paper_repair.json").read_text())["methods"]
    (blend,) = found["ban"].values()
    assert (blend["models"], blend["changed"]) == (1, 1)
    assert blend["asr_after"]["mean"] == 0.1


def test_seconds_of_documented_counts_are_products_where_few_were_measured():
    spent = {"ban": 5984.0, "bti_dbf": 2000.0, "weights": 0.0}
    methods = [
        {"name": name, "seconds": 3.0, "forward_equivalents": passes, "chunk_bytes": 1}
        for name, passes in spent.items()
    ]
    documented = {name: row["work"]["10"] for name, row in work.rows().items()}
    ban, inversion, weights = time_per_detector.rows_of(
        {"flags": {"num_clean": 512}, "methods": methods}
    )
    # The first look leaves doubt in any model, and a closer one at all classes follows.
    assert ban["passes"] == documented["ban"] + documented["directed"] > 5984
    assert ban["is_product"]
    assert ban["seconds"] == pytest.approx(3.0 * ban["passes"] / 5984)
    assert inversion["is_product"] and inversion["passes"] == documented["bti_dbf"]
    assert inversion["seconds"] == pytest.approx(3.0 * documented["bti_dbf"] / 2000)
    assert not weights["is_product"]
    assert (weights["seconds"], weights["passes"]) == (3.0, 0)


def test_the_table_tells_flagged_and_right_of_every_group():
    ran = test_figures.runs.Run([], {}, {})
    method = test_figures.figures.method(
        "made", "", test_figures.JUDGED, test_figures.TRUTH, ran, {}
    )
    lines = _steps.table(compare.records.finite({"methods": [method]}))
    assert lines[0] == "| attack | architecture | made |"
    assert "| clean | all | 1/3 / 67 % |" in lines
    assert "| **AUC [95 %]** |  | 0.89 [" in "\n".join(lines)
    assert "| **right target** |  | 1/3 |" in lines
    assert all(line.count("|") == 4 for line in lines)


def test_the_work_of_every_detector_is_counted():
    found = work.rows()
    assert set(compare.COMPARABLE) <= set(found)
    assert all(re.fullmatch(r"\d+", k) for k in found["ban"]["work"])
    assert found["mm_bd"]["work"]["200"] == 20 * found["mm_bd"]["work"]["10"]
