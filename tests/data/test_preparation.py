"""Images of other sizes, against torchvision; `make_preparation_goldens` wrote them."""

import pathlib

import numpy as np
import pytest

from ban_jax import data
from ban_jax.data import preparation

GOLDENS = np.load(pathlib.Path(__file__).parent / "testdata" / "preparation.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDENS})


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_resized_and_cut_as_torchvision_does(case):
    size, kept, kind = GOLDENS[f"{case}/how"]
    how = preparation.Preparation(int(size), float(kept), str(kind))
    ours = preparation.prepared(GOLDENS[f"{case}/image"], how)
    np.testing.assert_array_equal(ours, GOLDENS[f"{case}/prepared"])


def test_one_channel_is_prepared_as_each_of_three():
    image, how = GOLDENS["wide/image"], preparation.Preparation(24)
    grey = preparation.prepared(image[..., :1], how)
    np.testing.assert_array_equal(grey, preparation.prepared(image, how)[..., :1])


def test_an_image_of_the_size_already_is_taken_as_it_is():
    image = GOLDENS["wide/image"][:24, :24]
    assert preparation.prepared(image, preparation.Preparation(24)) is image


@pytest.mark.parametrize(
    "how, words",
    [
        (preparation.Preparation(0), "at least one pixel a side, got 0"),
        (preparation.Preparation(8, 0.0), r"in \(0, 1\], got 0.0"),
        (preparation.Preparation(8, 87.5), r"in \(0, 1\], got 87.5"),
        (preparation.Preparation(8, 1.0, "box"), "one of .*bicubic.* got 'box'"),
    ],
)
def test_what_cannot_be_done_is_refused(how, words):
    with pytest.raises(ValueError, match=words):
        preparation.prepared(np.zeros((4, 4, 3), np.uint8), how)


def test_clean_images_are_prepared_wherever_they_come_from(tmp_path):
    image, how = GOLDENS["wide/image"], preparation.Preparation(24)
    path = tmp_path / "images.npz"
    np.savez(path, images=image[None].repeat(2, 0), labels=np.arange(2))
    loaded = data.load(str(path), image_size=how)
    expected = GOLDENS["wide/prepared"]
    np.testing.assert_array_equal(loaded.pixels[1], expected)
