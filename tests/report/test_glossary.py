"""Words come from the detector that measured; what is unknown keeps its own name."""

import dataclasses

from ban_jax import detectors, report
from ban_jax.detectors import Words
from ban_jax.report import glossary
from tests.report import page_parser, report_sample


def _descriptions(page):
    return [a["aria-label"] for a in page.having("svg", "aria-label")]


def test_every_mode_is_explained_by_its_detector():
    for mode, detector in detectors.DETECTORS.items():
        text = " ".join(page_parser.render([report_sample.judged(mode=mode)]).text)
        assert " ".join(detector.summary.split()) in " ".join(text.split())


def test_an_unknown_mode_keeps_its_vectors_names_and_is_not_explained():
    page = page_parser.render([report_sample.of_another_package()])
    labels = _descriptions(page)
    assert labels[2] == "odd vector: largest is class 2 with 5"
    assert labels[3].startswith("odd vector, by noise radius: largest is")
    assert labels[4] == "other: largest is class 2 with 0.3"
    text = " ".join(page.text)
    assert "foreign" in text and "Drawn from" not in text
    assert "Mode foreign :" not in " ".join(text.split())


def test_a_detector_that_was_added_brings_its_own_words(monkeypatch):
    rule = dataclasses.replace(detectors.DETECTORS["weights"].rule, vectors=("other",))
    toy = dataclasses.replace(
        detectors.DETECTORS["weights"],
        rule=rule,
        summary="a toy that guesses",
        vectors={
            "other": Words("Other title", "Other meaning.", "share"),
            "histogram": Words("Guesses", "What it guessed.", "share"),
            "trigger": Words("Recovered square", "What it drew."),
        },
    )
    monkeypatch.setattr(detectors, "DETECTORS", {**detectors.DETECTORS, "foreign": toy})
    record = report_sample.of_another_package()
    record["info"]["histogram"] = [0.2, 0.3, 0.5]
    record["images"] = {"trigger": report_sample.triggers(3)}
    page = page_parser.render([record])
    text = " ".join(" ".join(page.text).split())
    for told in (
        "Mode foreign : a toy that guesses",
        "Other meaning.",
        "What it guessed.",
    ):
        assert told in text
    assert "Drawn from: Other title." in text
    assert "Other title: largest is class 2 with 30 %" in _descriptions(page)
    assert page.having("img")[0]["alt"] == "Recovered square, class 2"


def test_the_vectors_that_decide_are_those_of_the_rule_as_far_as_they_are_stored():
    record = report_sample.judged()
    assert glossary.deciding(record) == ["targeted", "batch_minus_stored"]
    del record["vectors"]["targeted"]
    assert glossary.main_vector(record) == "batch_minus_stored"
    assert glossary.main_vector(record | {"mode": "foreign"}) == "batch"
    assert glossary.main_vector({}) is None


def test_what_a_detector_alone_tells_is_listed_where_it_is_short():
    record = report_sample.judged()
    record["info"] |= {
        "steps_taken": 12000,
        "converged": True,
        "trigger_size": [0.25, None, 1.0],
        "nested": {"mask_loss": 0.123456},
        "long": [0.5] * 100,
        "table": [[1.0], [2.0]],
    }
    text = report.render([record])
    for name, value in {
        "steps taken": "12,000",
        "converged": "yes",
        "trigger size": "0.25, –, 1",
        "nested.mask loss": "0.1235",
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "<dt>long</dt>" not in text
    assert "<dt>table</dt>" not in text
    assert "<dt>histogram</dt>" not in text
