"""Clean images as minibatches, what they are warned of, and the pixel constants."""

import warnings

import numpy as np
import pytest

from ban_jax.data import normalisation, probe


def images(count):
    return np.random.RandomState(0).rand(count, 4, 4, 1).astype(np.float32)


def told(labels):
    """What `minibatches` warns of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        probe.minibatches(images(len(labels)), np.asarray(labels))
    return [str(one.message) for one in found]


def test_minibatches_keep_the_order_and_leave_out_what_fills_none():
    labels = np.arange(300) % 10
    found = probe.minibatches(images(300), labels)
    assert found.images.shape == (2, 128, 4, 4, 1) and found.labels.shape == (2, 128)
    np.testing.assert_array_equal(found.labels.ravel(), labels[:256])
    np.testing.assert_array_equal(found.images.reshape(256, 4, 4, 1), images(300)[:256])


@pytest.mark.parametrize("classes", [1, 2, 10, 100, 1000])
def test_random_images_of_however_many_classes_are_no_reason_to_warn(classes):
    assert told(np.random.RandomState(1).randint(classes, size=1024)) == []


@pytest.mark.parametrize("classes, shown", [(10, 2), (2, 1), (100, 12)])
def test_images_sorted_by_class_are_warned_of(classes, shown):
    (warning,) = told(np.sort(np.arange(1024) % classes))
    assert f"shows {shown} of {classes} classes" in warning
    assert "sorted by class" in warning


def test_one_minibatch_without_half_of_the_classes_is_enough_to_warn():
    mixed = np.arange(256) % 10
    assert told(mixed) == []
    poor = np.concatenate([mixed[:128], mixed[:128] % 4])
    assert "shows 4 of 10 classes" in told(poor)[0]
    fair = np.concatenate([mixed[:128], mixed[:128] % 6])
    assert told(fair) == []


def test_fewer_images_than_two_minibatches_are_warned_of_and_one_is_refused():
    for count in (100, 128, 255):
        assert f"{count} clean images are fewer" in told(np.arange(count) % 10)[0]
    assert told(np.arange(256) % 10) == []
    with pytest.raises(ValueError, match="at least 2 clean images are needed, got 1"):
        probe.minibatches(images(1), np.zeros(1, int))


def test_another_image_or_label_is_another_digest():
    labels = np.arange(128) % 10
    base = probe.minibatches(images(128), labels)
    assert probe.digest(base) == probe.digest(probe.minibatches(images(128), labels))
    changed = images(128)
    changed[5, 2, 2, 0] += 0.5
    others = [
        probe.minibatches(changed, labels),
        probe.minibatches(images(128), labels[::-1].copy()),
    ]
    assert len({probe.digest(one) for one in (base, *others)}) == 3


def test_the_constants_of_a_known_data_set_come_first_and_grey_images_have_three():
    assert next(iter(normalisation.options("gtsrb", 3))) == "gtsrb-featurere"
    assert [*normalisation.options("cifar100", 3)][:2] == ["cifar100", "none"]
    assert list(normalisation.options("cifar10", 1)) == ["none", "half", "0..255"]
    known = {name for group in normalisation.NORMALISATIONS.values() for name in group}
    assert set(normalisation.options("my own", 3)) == {*known, "none", "half", "0..255"}


def test_constants_are_read_by_name_or_as_numbers():
    assert normalisation.parse_normalisation("half", 1) == ((0.5,), (0.5,))
    assert normalisation.parse_normalisation("0.5/0.25", 3) == (
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
    )
    for text, message in (
        ("cifr", "takes a name"),
        ("1,2/3", "must give 3 means"),
        ("0/0", "positive deviations"),
        ("0/nan", "positive deviations, all finite"),
        ("inf/1", "positive deviations, all finite"),
    ):
        with pytest.raises(ValueError, match=message):
            normalisation.parse_normalisation(text, 3)
