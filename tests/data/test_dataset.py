"""Images in memory: what is made of several sets, and of all of their pixels."""

import dataclasses

import numpy as np
import pytest

from ban_jax import data


def test_pixel_constants_are_those_of_the_images():
    dataset = data.load("digits", split="train")
    mean, std = data.pixel_constants(dataset)
    assert mean[0] == pytest.approx(dataset.images.mean(), abs=1e-4)
    assert std[0] == pytest.approx(dataset.images.std(), abs=1e-4)


def test_images_to_train_and_to_test_on_have_the_classes_of_either():
    train = data.load("digits", split="train")
    test = dataclasses.replace(data.load("digits"), num_classes=4)
    both = data.together(train, test)
    assert [one.num_classes for one in both] == [10, 10]
    assert [one.num_classes for one in data.together(test, train)] == [10, 10]
    other = dataclasses.replace(test, pixels=test.pixels[:, :4])
    with pytest.raises(data.DataError, match=r"digits: training images are \(8, 8, 1"):
        data.together(train, other)


def test_pixel_constants_of_many_images_are_no_saturated_sums():
    # A float32 sum of 4 million 0.8s, one by one, stops growing at 2 ** 24.
    shape = (6000, 32, 32, 3)
    pixels = np.full(shape, 204, np.uint8)
    pixels[::2] = 255
    many = data.Dataset("x", "train", pixels, np.zeros(len(pixels), np.int32), 1)
    mean, std = data.pixel_constants(many)
    assert mean == pytest.approx([0.9] * 3, abs=1e-4)
    assert std == pytest.approx([0.1] * 3, abs=1e-4)
