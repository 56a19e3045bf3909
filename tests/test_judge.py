"""What a candidate is compared with, and at what a closer look is asked."""

import dataclasses
import json

import numpy as np
import pytest

from ban_jax import detectors, verdict
from ban_jax.baselines import profile
from ban_jax.detectors import ban, witnesses
from ban_jax.records import record as records
from tests.baselines import made

ALL = ("a", "b", "c")
TARGET = {"a": 3, "b": 3}


@pytest.fixture(autouse=True, scope="module")
def made_up_mode():
    """Forgotten afterwards."""
    with made.known():
        yield


def toy(first=100, **changes):
    """A profile of six clean models that have all vectors."""
    return profile.make("toy", made.several(6, first=first, names=ALL, **changes), {})


CANDIDATE = made.clean(99)
"""It was asked for the vectors that all are asked for."""


def judged(baseline=None, line=CANDIDATE, profiles=None, **more):
    return verdict.Judge(baseline, profiles=profiles, **more)(line)


# --- in which order


def test_the_first_that_is_there_is_compared_with():
    trusted, scanned = made.several(5), made.several(8, first=20)
    one = {"trusted": trusted, "population": scanned, "profiles": toy()}
    found = judged(**one)
    assert (found["baseline"], found["compared_with"]) == (
        "trusted",
        "5 trusted models",
    )
    del one["trusted"]
    found = judged(**one)
    assert found["baseline"] == "profile"
    assert found["compared_with"] == "profile toy, 6 clean models"
    del one["profiles"]
    found = judged(**one)
    assert found["baseline"] == "population"
    assert found["compared_with"] == "8 models of this scan"
    found = judged()
    assert (found["baseline"], found["compared_with"]) == ("within", "its own classes")


@pytest.mark.parametrize("kind", ["trusted", "population", "profile", "within"])
def test_the_one_that_is_asked_for_goes_before_the_others(kind):
    found = judged(
        kind,
        trusted=made.several(5),
        population=made.several(8, first=20),
        profiles=toy(),
    )
    assert found["baseline"] == kind and found["notes"] == []


def test_a_crowd_needs_eight_different_models_of_its_kind():
    def crowd(lines):
        return judged(population=lines)["baseline"]

    assert crowd(made.several(7)) == "within"
    assert crowd(made.several(8)) == "population"
    seven = made.several(7)
    assert crowd([*seven, seven[0] | {"path": "copy.pt"}]) == "within"
    assert crowd([*seven, made.clean(8, config_hash="d")]) == "within"
    # A rule of witnesses compares models of several architectures.
    assert crowd([*seven, made.clean(8, architecture="vgg16")]) == "population"


def test_one_trusted_model_is_none():
    assert judged(trusted=made.several(1))["baseline"] == "within"
    assert judged(trusted=made.several(2))["baseline"] == "trusted"


def test_a_trusted_model_is_not_compared_with_itself():
    """The bump that it alone has would be the centre's, too."""
    trusted = [*made.several(4), made.clean(4, bumps=TARGET)]
    copy = trusted[-1] | {"path": "candidate.pt"}
    found = judged(line=copy, trusted=trusted)
    others = judged(line=copy, trusted=trusted[:-1])
    for field in ("verdict", "score", "z", "target", "compared_with", "p_models"):
        assert found[field] == others[field]
    assert found["verdict"] == "backdoored" and found["target"] == 3
    assert found["notes"] == [
        "judged against 4 trusted models: the same weights are among 5 trusted "
        "models, left out"
    ]
    stranger = judged(trusted=trusted)
    assert stranger["compared_with"] == "5 trusted models" and not stranger["notes"]


def test_of_two_trusted_models_each_is_left_with_too_few():
    trusted = made.several(2)
    (note,) = judged(line=trusted[0], trusted=trusted, profiles=toy())["notes"]
    assert note == (
        "judged against profile toy, 6 clean models: the same weights are among 2 trusted "
        "models, left out"
    )


def test_a_model_of_the_profile_is_told_to_be_one():
    (member,) = made.several(1, first=100, names=ALL)
    found = judged(line=member, profiles=toy())
    assert found["baseline"] == "profile"
    assert found["notes"] == [
        "judged against profile toy, 6 clean models: the same weights are among these"
    ]


MISSING = [
    ("trusted", {}, "the trusted baseline needs at least 2 models of resnet18 with 8"),
    ("population", {}, "the population baseline needs at least 8 models of resnet18"),
    ("profile", {}, "no profile was given"),
    ("profile", {"profiles": "shipped"}, "no shipped profile fits"),
]


@pytest.mark.parametrize("kind, more, reason", MISSING)
def test_where_the_one_asked_for_is_not_there_the_notes_say_so(kind, more, reason):
    found = judged(kind, **more)
    assert found["baseline"] == "within"
    (note,) = found["notes"]
    assert note.startswith(f"{verdict.FALLBACK}its own classes: {reason}")
    assert "\n" not in note


def test_the_next_best_is_named_in_the_note():
    (note,) = judged("trusted", profiles=toy())["notes"]
    assert note.startswith("judged against profile toy, 6 clean models: the trusted")


def test_what_keeps_a_model_from_the_profile_of_its_data_is_said_if_it_is_its_own():
    """Its config: of other flags of the user's nothing is said."""
    known = profile.load("digits")
    data = {key: known["data"][key] for key in ("name", "classes")}
    line = made.evidence({"untargeted": np.arange(10.0)})
    line |= {"mode": known["mode"], "config": known["settings"], "num_classes": 10}
    line["data"] = {**data, "image_shape": [9, 9, 1]}
    assert verdict.Judge(profiles="shipped")(line)["notes"] == []
    line["data"]["preparation"] = "resized"
    (note,) = verdict.Judge(profiles="shipped")(line)["notes"]
    assert "the profile digits does not fit: its image size is 8, 8, 1" in note


def test_nothing_is_noted_where_nothing_was_asked_for():
    for more in ({}, {"population": made.several(3)}, {"profiles": "shipped"}):
        assert judged(**more)["notes"] == []


def test_a_profile_that_does_not_fit_is_refused_with_its_sentence():
    other = toy(data=made.DATA | {"image_shape": [32, 32, 3]})
    found = judged(profiles=other)
    assert found["baseline"] == "within"
    assert found["notes"] == [
        "judged against its own classes: the profile toy does not fit: its image size is "
        "32, 32, 3, the candidate was measured with 8, 8, 3"
    ]


def test_settings_that_no_curve_depends_on_may_differ(monkeypatch):
    known = detectors.DETECTORS[CANDIDATE["mode"]]
    other = toy(config={**CANDIDATE["config"], "alone": 9})
    assert judged(profiles=other)["baseline"] == "within"
    apart = dataclasses.replace(known, apart=("alone",))
    monkeypatch.setitem(detectors.DETECTORS._things, CANDIDATE["mode"], apart)
    assert judged(profiles=other)["baseline"] == "profile"


def test_the_settings_of_a_patch_are_no_profiles_matter():
    apart = set(detectors.DETECTORS["ban"].apart)
    settings = {field.name for field in dataclasses.fields(ban.Settings)}
    assert apart == {name for name in settings if name.startswith("patch_")}


def test_the_notes_of_the_file_are_kept():
    line = CANDIDATE | {"notes": ["the file holds two classifiers"]}
    found = judged("trusted", line)
    assert found["notes"][0] == "the file holds two classifiers"
    again = judged("trusted", found)
    assert again == found and len(again["notes"]) == 2
    assert judged("within", again)["notes"] == ["the file holds two classifiers"]


def test_fallbacks_are_counted():
    found = [judged("trusted"), judged("trusted"), judged("profile"), judged()]
    counts = verdict.fallbacks(found)
    assert sorted(counts.values()) == [1, 2]


# --- profiles that ship


def ships(folder, monkeypatch, found, name="toy"):
    """Lets the package ship one profile, found by the name of its file."""
    (folder / f"{name}.json").write_text(json.dumps(found))
    monkeypatch.setattr(profile, "SHIPPED", str(folder))


def test_the_shipped_profile_of_the_data_set_is_the_default(tmp_path, monkeypatch):
    ships(tmp_path, monkeypatch, toy())
    found = verdict.Judge()(CANDIDATE)
    assert found["compared_with"] == "profile toy, 6 clean models"
    assert verdict.Judge(profiles=None)(CANDIDATE)["baseline"] == "within"
    for changes in ({"data": None}, {"data": made.DATA | {"name": "other"}}):
        assert verdict.Judge()(CANDIDATE | changes)["baseline"] == "within"


def test_a_shipped_profile_that_does_not_fit_is_not_used(tmp_path, monkeypatch):
    ships(tmp_path, monkeypatch, toy(config={}))
    assert verdict.Judge()(CANDIDATE)["baseline"] == "within"


def test_a_crowd_is_not_settled_where_a_profile_goes_before_it(monkeypatch):
    """With a thousand candidates that would take longer than all verdicts."""
    settled = []
    monkeypatch.setattr(
        verdict.crowd, "settled", lambda *args, **more: settled.append(args)
    )
    draw = verdict.Judge(profiles=toy(), population=made.several(9, first=50))
    assert draw(CANDIDATE)["baseline"] == "profile"
    assert not settled


def test_what_is_suspicious_in_a_scan_is_no_yardstick(monkeypatch):
    limits = []
    real = verdict.crowd.settled

    def settled(rule, models, errors, limit, least):
        limits.append(limit)
        return real(rule, models, errors, limit, least)

    monkeypatch.setattr(verdict.crowd, "settled", settled)
    found = verdict.Judge("population", population=made.several(9), profiles=None)(
        CANDIDATE
    )
    assert limits == [found["suspicious_above"]] != [found["threshold"]]


# --- crowds that are not trusted


def infected(count=6):
    """A scan most of whose models share one target."""
    sound = made.several(9 - count, first=50)
    bumped = [made.clean(seed, TARGET, size=3.0) for seed in range(count)]
    return [*bumped, *sound]


@pytest.fixture
def low(monkeypatch):
    """A threshold that the centre of an infected crowd is above."""
    monkeypatch.setitem(made.DETECTOR.rule.thresholds, "within", 2.0)


def test_a_crowd_whose_centre_shows_an_odd_class_is_refused(low):
    found = judged(population=infected())
    assert found["baseline"] == "within"
    assert found["notes"] == [
        "judged against its own classes: the 9 models of this scan are not trusted: "
        "class 3 stands out in most of them"
    ]
    # Nothing is lost where there is a profile.
    found = judged(population=infected(), profiles=toy())
    assert found["baseline"] == "profile" and found["notes"] == []


def test_all_that_was_refused_is_told(low):
    found = judged(population=infected(), profiles=toy(config={}))
    (note,) = found["notes"]
    assert "the profile toy does not fit" in note and "are not trusted" in note
    assert note.count("; ") == 1


def test_such_a_crowd_is_used_where_it_is_asked_for(low):
    found = judged("population", population=infected())
    assert found["baseline"] == "population" and found["notes"] == []


def test_a_crowd_of_which_a_few_share_a_target_is_used(low):
    found = judged(population=infected(3))
    assert found["baseline"] == "population"


def test_refused_is_the_crowd_of_one_kind_alone(low):
    other = made.several(8, first=20, config_hash="d")
    draw = verdict.Judge(population=[*infected(), *other], profiles=None)
    assert draw(CANDIDATE)["baseline"] == "within"
    assert draw(CANDIDATE | {"config_hash": "d"})["baseline"] == "population"


# --- crowds and profiles together


def test_a_profile_completes_a_crowd_of_which_few_were_looked_at_closer():
    line = made.clean(99, {"a": 2, "c": 2}, names=ALL)
    crowd = [*made.several(8), line]
    alone = judged(line=line, population=crowd)
    assert "c" in alone["void"] and set(alone["witnesses"]) == {"a", "b"}
    found = judged("population", line, population=crowd, profiles=toy())
    assert found["baseline"] == "population" and not found["void"]
    assert set(found["witnesses"]) == set(ALL)
    # Its models are members besides: what the crowd itself tells is not what it was.
    assert found["witnesses"]["a"] != alone["witnesses"]["a"]
    assert found["verdict"] == "backdoored" and found["target"] == 2
    # Clean scores of both.
    assert found["p_models"] == alone["p_models"] + 6


def test_a_profile_that_does_not_fit_completes_nothing():
    line = made.clean(99, names=ALL)
    other = toy(config={})
    found = judged(line=line, population=made.several(8), profiles=other)
    assert found["baseline"] == "population" and "c" in found["void"]
    assert "the profile toy does not fit" in found["notes"][0]


def test_a_profile_completes_trusted_models_too():
    line = made.clean(99, {"c": 2}, names=ALL)
    found = judged(line=line, trusted=made.several(5), profiles=toy())
    assert found["baseline"] == "trusted" and set(found["witnesses"]) == set(ALL)
    assert found["p_models"] == 5 + 6


def test_a_trusted_model_of_which_nothing_is_said_has_no_score():
    flat = made.evidence({"a": [0.2] * 8, "b": [0.2] * 8}, "flat")
    for trusted in ([*made.several(5), flat], [flat, *made.several(5)]):
        found = judged(trusted=trusted)
        assert found["p_models"] == 5 and found["threshold"] >= 3.0


def test_the_crowds_flagged_members_are_no_example_of_chance():
    crowd = [*made.several(9), made.clean(60, {"a": 2, "b": 2})]
    clean = judged(population=made.several(9))
    found = judged(population=crowd)
    assert clean["p_models"] == found["p_models"] == 9


# --- what is asked


ASK_ALL = tuple(range(made.CLASSES))


def asks(line, profiles="toy", **more):
    profiles = toy() if profiles == "toy" else profiles
    found = verdict.Judge(profiles=profiles, **more).asks(line)
    return () if found is None else found.classes


def test_where_one_witness_speaks_a_closer_look_is_asked_for():
    one = made.clean(99, {"a": 3})
    assert (
        max(judged(line=one, profiles=toy())["witnesses"]["a"])
        > made.DETECTOR.rule.doubt
    )
    assert asks(one) == ASK_ALL


def test_where_two_agree_or_none_speaks_nothing_is_asked():
    assert asks(made.clean(99, TARGET)) == ()
    quiet = made.evidence({name: made.CURVES[name] + 0.1 for name in "ab"})
    for name in "ab":  # so little noise that all of it is
        quiet["errors"][name] = [0.1] * made.CLASSES
    assert asks(quiet) == ()
    assert asks(quiet, profiles=None) == ASK_ALL


def test_a_threshold_of_ones_own_decides_what_is_in_doubt():
    two = made.clean(99, TARGET)
    score = judged(line=two, profiles=toy())["score"]
    assert asks(two, threshold=score + 1) == ASK_ALL
    assert asks(two, threshold=score - 1) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "torn", "vectors": {}},
        {"is_finite": False},
        {"clean_accuracy": 0.1},
        {"mode": "unheard of"},
        {"mode": "weights"},
    ],
)
def test_nothing_is_asked_of_what_cannot_be_judged_or_seen_closer(changes):
    assert asks(CANDIDATE, profiles=None) == ASK_ALL
    assert asks(CANDIDATE | changes, profiles=None) == ()


def test_few_classes_are_asked_about_only_where_there_are_models_to_compare_with():
    line = made.evidence({"a": [0.1, 0.9], "b": [0.2, 0.8]}, clean_accuracy=0.99)
    assert asks(line, profiles=None) == ()
    trusted = [
        made.evidence({"a": [x, 0.2], "b": [x, 0.3]}, str(x), clean_accuracy=0.99)
        for x in (0.1, 0.2, 0.3)
    ]
    assert asks(line, profiles=None, trusted=trusted) == (0, 1)


def test_of_many_classes_a_fixed_number_is_asked_about():
    rng = np.random.default_rng(0)
    line = made.evidence({name: rng.random(40) for name in "ab"})
    found = asks(line, profiles=None)
    assert len(found) == verdict.MOST_CLASSES and max(found) < 40
    assert asks(line | {"seed": 1}, profiles=None) != found


# --- what is written


def test_a_verdict_tells_each_witness_and_what_was_left_out():
    line = made.clean(99, TARGET, names=ALL)
    line["vectors"]["c"][5] = None
    found = judged(line=line, profiles=toy())
    assert records.parse(json.loads(json.dumps(found))) == found
    assert (found["verdict"], found["target"]) == ("backdoored", 3)
    assert set(found["witnesses"]) == set(ALL)
    assert found["witnesses"]["c"][5] is None and None not in found["witnesses"]["a"]
    assert found["score"] == found["z"][3] == max(found["z"])
    rule = made.DETECTOR.rule
    assert found["threshold"] == rule.thresholds["profile"]
    assert found["suspicious_above"] == rule.suspicious["profile"]
    flat = line["vectors"] | {"b": [0.5] * made.CLASSES}
    found = judged(line=line | {"vectors": flat}, profiles=toy())
    assert found["void"] == {"b": witnesses.VOID}


def test_where_nothing_is_said_the_verdict_is_inconclusive_never_clean():
    flat = made.evidence({"a": [0.5] * 8, "b": [0.2] * 8})
    for profiles in (None, toy()):
        found = judged(line=flat, profiles=profiles)
        assert found["verdict"] == "inconclusive" and "says anything" in found["reason"]
        assert found["score"] is None and set(found["void"]) == {"a", "b"}


def test_evidence_without_a_vector_that_is_needed_is_inconclusive():
    line = made.evidence({"a": made.CURVES["a"], "c": made.CURVES["c"]})
    found = judged(line=line, profiles=toy())
    assert found["verdict"] == "inconclusive"
    assert found["reason"] == "the evidence lacks b, which the verdict needs"


@pytest.mark.parametrize("kind", ["trusted", "population"])
def test_models_whose_evidence_lacks_a_vector_are_no_yardstick(kind):
    """As those of mode `targeted` of networks without batch statistics."""
    lacking = [
        {**one, "vectors": {"a": one["vectors"]["a"]}}
        for one in made.several(9, first=50)
    ]
    assert judged(**{kind: lacking})["baseline"] == "within"
    found = judged(**{kind: [*lacking, *made.several(8)]})
    assert found["baseline"] == kind and found["compared_with"].startswith("8 ")
    found = judged(line=lacking[0], **{kind: lacking})
    assert found["reason"] == "the evidence lacks b, which the verdict needs"
    with pytest.raises(profile.ProfileError, match="m50.*lacks b"):
        profile.make("toy", lacking, {})


def test_classes_that_one_witness_alone_knows_hide_none_at_which_two_agree():
    def of(bumps, size=1.0):
        one = made.clean(99, bumps, names=ALL, size=size)
        some = [*one["vectors"]["c"][:6], None, None]
        vectors = {**one["vectors"], "b": [0.2] * made.CLASSES, "c": some}
        return judged(line={**one, "vectors": vectors}, profiles=toy())

    found = of({"a": 3, "c": 3})
    assert (found["verdict"], found["target"]) == ("backdoored", 3)
    assert found["z"][6:] == [0, 0] and "b" in found["void"]
    found = of({"a": 3, "c": 3}, size=0.08)
    assert (found["verdict"], found["target"]) == ("suspicious", 3)
    quiet = of({})
    assert quiet["verdict"] == "inconclusive" and quiet["z"] is None


# --- networks with batch statistics and without


def test_a_profile_of_networks_with_batch_statistics_adds_nothing_to_others(
    monkeypatch,
):
    """Else trusted models without them would look as if they had some, and their levels
    would not count."""
    rule = dataclasses.replace(made.RULE, statistics="c")
    changed = dataclasses.replace(made.DETECTOR, rule=rule)
    monkeypatch.setitem(detectors.DETECTORS._things, made.MODE, changed)
    with_them, without = ("a", "b", "c"), ("a", "b")
    for names, known in ((with_them, True), (without, False)):
        judge = verdict.Judge(
            trusted=made.several(5, names=names), profiles=toy(first=200)
        )
        found, _ = judge.baseline(made.clean(99, names=names))
        assert found.kind == "trusted"
        assert ("c" in found.centre) == known
        assert len(found.null) == (5 + 6 if known else 5)


# --- a threshold that is asked for


def test_what_a_level_flags_is_flagged_above_any_threshold_that_is_asked_for(
    monkeypatch,
):
    """Its score is made of the level only where the others' is not above the threshold."""
    rule = dataclasses.replace(made.RULE, levels={"c": "one change"})
    changed = dataclasses.replace(made.DETECTOR, rule=rule)
    monkeypatch.setitem(detectors.DETECTORS._things, made.MODE, changed)
    rng = np.random.default_rng(0)

    def with_shares(line, *high):
        shares = rng.uniform(0.05, 0.15, made.CLASSES)
        shares[list(high)] = 0.999
        return {**line, "vectors": {**line["vectors"], "c": [*map(float, shares)]}}

    names = ("a", "b", "c")
    known = profile.make(
        "toy", [with_shares(one) for one in made.several(6, names=names)], {}
    )
    plain = made.clean(99, TARGET, names, size=0.07)
    line = with_shares(plain, 1)
    by_default, above = (
        judged("profile", line, known, threshold=threshold) for threshold in (None, 5.0)
    )
    assert by_default["verdict"] == "backdoored" and by_default["target"] == 3
    assert by_default["score"] < 5
    assert above["verdict"] == "backdoored" and above["target"] == 1
    quiet = judged("profile", with_shares(plain), known, threshold=5.0)
    assert quiet["verdict"] == "clean"
