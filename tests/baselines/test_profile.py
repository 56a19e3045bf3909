"""Profiles of clean models: made, written, read again; numbers derived by hand."""

import json

import numpy as np
import pytest

from ban_jax.baselines import profile
from ban_jax.detectors import rules
from tests.baselines import made

BASE = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
ALL = ("a", "b", "c")


def offset(*numbers, **changes):
    """Lines of mode `weights`, whose vectors are `BASE` and a number."""
    return [
        made.evidence(
            {"last_layer": BASE + number}, f"m{index}", mode="weights", **changes
        )
        for index, number in enumerate(numbers)
    ]


def toy(**changes):
    """A profile of six clean models of the made-up mode."""
    return profile.make("toy", made.several(6, **changes), {"command": "as told"})


def test_curves_are_medians_and_spreads_are_pooled():
    found = profile.make("base", offset(0, 1, 2, 5), {})
    # The median of 0 1 2 5 is 1.5; it is missed by 1.5 0.5 0.5 3.5, in the middle by 1.
    curve = found["vectors"]["last_layer"]
    np.testing.assert_allclose(curve["centre"], BASE + 1.5)
    assert curve["spread"] == pytest.approx(1.4826)


def test_each_models_score_is_against_the_others():
    found = profile.make("base", offset(0, 1, 2, 5), {})
    # See `test_crowd`: -2, -1/2, 1 and 4 of the others' spread.
    scores = [one["score"] for one in found["models"]]
    expected = np.array([-2, -1 / 2, 1, 4]) / 1.4826
    np.testing.assert_allclose(scores, expected, atol=5e-5)


def test_a_profile_tells_what_it_was_made_from():
    found = toy()
    assert found["format"] == profile.FORMAT and found["name"] == "toy"
    assert (found["mode"], found["num_classes"]) == (made.MODE, made.CLASSES)
    assert (found["data"], found["settings"]) == (made.DATA, made.CONFIG)
    assert found["made"] == {"command": "as told"}
    first = found["models"][0]
    assert first["sha256"] == "m00" and first["architecture"] == "resnet18"
    assert (first["width"], first["clean_accuracy"]) == (8, 0.9)
    assert set(found["vectors"]) == {"a", "b"}


def test_the_order_of_the_models_does_not_matter():
    lines = made.several(7)
    one, other = (profile.make("toy", some, {}) for some in (lines, lines[::-1]))
    assert one == other and json.dumps(one) == json.dumps(other)


def test_copies_count_once():
    lines = made.several(6)
    copies = [lines[2] | {"path": f"copy{index}.pt"} for index in range(5)]
    assert profile.make("toy", [*lines, *copies], {}) == profile.make("toy", lines, {})


@pytest.mark.parametrize("path", ["toy.json", "folder.of.some/toy"])
def test_what_is_written_is_read_again(tmp_path, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    for found in (toy(), toy() | {"clean_scores": [0.5, 1.25]}):
        profile.write(str(tmp_path / path), found)
        assert profile.load(str(tmp_path / path)) == found


def test_classes_that_too_few_were_asked_about_are_null_in_the_file(tmp_path):
    lines = made.several(6, names=ALL)
    for line in lines[:4]:
        line["vectors"]["c"][3] = None
    found = profile.make("toy", lines, {})
    assert found["vectors"]["c"]["centre"][3] is None
    assert None not in found["vectors"]["a"]["centre"]
    path = tmp_path / "toy.json"
    profile.write(str(path), found)
    assert "NaN" not in path.read_text()
    against = profile.baseline(profile.load(str(path)))
    assert np.isnan(against.centre["c"][3]) and np.isfinite(against.centre["c"][2])


def test_three_models_are_too_few():
    with pytest.raises(profile.ProfileError, match="at least 4 .* got 3 models"):
        profile.make("toy", made.several(3), {})
    copies = [made.clean(1) | {"path": f"{index}.pt"} for index in range(9)]
    with pytest.raises(profile.ProfileError, match="got 1 models"):
        profile.make("toy", copies, {})


@pytest.mark.parametrize("changes", [{"config_hash": "d"}, {"mode": "weights"}])
def test_models_measured_in_several_ways_have_no_profile(changes):
    with pytest.raises(profile.ProfileError, match="in 2 kinds"):
        profile.make("toy", [*made.several(5), made.clean(5, **changes)], {})


def test_a_model_of_which_nothing_is_said_is_named():
    flat = made.evidence({"a": [0.2] * 8, "b": [0.2] * 8}, "flat")
    with pytest.raises(profile.ProfileError, match=r"flat\.pt: its evidence says no"):
        profile.make("toy", [*made.several(5), flat], {})


def test_a_baseline_is_the_curves_and_all_clean_scores():
    found = toy() | {"clean_scores": [7.0, 8.0]}
    against = profile.baseline(found)
    assert (against.kind, against.count) == ("profile", 6)
    own = tuple(one["score"] for one in found["models"])
    assert against.null == (*own, 7.0, 8.0) and against.largest is None
    assert against.name == "profile toy, 6 clean models"
    np.testing.assert_array_equal(against.centre["a"], found["vectors"]["a"]["centre"])


def test_the_median_of_the_models_is_like_all_of_them():
    against = profile.baseline(toy())
    lines = made.several(20, first=50)
    rule = made.DETECTOR.rule
    vectors = [{n: np.array(v) for n, v in line["vectors"].items()} for line in lines]
    scores = [
        rule.scores(one, {n: np.zeros(8) for n in one}, against).values.max()
        for one in vectors
    ]
    assert np.median(scores) < 2 and max(scores) < rule.thresholds["profile"]


# --- which records it fits


def test_it_fits_models_that_were_measured_alike():
    assert profile.why_unfit(toy(), made.clean(99)) == ""
    other = made.clean(99, architecture="vgg16", width=64, precision="tf32")
    assert profile.why_unfit(toy(), other | {"seed": 7}) == ""


def test_it_fits_its_own_models_before_it_was_ever_written():
    settings = {"epsilon": 0.5, "radii": (0.5, 1.0)}
    lines = made.several(6, config=settings)
    found = profile.make("toy", lines, {})
    assert profile.why_unfit(found, lines[0]) == ""


def data(**changes):
    return {"data": made.DATA | changes}


REFUSED = [
    ({"mode": "weights"}, "detector is made", "weights"),
    ({"num_classes": 9}, "number of classes is 8", "9"),
    ({"config": made.CONFIG | {"epsilon": 0.25}}, "'epsilon': 0.5", "'epsilon': 0.25"),
    ({"config": made.CONFIG | {"further": {"steps": 3}}}, "'steps': 2", "'steps': 3"),
    ({"config": {}}, "detector's settings is", "{}"),
    (data(image_shape=[32, 32, 3]), "image size is 8, 8, 3", "32, 32, 3"),
    (data(image_shape=[8, 8, 1]), "image size is 8, 8, 3", "8, 8, 1"),
    (data(classes=list("ABCDEFGI")), "classes in order is A, B", "G, I"),
    (data(classes=list("BACDEFGH")), "classes in order is A, B", "B, A"),
    (data(name="other", classes=None), "data set is toy", "other"),
]


@pytest.mark.parametrize("changes, expected, got", REFUSED)
def test_it_is_refused_in_one_sentence_for_what_was_measured_otherwise(
    changes, expected, got
):
    reason = profile.why_unfit(toy(), made.clean(99, **changes))
    before, _, after = reason.partition(", the candidate was measured with ")
    assert before.startswith("the profile toy does not fit: its ")
    assert expected in before and got in after
    assert "\n" not in reason and ". " not in reason


def test_the_name_of_the_data_does_not_matter_where_the_classes_are_named():
    assert profile.why_unfit(toy(), made.clean(99, **data(name="my_folder"))) == ""


@pytest.mark.parametrize("ours, theirs", [(None, made.DATA), (made.DATA, None)])
def test_where_one_side_used_no_images_they_are_not_compared(ours, theirs):
    found = toy(data=ours)
    assert profile.why_unfit(found, made.clean(99, data=theirs)) == ""


def test_a_long_list_of_classes_is_cut_short():
    names = [f"class number {index}" for index in range(8)]
    found = toy(**data(classes=[name * 9 for name in names]))
    assert len(profile.why_unfit(found, made.clean(99))) < 600


# --- clean models besides


def test_scores_of_other_clean_models_leave_its_own_out():
    found = toy()
    own, others = made.several(6), made.several(5, first=60)
    scores = profile.clean_scores(found, [*own, *others])
    assert len(scores) == 5 and scores == sorted(scores)
    rule, against = made.DETECTOR.rule, profile.baseline(found)
    line = others[0]
    vectors = {name: np.array(values) for name, values in line["vectors"].items()}
    errors = {name: np.array(values) for name, values in line["errors"].items()}
    score = rule.scores(vectors, errors, against).values.max()
    assert np.min(np.abs(np.array(scores) - score)) < 1e-4


def test_scores_of_models_it_does_not_fit_are_refused_with_their_path():
    other = made.clean(60, **data(image_shape=[32, 32, 3]))
    with pytest.raises(
        profile.ProfileError, match=r"^m60\.pt: the profile toy does no"
    ):
        profile.clean_scores(toy(), [other])


def test_models_that_are_not_fit_or_say_nothing_have_no_score():
    flat = made.evidence({"a": [0.2] * 8, "b": [0.2] * 8}, "flat")
    chance = made.clean(61) | {"clean_accuracy": 0.1}
    assert profile.clean_scores(toy(), [flat, chance]) == []


def test_files_that_could_not_be_read_have_no_score():
    broken = made.clean(60) | {"vectors": {}, "errors": {}, "error": "torn"}
    assert profile.clean_scores(toy(), [broken]) == []


# --- files


def refusal(path):
    with pytest.raises(profile.ProfileError) as error:
        profile.load(str(path))
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def spread(found, values):
    found["vectors"]["a"]["class_spreads"] = values
    return found


DAMAGED = [
    (lambda found: found | {"format": 1}, "expected an object with format 2"),
    (lambda found: [found], "expected an object with format 2"),
    (lambda found: {n: v for n, v in found.items() if n != "mode"}, "field mode"),
    (lambda found: found | {"num_classes": "8"}, "field num_classes"),
    (lambda found: found | {"num_classes": 7}, "vectors.a has 8 numbers for 7 classes"),
    (lambda found: found | {"vectors": {"a": found["vectors"]["a"]}}, "vectors b"),
    (lambda found: spread(found, [1.0] * 7), "vectors.a.class_spreads must be 8"),
    (lambda found: spread(found, [0.0] * 8), "vectors.a.class_spreads must be 8"),
    (lambda found: found | {"models": found["models"][:3]}, "it tells of 3 models"),
    (lambda found: found | {"models": [{}] * 4}, "field models.0.sha256"),
    (lambda found: found | {"clean_scores": ["high"]}, "field clean_scores.0"),
    (lambda found: found | {"data": "toy"}, "field data"),
    (lambda found: found | {"data": {"name": "toy", "classes": None}}, "field data"),
    (lambda found: found | {"clean_scores": [float("nan")]}, "NaN is not valid"),
    (lambda found: found | {"clean_scores": [float("inf")]}, "Infinity is not valid"),
]


@pytest.mark.parametrize("damage, message", DAMAGED)
def test_a_damaged_profile_is_refused_with_its_path_and_what_is_wrong(
    tmp_path, damage, message
):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(damage(toy())))
    assert message in refusal(path)


def test_a_profile_that_was_cut_short_is_refused(tmp_path):
    path = tmp_path / "toy.json"
    whole = json.dumps(toy())
    for end in range(0, len(whole), 7):
        path.write_text(whole[:end])
        assert "not a profile" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"3", b'"toy"']
)
def test_what_is_no_profile_is_refused(tmp_path, content):
    path = tmp_path / "toy.json"
    path.write_bytes(content)
    assert "not a profile" in refusal(path)


def test_an_unknown_name_lists_those_that_ship(tmp_path, monkeypatch):
    ships(tmp_path, monkeypatch, "one", "two")
    with pytest.raises(profile.ProfileError) as error:
        profile.load("three")
    assert "three: neither a file nor" in str(error.value)
    assert "(one, two)" in str(error.value)
    refusal(tmp_path)  # a folder is neither, too


def ships(folder, monkeypatch, *names):
    """Lets the package ship profiles of these names."""
    for name in names:
        profile.write(str(folder / f"{name}.json"), toy() | {"name": name})
    (folder / "README.txt").write_text("not one of them")
    monkeypatch.setattr(profile, "SHIPPED", str(folder))


def test_profiles_that_ship_are_found_by_name(tmp_path, monkeypatch):
    ships(tmp_path, monkeypatch, "one", "two")
    assert profile.shipped() == ("one", "two")
    assert profile.load("two")["name"] == "two"


def test_a_package_without_profiles_ships_none(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "SHIPPED", str(tmp_path / "nowhere"))
    assert profile.shipped() == ()


def test_profiles_of_the_package_can_be_used():
    for name in profile.shipped():
        found = profile.load(name)
        assert found["data"]["name"] == found["name"] == name
        assert len(profile.baseline(found).null) >= profile.MINIMUM
        assert found["made"]["command"]


def test_a_profile_has_what_rules_of_other_kinds_need():
    found = profile.make("base", offset(0, 1, 2, 5), {})
    rule = rules.AverageZ(("last_layer",), {"within": 4.0, "trusted": 4.0})
    vector = {"last_layer": BASE + 1.5 + np.array([0, 0, 2.9652, 0, 0])}
    scores = rule.scores(vector, {"last_layer": np.zeros(5)}, profile.baseline(found))
    np.testing.assert_allclose(scores.values, [0, 0, 2, 0, 0], atol=1e-6)
