"""Recovered images: the suspected class's large, each with words, and only PNGs."""

import base64

import pytest

from ban_jax.report import images
from tests.report import page_parser, report_sample

_PNG = report_sample.triggers(1)[0]


def _section(record, **options):
    page = page_parser.render([record], **options)
    return page, [image["alt"] for image in page.having("img")]


def test_the_suspected_class_comes_first_and_large():
    record = report_sample.with_images(target=3)
    page, alts = _section(record, class_names=report_sample.CLASS_NAMES)
    assert alts[0] == "Trigger, cat"
    assert alts[1:] == [
        f"Trigger, {name}" for name in report_sample.CLASS_NAMES if name != "cat"
    ]
    assert page.having("img")[0]["src"].endswith(record["images"]["trigger"][3])
    assert [a["class"] for a in page.having("figure", "class")].count("suspect") == 1
    assert "the suspected target" in " ".join(page.text)


def test_a_clean_candidate_has_no_large_image():
    page, alts = _section(report_sample.with_images(score=1.0))
    assert alts == [f"Trigger, class {k}" for k in range(10)]
    assert not [a for a in page.having("figure", "class") if a["class"] == "suspect"]


def test_with_many_classes_the_suspected_and_the_largest_scores_are_shown():
    record = report_sample.with_images(target=150, num_classes=200)
    record["z"] = [float(k) for k in range(200)]
    page, alts = _section(record)
    assert alts[0] == "Trigger, class 150"
    assert alts[1:] == [f"Trigger, class {k}" for k in range(181, 200)]
    assert "Those of 20 of 200 classes." in " ".join(page.text)


@pytest.mark.parametrize("missing", [None, "", "text", 3, {}])
def test_a_class_without_an_image_is_left_out(missing):
    record = report_sample.with_images()
    record["images"]["trigger"][4] = missing
    _, alts = _section(record)
    assert len(alts) == 9
    assert "Trigger, class 4" not in alts


@pytest.mark.parametrize(
    "found", [None, {}, [], {"trigger": None}, {"trigger": [None]}]
)
def test_a_record_without_images_has_no_gallery(found):
    page, alts = _section(report_sample.judged(images=found))
    assert not alts
    assert "Trigger" not in " ".join(page.text)


def test_a_png_in_base64_becomes_a_part_of_the_page():
    assert images.data_uri(_PNG) == f"data:image/png;base64,{_PNG}"


@pytest.mark.parametrize(
    "encoded",
    [
        None,
        7,
        "",
        "é",
        _PNG + "\n",
        _PNG + '" onerror="alert(1)',
        " " + _PNG,
        _PNG[:-8],
        base64.b64encode(b"<svg onload=alert(1)>").decode(),
        base64.b64encode(base64.b64decode(_PNG) + b"<script>").decode(),
        base64.b64encode(b"GIF89a" + base64.b64decode(_PNG)).decode(),
    ],
)
def test_anything_else_does_not(encoded):
    assert images.data_uri(encoded) is None
