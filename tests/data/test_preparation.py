"""Images of other sizes, against torchvision; `make_preparation_goldens` wrote them."""

import pathlib
import types

import numpy as np
import pytest

from ban_jax import data
from ban_jax.data import clean_images, preparation

GOLDENS = np.load(pathlib.Path(__file__).parent / "testdata" / "preparation.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDENS})


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_resized_and_cut_as_torchvision_does(case):
    size, kept, kind = GOLDENS[f"{case}/how"]
    squeezed = case == "squeezed"
    how = preparation.Preparation(int(size), float(kept), str(kind), squeezed)
    ours = preparation.prepared(GOLDENS[f"{case}/image"], how)
    np.testing.assert_array_equal(ours, GOLDENS[f"{case}/prepared"])


def test_one_channel_is_prepared_as_each_of_three():
    image, how = GOLDENS["wide/image"], preparation.Preparation(24)
    grey = preparation.prepared(image[..., :1], how)
    np.testing.assert_array_equal(grey, preparation.prepared(image, how)[..., :1])


def test_an_image_of_the_size_already_is_taken_as_it_is():
    image = GOLDENS["wide/image"][:24, :24]
    assert preparation.prepared(image, preparation.Preparation(24)) is image


def test_a_preparation_is_told_in_words():
    assert preparation.told(preparation.Preparation(24)) == (
        "shorter side resized to 27 pixels (bilinear), the middle 24x24 taken"
    )
    whole = preparation.Preparation(24, 1.0, "bicubic", squeezed=True)
    assert preparation.told(whole) == "resized to 24x24 pixels (bicubic)"
    part = preparation.Preparation(24, 0.875, squeezed=True)
    assert preparation.told(part).endswith(
        "27x27 pixels (bilinear), the middle 24x24 taken"
    )


@pytest.mark.parametrize(
    "how, words",
    [
        (preparation.Preparation(0), "must be at least 1, got 0"),
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


def asked(**flags):
    """Flags of a command that has them."""
    given = {"image_size": 4, "crop_pct": 0.5, "interpolation": "bicubic", **flags}
    return types.SimpleNamespace(**given)


def test_flags_say_how_images_are_prepared():
    assert clean_images.size(asked()) == preparation.Preparation(4, 0.5, "bicubic")
    assert clean_images.size(asked(crop_pct=None)) == 4
    assert clean_images.size(types.SimpleNamespace(image_size=None)) is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"image_size": None}, "--crop-pct needs --image-size N"),
        ({"crop_pct": 1.5}, r"must be in \(0, 1\], got 1.5"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(flags, told):
    with pytest.raises(ValueError, match=told):
        clean_images.size(asked(**flags))


def test_a_scan_takes_the_middle_of_its_images(tmp_path):
    """White in the middle, black around it."""
    images = np.zeros((20, 16, 16, 3), np.uint8)
    images[:, 4:12, 4:12] = 255
    path = str(tmp_path / "images.npz")
    np.savez(path, images=images, labels=np.arange(20) % 2)
    shared = {
        "data": path,
        "data_dir": None,
        "split": "test",
        "num_clean": 20,
        "seed": 0,
    }
    kept = clean_images.load(asked(image_size=8, **shared)).pixels
    assert kept.shape == (20, 8, 8, 3) and kept[:, 1:-1, 1:-1].min() == 255
    squeezed = clean_images.load(asked(image_size=8, crop_pct=None, **shared)).pixels
    assert squeezed[:, 0, 0].max() == 0
