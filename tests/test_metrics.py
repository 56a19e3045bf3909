"""Every metric against counting in NumPy, on a model whose answers are known."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from ban_jax import data, types
from ban_jax.attacks import poison
from ban_jax.attacks.types import AttackState, Kernel, Preparation
from ban_jax.zoo import success

CLASSES = 4
COUNT = 23
CLEAN, TRIGGERED, CROSSED = range(3)
"""Place in an image of the class the model will see in it, by what was done to it."""


def features(variables, images, mode):
    assert mode == "stored"
    return images, variables


def head(variables, features, mode):
    del mode
    answer = jnp.round(features[:, 0, CLEAN, 0] * 255).astype(jnp.int32)
    return jax.nn.one_hot(answer, CLASSES), variables


NETWORK = types.Network(features, head, lambda variables: None, CLASSES)


def bring_forward(place, images):
    return images.at[:, :, CLEAN].set(images[:, :, place])


KERNEL = Kernel(
    teach=lambda state, key, batch: None,
    trigger=lambda state, images: bring_forward(TRIGGERED, images),
    cross=lambda state, key, images: bring_forward(CROSSED, images),
    after_augmentation=False,
    optimizer=optax.set_to_zero(),
)
PREPARED = KERNEL._replace(
    preparation=Preparation(1, lambda state, key, images: (state, 0.0))
)


@functools.cache
def known_images():
    random = np.random.RandomState(0)
    pixels = random.randint(CLASSES, size=(COUNT, 1, 3, 1)).astype(np.uint8)
    labels = random.randint(CLASSES, size=COUNT).astype(np.int32)
    # A third and more are right, some wrong, so that no share is near zero.
    pixels[::3, 0, :, 0] = labels[::3, None]
    return data.Dataset("known", "test", pixels, labels, CLASSES)


def measured(spec, policy=poison.NO_POISON, kernel=KERNEL, limit=None):
    return success.measure(
        {},
        known_images(),
        network=NETWORK,
        kernel=kernel,
        attack=AttackState((), ()),
        spec=spec,
        policy=policy,
        key=jax.random.key(0),
        limit=limit,
    )


def share(place, wanted, counted, limit=COUNT):
    """Of the counted images, those answered as wanted: one by one."""
    pixels, labels = known_images().pixels[:, 0, place, 0], known_images().labels
    hits = [
        pixels[index] == wanted(labels[index])
        for index in range(limit)
        if counted(labels[index])
    ]
    return pytest.approx(sum(hits) / len(hits))


ITSELF = lambda label: label  # noqa: E731
ALWAYS = lambda label: True  # noqa: E731
SPEC = poison.PoisonSpec(0.1, target=1)


def test_clean_models_have_an_accuracy_and_nothing_else():
    found = measured(poison.PoisonSpec(0.0, mode="all_to_all"))
    assert found.clean_accuracy == share(CLEAN, ITSELF, ALWAYS)
    assert 0.3 < found.clean_accuracy < 0.9
    assert np.isnan(found[1:]).all() and np.isnan(found.excess)
    assert set(success.as_json(found).values()) == {found.clean_accuracy, None}


def test_all_to_one_counts_images_of_other_classes_than_the_target():
    found = measured(SPEC)
    others = lambda label: label != 1  # noqa: E731
    assert found.clean_accuracy == share(CLEAN, ITSELF, ALWAYS)
    assert found.asr == share(TRIGGERED, lambda label: 1, others)
    assert found.asr != share(TRIGGERED, lambda label: 1, ALWAYS)
    assert found.untriggered == share(CLEAN, lambda label: 1, others)
    assert 0 < found.untriggered != share(CLEAN, lambda label: 1, ALWAYS)
    assert found.recovered_accuracy == share(TRIGGERED, ITSELF, others)
    assert np.isnan(found.non_victim_accuracy)


def test_all_to_all_counts_every_image_towards_the_next_class():
    found = measured(poison.PoisonSpec(0.1, mode="all_to_all"))
    following = lambda label: (label + 1) % CLASSES  # noqa: E731
    assert found.asr == share(TRIGGERED, following, ALWAYS)
    assert found.untriggered == share(CLEAN, following, ALWAYS)
    assert found.untriggered not in (0, share(CLEAN, lambda label: 1, ALWAYS))
    assert found.recovered_accuracy == share(TRIGGERED, ITSELF, ALWAYS)


def test_one_to_one_counts_victims_alone_and_others_apart():
    found = measured(poison.PoisonSpec(1.0, target=1, mode="one_to_one", victim=2))
    victims = lambda label: label == 2  # noqa: E731
    others = lambda label: label != 2  # noqa: E731
    assert found.asr == share(TRIGGERED, lambda label: 1, victims)
    assert found.untriggered == share(CLEAN, lambda label: 1, victims)
    assert 0 < found.untriggered != share(CLEAN, lambda label: 1, ALWAYS)
    assert found.recovered_accuracy == share(TRIGGERED, ITSELF, victims)
    assert found.non_victim_accuracy == share(TRIGGERED, ITSELF, others)


def test_no_image_of_the_victim_gives_nan_not_zero():
    spec = poison.PoisonSpec(1.0, target=1, mode="one_to_one", victim=CLASSES)
    found = measured(spec)
    assert np.isnan(found.asr) and np.isnan(found.recovered_accuracy)
    assert np.isnan(found.untriggered) and np.isnan(found.excess)
    assert success.has_failed(found, "one_to_one", 0.0)


def test_excess_is_what_the_trigger_adds_and_may_be_negative():
    found = measured(poison.PoisonSpec(0.1, mode="all_to_all"))
    assert found.excess == found.asr - found.untriggered
    assert success.as_json(found)["excess"] == found.excess
    idle = KERNEL._replace(trigger=lambda state, images: images)
    assert measured(SPEC, kernel=idle).excess == 0 < measured(SPEC, kernel=idle).asr
    assert success.Metrics(0.9, asr=0.02, untriggered=0.03).excess < 0


def test_images_without_trigger_are_predicted_once(monkeypatch):
    calls, predict = [], success.predict

    def counting(*arguments, **settings):
        calls.append(arguments)
        return predict(*arguments, **settings)

    monkeypatch.setattr(success, "predict", counting)
    measured(SPEC)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("mode", "untriggered", "failed"),
    [
        ("one_to_one", 0.05, False),
        ("one_to_one", 0.06, True),
        # 58 of 72 images of the victim were called the target without trigger.
        ("one_to_one", 0.806, True),
        ("all_to_one", 0.06, True),
        ("all_to_all", 0.06, False),
        ("all_to_all", 0.24, True),
    ],
)
def test_a_backdoor_has_failed_by_its_excess_not_by_its_success(
    mode, untriggered, failed
):
    found = success.Metrics(0.8, asr=0.953, untriggered=untriggered)
    assert success.has_failed(found, mode, 0.9) is failed


def test_an_older_list_tells_the_success_rate_and_that_it_is_no_excess():
    older, newer, clean = {"asr": 0.97}, {"asr": 0.97, "excess": 0.9}, {"asr": None}
    assert success.recorded(older) == (0.97, False)
    assert success.recorded(newer) == (0.9, True)
    assert np.isnan(success.recorded(clean).share)
    assert success.without_excess([older, newer, clean]) == [older]


def test_cross_accuracy_is_for_attacks_with_cover_images_or_generators():
    assert np.isnan(measured(SPEC, poison.Policy(0.1)).cross_accuracy)
    expected = share(CROSSED, ITSELF, ALWAYS)
    assert measured(SPEC, poison.Policy(0.1, cover=1.0)).cross_accuracy == expected
    found = measured(SPEC, poison.Policy(0.1), kernel=PREPARED)
    assert found.cross_accuracy == expected


@pytest.mark.parametrize("limit", [None, COUNT, 11, 1, 1000])
def test_batches_that_do_not_divide_the_images_change_no_figure(monkeypatch, limit):
    monkeypatch.setattr(success, "LARGEST_BATCH", 10)
    spec, policy = poison.PoisonSpec(0.1, mode="all_to_all"), poison.Policy(0.1, 1.0)
    found = measured(spec, policy, limit=limit)
    limit = min(limit or COUNT, COUNT)
    following = lambda label: (label + 1) % CLASSES  # noqa: E731
    assert found.clean_accuracy == share(CLEAN, ITSELF, ALWAYS, limit)
    assert found.asr == share(TRIGGERED, following, ALWAYS, limit)
    assert found.untriggered == share(CLEAN, following, ALWAYS, limit)
    assert found.cross_accuracy == share(CROSSED, ITSELF, ALWAYS, limit)


def test_batches_are_even_and_no_more_than_needed():
    for count in (1, 499, 500, 501, 797, 10_000):
        batch = success._even_batch(count, 500)
        batches = -(-count // batch)
        assert batch <= 500 and batches == -(-count // 500)
        assert batches * batch - count < batches
