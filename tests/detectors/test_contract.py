"""Every detector of the registry keeps the promises of `contract.py`, and those that
break one are caught."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import detectors
from ban_jax.commands import scan
from ban_jax.detectors import evidence, rules, witnesses
from tests.detectors import contract

THRESHOLDS = {"within": 3.0, "trusted": 3.0, "population": 3.0}


TOLD = [name for name, one in detectors.DETECTORS.items() if "classes" in one.needs]
SUBJECTS = [(name, None) for name in detectors.DETECTORS]
SUBJECTS += [(name, (3, 1)) for name in TOLD]


@functools.cache
def subject(name, classes):
    return contract.Subject(name, detectors.DETECTORS[name], classes)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "classes"), SUBJECTS)
def test_every_detector_promises_that(name, classes, check):
    check(subject(name, classes))


def test_a_detector_that_is_told_classes_is_under_the_promises_both_ways():
    assert "directed" in TOLD and set(TOLD) < set(detectors.DETECTORS)


@pytest.mark.parametrize("name", list(detectors.DETECTORS))
def test_flags_left_out_are_the_documented_settings(name):
    settings = detectors.DETECTORS[name].settings()
    assert scan.Flags(mode=name).config == settings
    for field in dataclasses.fields(settings):
        if field.type is float:
            other = dataclasses.replace(settings, **{field.name: 0.125})
            assert scan.Flags(mode=name, **{name: other}).config == other


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Settings:
    """A radius `epsilon`, the share `start` of it, and the number of `steps`."""

    epsilon: float = 0.5
    start: float = 0.0
    steps: int = dataclasses.field(default=3, metadata={"static": True})


def pull(network, variables, probe, *, key, config):
    """Pulls the probabilities towards a random class by epsilon."""
    plain = evidence.forward(network, variables, probe)
    draw = jax.random.normal(key, (network.num_classes,))
    moved = config.epsilon * (config.steps + config.start * draw)
    vector = plain.vectors["batch"]
    vector = jnp.where(config.epsilon > 0, vector + moved, vector)
    if config.steps == 0:
        vector = plain.vectors["batch"] + config.epsilon * config.start * draw
    return evidence.Evidence(
        vectors={**plain.vectors, "pull": vector},
        errors={**plain.errors, "pull": jnp.zeros_like(vector)},
        clean_accuracy=plain.clean_accuracy,
        is_finite=plain.is_finite,
    )


SOUND = detectors.Detector(
    detect=pull,
    settings=Settings,
    rule=rules.AverageZ(("pull",), THRESHOLDS),
    work=lambda config, classes, images: (2 + config.steps) * images,
    summary="a detector that a test brings",
    vectors={**evidence.WORDS, "pull": detectors.Words("Pull", "It pulls.")},
)


def test_a_detector_that_somebody_registers_is_under_the_same_promises():
    detectors.DETECTORS.register("pull", SOUND)
    try:
        registered = contract.Subject("pull", detectors.DETECTORS["pull"])
        for check in contract.CHECKS:
            check(registered)
    finally:
        del detectors.DETECTORS._things["pull"]


def changed(change):
    """`SOUND` with its evidence changed by `change(found, variables, key, config)`."""

    def detect(network, variables, probe, *, key, config):
        found = pull(network, variables, probe, key=key, config=config)
        return change(found, variables, key, config)

    return dataclasses.replace(SOUND, detect=detect)


def without_an_error(found, variables, key, config):
    errors = {name: e for name, e in found.errors.items() if name != "pull"}
    return found._replace(errors=errors)


def never_flagged(found, variables, key, config):
    return found._replace(is_finite=jnp.array(True))


def of_a_fixed_radius(found, variables, key, config):
    moved = found.vectors["pull"] + 1e-6 * (config.steps > 0)
    return found._replace(vectors={**found.vectors, "pull": moved})


def deaf_to_the_key(found, variables, key, config):
    return found._replace(vectors={**found.vectors, "pull": found.vectors["batch"]})


def drawing_while_it_is_traced(found, variables, key, config):
    moved = found.vectors["pull"] + np.random.default_rng().random()
    return found._replace(vectors={**found.vectors, "pull": moved})


def writing_into_the_weights(found, variables, key, config):
    if isinstance(variables["params"]["linear"]["bias"], np.ndarray):
        variables["params"]["linear"]["bias"] += 1
    return found


def infinite(found, variables, key, config):
    vectors = {name: vector / 0 for name, vector in found.vectors.items()}
    return found._replace(vectors=vectors)


def asking_a_float_for_its_value(found, variables, key, config):
    return found._replace(clean_accuracy=found.clean_accuracy + config.note)


def calling_the_host(found, variables, key, config):
    accuracy = jax.pure_callback(
        lambda x: np.float32(x),
        jax.ShapeDtypeStruct((), jnp.float32),
        found.clean_accuracy,
        vmap_method="expand_dims",
    )
    return found._replace(
        clean_accuracy=accuracy[..., 0] if accuracy.ndim else accuracy
    )


def ranking_its_neighbours(found, variables, key, config):
    pull = found.vectors["pull"]
    if "batch" in str(type(pull)).lower() or "Batch" in repr(pull):
        pull = pull + 1
    return found._replace(vectors={**found.vectors, "pull": pull})


def looking_at_what_it_likes(network, variables, probe, *, key, config, classes=None):
    """What a class gets hangs on how many others there are."""
    found = pull(network, variables, probe, key=key, config=config)
    if classes is None:
        return found
    kept = jnp.zeros(network.num_classes, bool).at[classes].set(True)
    more = 0.1 * classes.size
    return found._replace(
        vectors={
            name: jnp.where(kept, vector + more, jnp.nan)
            for name, vector in found.vectors.items()
        }
    )


def ignoring_what_it_is_told(network, variables, probe, *, key, config, classes=None):
    return pull(network, variables, probe, key=key, config=config)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StaticFloat(Settings):
    """`epsilon`, `start`, `steps`, and a `note` that is compiled in."""

    note: float = dataclasses.field(default=0.5, metadata={"static": True})


@dataclasses.dataclass
class Loose:
    """Neither frozen nor known to JAX: `epsilon`, `start`, `steps`."""

    epsilon: float = 0.5
    start: float = 0.0
    steps: int = 3


BROKEN = [
    (changed(without_an_error), "vectors_and_errors_have"),
    (dataclasses.replace(SOUND, vectors=evidence.WORDS), "every_vector_has_words"),
    (
        dataclasses.replace(SOUND, rule=rules.AverageZ(("push",), THRESHOLDS)),
        "every_vector_has_words",
    ),
    (
        dataclasses.replace(
            SOUND, rule=witnesses.Agreement(("pull",), ("push",), THRESHOLDS)
        ),
        "every_vector_has_words",
    ),
    (changed(infinite), "evidence_of_a_sound_network"),
    (dataclasses.replace(SOUND, further="weights"), "what_looks_closer_is_known"),
    (dataclasses.replace(SOUND, further="directed"), "what_looks_closer_is_known"),
    (changed(never_flagged), "one_nan_among_the_weights"),
    (changed(ranking_its_neighbours), "stacked_networks_get"),
    (
        dataclasses.replace(
            changed(asking_a_float_for_its_value), settings=StaticFloat
        ),
        "new_floats_and_a_new_seed",
    ),
    (changed(deaf_to_the_key), "the_key_decides_everything"),
    (changed(drawing_while_it_is_traced), "the_key_decides_everything"),
    (changed(writing_into_the_weights), "inputs_are_unchanged"),
    (changed(of_a_fixed_radius), "noise_of_radius_zero"),
    (dataclasses.replace(SOUND, work=lambda *_: 7), "work_grows"),
    (dataclasses.replace(SOUND, needs=frozenset()), "work_grows"),
    (
        dataclasses.replace(SOUND, rule=rules.AverageZ(("pull",), {"within": 3.0})),
        "its_rule_has_a_threshold",
    ),
    (
        dataclasses.replace(
            SOUND,
            rule=rules.AverageZ(("pull",), THRESHOLDS, suspicious={"within": 3.5}),
        ),
        "its_rule_has_a_threshold",
    ),
    (dataclasses.replace(SOUND, settings=Loose), "its_settings_are"),
    (dataclasses.replace(SOUND, summary="It pulls. It pushes."), "its_summary_is"),
]


@pytest.mark.parametrize("broken, name", BROKEN)
def test_a_broken_promise_is_caught(broken, name):
    (check,) = (c for c in contract.CHECKS if c.__name__.startswith(name))
    with pytest.raises(AssertionError):
        check(contract.Subject("broken", broken))


@pytest.mark.parametrize(
    ("detect", "name"),
    [
        (looking_at_what_it_likes, "classes_that_it_is_told"),
        (ignoring_what_it_is_told, "evidence_of_a_sound_network"),
    ],
)
def test_a_detector_that_is_told_classes_and_does_otherwise_is_caught(detect, name):
    needs = frozenset({"images", "labels", "classes"})
    broken = dataclasses.replace(SOUND, detect=detect, needs=needs)
    (check,) = (c for c in contract.CHECKS if c.__name__.startswith(name))
    with pytest.raises(AssertionError):
        check(contract.Subject("broken", broken, (3, 1)))
