"""The patch of a record: drawn where it lies, and only where it fits the record."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ban_jax.records import recovered
from ban_jax.report import found_patch
from tests.report import page_parser, report_sample

CHANGE = np.full((3, 3, 3), 1.0)
CHANGE[1, 1] = (-1.0, 0.0, 0.5)


def record(share=0.93, target=3, score=6.0, **changes):
    """A line of the default mode whose strongest patch lies at row 28, column 5."""
    line = report_sample.judged(mode="ban", target=target, score=score)
    shares = [0.01] * 10
    shares[3] = share
    line["vectors"]["patch"] = shares
    line["data"] = {"name": "cifar10", "classes": None, "image_shape": [32, 32, 3]}
    told = {"target": 3, "corner": np.array([28, 5]), "change": CHANGE}
    line["info"] = {"patch": recovered.told_patch(told) | changes}
    return line


def drawn(line, **options):
    page = page_parser.render([line], **options)
    return page, page.having("img")


def test_a_proof_is_drawn_large_in_its_place_with_what_it_does():
    page, images = drawn(record(), class_names=report_sample.CLASS_NAMES)
    image, enlarged = images
    assert enlarged["alt"] == "The same patch, enlarged"
    assert opened(enlarged).tolist() == opened(image)[28:31, 5:8].tolist()
    assert image["alt"] == (
        "Grey image with the patch of 3 by 3 pixels that turns 93% of images into cat; "
        "its first pixel is in row 29 of 32, column 6 of 32"
    )
    text = " ".join(page.text)
    assert "patch that turns 93% of images into cat" in text
    assert [a["class"] for a in page.having("figure", "class")].count("suspect") == 1
    pixels = opened(image)
    assert pixels.shape == (32, 32, 3)
    assert pixels[28, 5].tolist() == [255, 255, 255]
    assert pixels[29, 6].tolist() == [0, 128, 255]
    pixels = np.delete(pixels.reshape(-1, 3), patch_places(), axis=0)
    assert len(pixels) == 32 * 32 - 9 and np.all(pixels == 128)


def opened(image):
    encoded = image["src"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def patch_places():
    return [32 * row + column for row in (28, 29, 30) for column in (5, 6, 7)]


def test_one_that_proves_nothing_is_not_told_as_if_it_did():
    page, (image, _) = drawn(record(share=0.12, target=None, score=0.5))
    assert "adds 12% to the probability of class 3" in image["alt"]
    assert "It proves nothing." in " ".join(page.text)
    assert not [a for a in page.having("figure", "class") if a["class"] == "suspect"]


def test_a_patch_of_another_class_than_the_suspected_is_not_marked():
    page, images = drawn(record(share=0.12, target=1))
    assert len(images) == 2
    assert not [a for a in page.having("figure", "class") if a["class"] == "suspect"]


def test_a_patch_is_no_fact_besides():
    page, _ = drawn(record())
    assert "patch.row" not in " ".join(page.text)


def test_a_record_without_a_patch_is_drawn_without_one():
    line = record()
    del line["info"]["patch"]
    assert not drawn(line)[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"class": 10},
        {"class": -1},
        {"class": True},
        {"class": None},
        {"row": 30},
        {"column": 1.5},
        {"column": 10**9},
        {"side": 0},
        {"side": 2},
        {"channels": 1},
        {"change": None},
        {"change": "é"},
        {"change": "AAAA"},
        {"change": "<script>"},
    ],
)
def test_a_patch_that_does_not_fit_its_record_is_not_drawn(changes):
    assert found_patch.patch_of(record()) is not None
    line = record(**changes)
    assert found_patch.patch_of(line) is None
    assert not drawn(line)[1]


@pytest.mark.parametrize(
    "shape", [None, [], [32, 32], [32, 32, 1], [10**6, 32, 3], [32, 10**6, 3], "abc"]
)
def test_an_image_that_cannot_be_drawn_is_not(shape):
    line = record()
    line["data"]["image_shape"] = shape
    assert found_patch.patch_of(line) is None
    line["data"] = None
    assert found_patch.patch_of(line) is None


def test_a_patch_whose_strength_is_not_known_is_not_drawn():
    for shares in (None, [], [None] * 10, [0.9] * 4):
        line = record()
        line["vectors"]["patch"] = shares
        assert found_patch.patch_of(line) is None
