"""Every field of every settings class changes something: none is read by nobody."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors, patch, repairs
from tests import tiny
from tests.detectors import contract


def features(variables, images, mode):
    """`tiny.features`, whose columns do not count alike: a mirrored image is another."""
    x, variables = tiny.features(variables, images, mode)
    columns = jnp.linspace(0.2, 1.8, x.shape[2])
    return x * columns.reshape(1, 1, -1, 1), variables


NETWORK = tiny.NETWORK._replace(features=features)

SEED = 2
"""Of a network that does not give every image the same answer."""

BEFORE = {
    "detectors": {
        "targeted": {"start": 0.3, "radii": (0.5, 1.0)},
        "ban": {
            "start": 0.3,
            "radii": (0.5, 1.0),
            "restarts": 2,
            "patch_steps": 1,
        },
        # A bound that decides, and images that are augmented.
        "bti_dbf": {"released": True, "image_bound": 9.0, "feature_bound": 0.2},
        "bti_dbf_star": {"released": True, "image_bound": 9.0, "feature_bound": 0.2},
        # Bounds that decide.
        "feature_re": {
            "images_per_class": 4,
            "batch_size": 15,
            "success": 0.5,
            "spread_bound": 0.01,
            "mask_size": 0.3,
        },
        "unicorn": {
            "images_per_class": 4,
            "batch_size": 15,
            "structure_bound": 0.5,
            "success": 0.5,
            "spread_bound": 0.01,
            "feature_mask_size": 0.9,
        },
        # Searches that end early, at weights that went up and down.
        "neural_cleanse": {"rounds": 40, "patience": 1, "success": 0.7},
        "tabor": {"rounds": 40, "patience": 1, "success": 0.7, "blocking": 0.1},
        "reference": {"crop": 1, "epsilon": 0.3, "mask_learning_rate": 0.2},
    },
    "repairs": {
        # Lessons that break the budget, and epochs enough to run out of patience.
        "finetune": {"learning_rate": 0.1, "budget": 0.0, "epochs": 4, "batch_size": 4},
        "ban": {"learning_rate": 0.1, "budget": 0.0, "epochs": 4, "batch_size": 4},
        "anp": {"thresholds": (0.3, 0.6, 0.9), "budget": 1.0},
    },
}
"""Settings under which every field counts, where the smallest ones do not do."""

AFTER = {
    "schedule": ("linear",),
    "budget": (1.0, -1.0),
    "thresholds": ((0.999,),),
    "radii": ((0.25, 0.75),),
    "l1_weight": (30.0,),
    "steps": (5,),
    # A size that must fall below twice the best always does: such a search never ends.
    "improvement": (2.0,),
    # The search ends after its first step.
    "tolerance": (2.0,),
    # One image leads nowhere towards its own class.
    "pixel_images": (1,),
}
"""What a field is changed to, the first that it is not, where half its value or one more
does not do."""


@pytest.fixture(autouse=True)
def patches_on_small_images(monkeypatch):
    """Two pixels of four: a tenth of them would be none."""
    monkeypatch.setattr(patch, "SIDE", 0.5)


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 if isinstance(value, float) else None


def differs(one, other):
    """Whether any array, or which arrays there are, is another."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return True
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(
        np.shape(a) != np.shape(b) or not np.array_equal(a, b, equal_nan=True)
        for a, b in pairs
    )


def fields_of(kind, registry):
    """Fields that settings have from another's are tried there."""
    known = {one.settings for one in registry.values()}
    return [
        pytest.param(name, field.name, id=f"{kind}-{name}-{field.name}")
        for name in registry
        for field in dataclasses.fields(registry[name].settings)
        if not any(
            hasattr(base, field.name)
            for base in registry[name].settings.__bases__
            if base in known
        )
    ]


def settings_of(kind, name, registry):
    smallest = contract.smallest(registry[name].settings)
    return dataclasses.replace(smallest, **BEFORE[kind].get(name, {}))


def with_another(settings, field):
    value = getattr(settings, field)
    candidates = [*AFTER.get(field, ()), changed(value)]
    other = next(candidate for candidate in candidates if candidate != value)
    return dataclasses.replace(settings, **{field: other})


def of_detector(name, variables, probe, settings):
    return detectors.DETECTORS[name].detect(
        NETWORK, variables, probe, key=jax.random.key(0), config=settings
    )


def of_repair(name, variables, clean, settings):
    return repairs.METHODS[name].repair(
        NETWORK, variables, clean, key=jax.random.key(0), config=settings
    )


evidence = jax.jit(of_detector, static_argnums=0)
repaired = jax.jit(of_repair, static_argnums=0)


@functools.lru_cache(maxsize=8)
def program(function, name, settings, images):
    """What is traced: another text wherever a static setting is read."""
    traced = jax.make_jaxpr(lambda *given: function(name, *given, settings))
    text = str(traced(tiny.variables(), images()))
    return re.sub(r"\b0x[0-9a-f]+\b", "", text)  # Where a function lies in memory.


def is_static(settings, field):
    """Compiled in: a program of its own for each value, which takes long to compile."""
    one, other = map(jax.tree.structure, (settings, with_another(settings, field)))
    return one != other


def probe():
    return tiny.probe(2, 256)


def small_probe():
    """Of 2x2 pixels, on which a U-Net is a single block: compiled in a quarter of the
    time, with all that is set."""
    return probe()._replace(images=probe().images[:, :, :2, :2])


def nothing():
    return None


def images_for(name):
    """What makes the images that a detector is shown."""
    if not detectors.DETECTORS[name].needs:
        return nothing
    fields = dataclasses.fields(detectors.DETECTORS[name].settings)
    return small_probe if "width" in {field.name for field in fields} else probe


@pytest.mark.parametrize("name, field", fields_of("detectors", detectors.DETECTORS))
def test_every_setting_of_every_detector_changes_its_evidence(name, field):
    settings = settings_of("detectors", name, detectors.DETECTORS)
    both = (settings, with_another(settings, field))
    images = images_for(name)
    if is_static(settings, field):
        one, other = (program(of_detector, name, each, images) for each in both)
        assert one != other
        return
    # A histogram of answers that are all the same would show little.
    variables = tiny.variables(SEED if name == "reference" else 0)
    one, other = (evidence(name, variables, images(), each) for each in both)
    assert differs(one, other)


@functools.cache
def clean_set():
    """Three batches of four to learn wrong answers from; twelve images, all classified as
    labelled before that, to watch the accuracy on."""
    images = tiny.probe(3).images
    answers = NETWORK.predict(tiny.variables(SEED), images.reshape(-1, 4, 4, 3))
    wrong = (answers[:12] + 1) % tiny.CLASSES
    few, held = images.reshape(2, 12, 4, 4, 3)
    return repairs.CleanSet(few, wrong, held[None], answers[None, 12:])


@pytest.mark.parametrize("name, field", fields_of("repairs", repairs.METHODS))
def test_every_setting_of_every_repair_changes_its_result(name, field):
    settings = settings_of("repairs", name, repairs.METHODS)
    both = (settings, with_another(settings, field))
    if is_static(settings, field):
        one, other = (program(of_repair, name, each, clean_set) for each in both)
        assert one != other
        return
    one, other = (
        repaired(name, tiny.variables(SEED), clean_set(), each) for each in both
    )
    assert differs(one, other)


def test_a_setting_that_nobody_reads_would_be_noticed():
    settings = settings_of("repairs", "finetune", repairs.METHODS)
    both = (settings, dataclasses.replace(settings))
    one, other = (
        repaired("finetune", tiny.variables(SEED), clean_set(), each) for each in both
    )
    assert not differs(one, other)
    program.cache_clear()
    texts = []
    for each in both:
        texts.append(program(of_repair, "finetune", each, clean_set))
        program.cache_clear()
    assert texts[0] == texts[1]
