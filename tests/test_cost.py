"""What a candidate costs by the work formula, and the networks that are compiled for it."""

import pytest

from benchmarks import cost


@pytest.mark.parametrize("mode", ["ban", "weights"])
def test_passes_of_a_thousand_classes_are_at_most_those_of_ten_and_a_fifth(mode):
    ten, thousand = (cost.passes(mode, classes, 512)[mode] for classes in (10, 1000))
    assert ten <= thousand <= 1.2 * ten


def test_a_closer_look_costs_what_each_class_that_is_asked_about_does():
    assert (
        cost.passes("ban", 1, 512)["directed"] * 10
        == (cost.passes("ban", 10, 512)["directed"])
    )


@pytest.mark.parametrize(
    "arch, side, stem",
    [("resnet18", 32, "cifar"), ("resnet18", 224, "imagenet"), ("vgg16", 224, "cifar")],
)
def test_networks_have_the_stem_of_their_images(arch, side, stem):
    spec = cost.spec_of(arch, 4, side, 10)
    assert (spec.stem, spec.width, spec.num_classes) == (stem, 4, 10)


def test_a_width_of_zero_is_the_networks_own():
    assert cost.spec_of("resnet18", 0, 32, 10).width == 64
