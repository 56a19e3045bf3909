"""`ban-jax profile` and `--profile`: clean models described, and compared with."""

import itertools
import json

import numpy as np
import pytest

from ban_jax import cli, records
from ban_jax.baselines import profile
from ban_jax.commands import outcome
from ban_jax.detectors import directed
from ban_jax.scanning import engines
from tests.records import lines as made
from tests.scanning import files

MODELS = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Six models of one kind, one of them twice, one broken and no model."""
    folder = tmp_path_factory.mktemp("clean")
    for seed in range(MODELS):
        files.save(folder, f"{seed}.safetensors", files.variables(seed))
    files.save(folder, "copy.safetensors", files.variables(0))
    (folder / "torn.safetensors").write_bytes(b"\x10\x00")
    return folder


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def profiled(out, *paths, mode="weights"):
    return run("profile", *paths, "--mode", mode, "-o", out)


def scan(out, *paths):
    return run("scan", "--mode", "weights", "--out", out, *paths)


def lines(out):
    return records.load(out / "results.jsonl").records


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def without_provenance(path):
    return {name: value for name, value in load(path).items() if name != "made"}


def test_a_profile_is_written_from_models_and_bad_files_are_left_out_by_name(
    models, tmp_path, capsys
):
    out = tmp_path / "deep" / "p.json"
    assert profiled(out, models) == 0
    told = capsys.readouterr()
    assert "torn.safetensors is left out: " in told.err
    assert f"{out}: {MODELS} clean models" in told.out
    found = load(out)
    median = np.median([one["score"] for one in found["models"]])
    assert f"median {median:.2f}" in told.out
    assert found["mode"] == found["name"] == "weights"
    assert len(found["models"]) == MODELS and found["num_classes"] == 5
    every = [
        files.variables(seed)["params"]["linear"]["kernel"].mean(axis=0)
        for seed in range(MODELS)
    ]
    centre = found["vectors"]["last_layer"]["centre"]
    np.testing.assert_allclose(centre, np.median(every, axis=0), rtol=1e-4)
    assert {one["architecture"] for one in found["models"]} == {"small"}
    assert "ban_jax" in found["made"]["versions"]
    assert found["made"]["command"].startswith("ban-jax profile")


def test_what_was_measured_is_kept_until_the_profile_is_whole(
    models, tmp_path, monkeypatch
):
    out, measured = tmp_path / "p.json", []
    four = [models / f"{seed}.safetensors" for seed in range(4)]
    kept = tmp_path / "p.json.measured.jsonl"
    measure = engines.InProcess.measure

    def stopped(*told, **named):
        yield from itertools.islice(measure(*told, **named), 3)
        raise KeyboardInterrupt

    def noted(*told, **named):
        for one in measure(*told, **named):
            measured.append(one.is_new)
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(engines.InProcess, "measure", staticmethod(stopped))
        assert profiled(out, *four) == cli.INTERRUPTED
    assert len(records.load(kept).records) == 3
    monkeypatch.setattr(engines.InProcess, "measure", staticmethod(noted))
    assert profiled(out, *four) == 0
    assert measured == [False, False, False, True]
    assert not kept.exists() and len(load(out)["models"]) == 4


def test_results_of_a_scan_give_the_same_profile_as_the_models(models, tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    profiled(one, models)
    scan(tmp_path / "out", models)
    assert profiled(other, tmp_path / "out" / "results.jsonl") == 0
    assert without_provenance(one) == without_provenance(other)
    # Half of them from a file of results, half as models.
    first = [models / f"{seed}.safetensors" for seed in range(3)]
    rest = [models / f"{seed}.safetensors" for seed in range(3, MODELS)]
    scan(tmp_path / "part", *first)
    assert profiled(other, tmp_path / "part" / "results.jsonl", *rest) == 0
    assert without_provenance(one) == without_provenance(other)


def test_a_scan_compares_with_the_profile_it_is_given(models, tmp_path):
    given, out, again = tmp_path / "p.json", tmp_path / "out", tmp_path / "again"
    profiled(given, *(models / f"{seed}.safetensors" for seed in range(MODELS)))
    new = [tmp_path / f"{seed}.safetensors" for seed in (11, 12)]
    for path in new:
        files.save(tmp_path, path.name, files.variables(int(path.stem)))
    assert scan(out, *new, "--profile", given) in (0, 1)
    for line in lines(out):
        assert line["baseline"] == "profile"
        assert line["compared_with"] == f"profile weights, {MODELS} clean models"
        assert line["p_models"] == MODELS
        assert line["p_value"] >= 1 / (MODELS + 1)
    assert run(
        "report", out / "results.jsonl", "--out", again, "--profile", given
    ) in (0, 1)  # fmt: skip
    assert lines(again) == lines(out)
    run("report", out / "results.jsonl", "--out", again, "--profile", "none")
    assert {line["baseline"] for line in lines(again)} == {"within"}


def test_shards_and_their_merge_compare_with_the_profile_that_they_were_told(
    models, tmp_path
):
    given, whole, parts = tmp_path / "p.json", tmp_path / "whole", tmp_path / "parts"
    profiled(given, models)
    code = scan(whole, models, "--profile", given)
    for index in range(2):
        scan(parts, models, "--profile", given, "--shard", f"{index}/2")
    assert run("merge", parts) == code
    comparable = [[*map(files.comparable, lines(folder))] for folder in (whole, parts)]
    assert comparable[0] == comparable[1]
    judged = [line for line in lines(parts) if line["score"] is not None]
    assert {line["baseline"] for line in judged} == {"profile"}
    run("merge", parts, "--profile", "none", "--out", tmp_path / "other")
    judged = [line for line in lines(tmp_path / "other") if line["score"] is not None]
    assert {line["baseline"] for line in judged} == {"within"}


def test_scores_of_other_clean_models_join_the_null(models, tmp_path):
    given, out = tmp_path / "p.json", tmp_path / "out"
    for seed in range(20, 23):
        files.save(tmp_path, f"{seed}.safetensors", files.variables(seed))
    others = [tmp_path / f"{seed}.safetensors" for seed in range(20, 23)]
    scan(tmp_path / "null", *others, models / "0.safetensors")
    told = ("--null", tmp_path / "null" / "results.jsonl", "--note", "made for a test")
    assert run("profile", models, "--mode", "weights", *told, "-o", given) == 0
    found = load(given)
    assert len(found["clean_scores"]) == 3  # its own model is none of them
    assert found["made"]["note"] == "made for a test"
    scan(out, others[0], "--profile", given)
    (line,) = lines(out)
    assert line["p_models"] == MODELS + 3


def test_too_few_models_and_none_at_all_are_told_apart(models, tmp_path, capsys):
    out = tmp_path / "p.json"
    few = [models / f"{seed}.safetensors" for seed in range(3)]
    assert profiled(out, *few, models / "copy.safetensors") == cli.USAGE
    assert "at least 4 different clean models" in capsys.readouterr().err
    assert profiled(out, models / "torn.safetensors") == outcome.NOTHING
    assert "nothing to profile: no usable model in" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert profiled(out, tmp_path / "empty") == outcome.NOTHING
    assert profiled(out, tmp_path / "nowhere") == cli.USAGE
    assert profiled(out) == cli.USAGE
    assert "told at least one file or folder" in capsys.readouterr().err
    assert not out.exists()


def test_too_few_models_are_refused_before_one_is_measured(
    models, tmp_path, monkeypatch, capsys
):
    def never(*told, **named):
        raise AssertionError("measured")

    monkeypatch.setattr(engines.InProcess, "measure", staticmethod(never))
    out = tmp_path / "new" / "p.json"
    three = [models / f"{seed}.safetensors" for seed in range(3)]
    more = [models / "torn.safetensors", models / "copy.safetensors"]
    assert profiled(out, *three, *more) == cli.USAGE
    told = capsys.readouterr().err
    assert "at least 4 different clean models; got 3 that can be read" in told
    assert "torn.safetensors is left out: " in told
    assert not out.parent.exists()
    # Evidence that is there counts.
    results = tmp_path / "results.jsonl"
    results.write_bytes(b"".join(records.encode(one) for one in _of(2)))
    assert profiled(out, results, models / "3.safetensors") == cli.USAGE
    assert "got 3 that can be read" in capsys.readouterr().err


def _of(count):
    """Evidence of so many models."""
    return [made.evidence(f"{n}.pt", sha256=str(n)) for n in range(count)]


def test_evidence_of_several_kinds_makes_no_profile(models, tmp_path, capsys):
    scan(tmp_path / "one", models)
    scan(tmp_path / "two", models, "--seed", "1")
    sources = [tmp_path / name / "results.jsonl" for name in ("one", "two")]
    assert profiled(tmp_path / "p.json", *sources) == 0  # copies: the later ones
    seven = files.variables(7)
    files.save(tmp_path, "7.safetensors", seven)
    scan(tmp_path / "three", tmp_path / "7.safetensors", "--seed", "2")
    sources[1] = tmp_path / "three" / "results.jsonl"
    assert profiled(tmp_path / "p.json", *sources) == cli.USAGE
    assert "measured alike" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither a file nor one of those that ship"),
        ("{}", "not a profile: expected an object with format 2"),
        ("[1", "not a profile"),
        ('{"format": 1}', "not a profile"),
    ],
)
@pytest.mark.parametrize("command", ["scan", "report", "merge"])
def test_what_is_no_profile_is_refused_before_anything_is_written(
    command, content, message, models, tmp_path, capsys
):
    given, out = tmp_path / "p.json", tmp_path / "new"
    if content is not None:
        given.write_text(content)
    told = ("--profile", given, "--out", out)
    if command == "scan":
        code = scan(out, models, "--profile", given)
    elif command == "report":
        results = tmp_path / "results.jsonl"
        results.write_bytes(records.encode(made.evidence()))
        code = run("report", results, *told)
    else:
        results = tmp_path / "results.0-of-1.jsonl"
        results.write_bytes(records.encode(made.evidence()))
        code = run("merge", results, *told)
    assert code == cli.USAGE
    error = capsys.readouterr().err
    assert message in error and str(given) in error and "Traceback" not in error
    assert not out.exists()


def test_a_profile_that_does_not_fit_is_refused_in_a_sentence_and_not_used(
    models, tmp_path, capsys
):
    given, out = tmp_path / "p.json", tmp_path / "out"
    profiled(given, models)
    changed = load(given)
    changed["num_classes"] = 10
    for part in ("centre", "class_spreads"):
        changed["vectors"]["last_layer"][part] *= 2
    given.write_text(json.dumps(changed))
    assert scan(out, models / "0.safetensors", "--profile", given) in (0, 1)
    reason = "the profile weights does not fit: its number of classes is 10, the "
    (line,) = lines(out)
    assert line["baseline"] == "within"
    assert any(reason in note for note in line["notes"])
    assert reason in capsys.readouterr().err


def test_the_shipped_profile_is_the_default_and_none_turns_it_off(
    models, tmp_path, monkeypatch
):
    given = tmp_path / "p.json"
    profiled(given, models)
    found = profile.load(str(given))
    results = tmp_path / "results.jsonl"
    data = {"name": "here", "classes": None, "image_shape": [8, 8, 1]}
    results.write_bytes(records.encode(made.evidence(data=data)))
    monkeypatch.setattr(profile, "shipped", lambda: ("here",))
    monkeypatch.setattr(profile, "load", lambda name: {"here": found}[name])
    baselines = {}
    for told in ((), ("--profile", "here"), ("--profile", "none")):
        out = tmp_path / "".join(told)
        run("report", results, "--out", out / "out", *told)
        (line,) = lines(out / "out")
        baselines[told] = line["baseline"]
    assert list(baselines.values()) == ["profile", "profile", "within"]


QUICK = (
    "--ban.steps", "1", "--ban.mask-steps", "1", "--directed.steps", "1",
    "--directed.pixel-steps", "1", "--directed.pixel-images", "16",
)  # fmt: skip


def test_clean_models_make_a_profile_of_the_default_mode(tmp_path, capsys):
    """From models to judged candidates, at settings that are soon computed."""
    images, _ = files.images()
    _, labels = files.expert(0, images)
    data = tmp_path / "clean.npz"
    np.savez(data, images=images, labels=labels)
    *clean, target = (
        files.save(tmp_path, f"{seed}.safetensors", files.twin(seed, images, 0.002))
        for seed in range(5)
    )
    given, out = tmp_path / "mine.json", tmp_path / "out"
    told = (*QUICK, "--data", data)
    assert run("profile", *clean, *told, "-o", given) == 0
    found = load(given)
    assert found["name"] == found["data"]["name"] == str(data)
    assert found["data"]["image_shape"] == [8, 8, 1]
    assert found["settings"]["directed"]["pixel_images"] == 16
    assert {one["architecture"] for one in found["models"]} == {"small"}
    assert all(one["clean_accuracy"] > 0.9 for one in found["models"])
    for name in ("untargeted", "last_layer", *directed.WORDS):
        centre = found["vectors"][name]["centre"]
        assert len(centre) == 5 and None not in centre
    run("scan", target, *told, "--profile", given, "--out", out)
    (line,) = lines(out)
    assert line["compared_with"] == f"profile {data}, 4 clean models"
    assert line["p_models"] == 4 and not line["notes"]
    # Other settings, another yardstick: it is refused, not used all the same.
    other = (*told, "--ban.epsilon", "0.3")
    capsys.readouterr()
    run("scan", target, *other, "--profile", given, "--out", tmp_path / "other")
    (line,) = lines(tmp_path / "other")
    assert line["baseline"] == "within"
    assert "does not fit: its detector's settings is" in capsys.readouterr().err
