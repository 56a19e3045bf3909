"""Networks without batch statistics: witnesses that need them are absent, not zero."""

import jax
import numpy as np
import pytest

from ban_jax import models, verdict
from ban_jax.detectors import evidence, witnesses
from ban_jax.types import Probe
from tests.records import lines

CLASSES = 10


@pytest.mark.parametrize("name", ["vgg11", "vgg11_plain"])
def test_what_a_network_does_not_have_is_not_measured(name):
    module = models.create(name, num_classes=CLASSES, width=1)
    shapes = models.abstract_variables(module)
    images = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), np.float32)
    probe = Probe(images, jax.ShapeDtypeStruct((1, 4), np.int32))
    found = jax.eval_shape(
        lambda variables, probe: evidence.forward(
            models.network(module), variables, probe
        ),
        shapes,
        probe,
    )
    assert ("batch_minus_stored" in found.vectors) == (name == "vgg11")
    assert found.vectors.keys() == found.errors.keys()


def judged(target, *, with_statistics):
    """What is said of a model in which a class may stand out, in the last layer and in
    noise, or in the last layer and under a change of all pixels."""
    draw = np.random.default_rng(0)
    names = ["stored", "untargeted", "last_layer"]
    names += ["batch_minus_stored" if with_statistics else "universal"]
    vectors = {name: draw.normal(0, 0.01, CLASSES) for name in names}
    for name in ("last_layer", "untargeted" if with_statistics else "universal"):
        vectors[name][3] += 0.5 * target
    line = lines.evidence(
        mode="ban",
        num_classes=CLASSES,
        vectors={name: [*map(float, values)] for name, values in vectors.items()},
        errors={name: [1e-4] * CLASSES for name in names},
    )
    return verdict.Judge("within")(line)


def test_where_nothing_is_found_and_nothing_was_measured_there_is_no_verdict():
    assert judged(False, with_statistics=True)["verdict"] == "clean"
    found = judged(False, with_statistics=False)
    assert (
        found["verdict"] == "inconclusive" and "no batch statistics" in found["reason"]
    )
    assert found["score"] is not None
    assert found["void"] == {"untargeted": witnesses.BLIND}


def test_what_is_found_is_said_all_the_same():
    found = judged(True, with_statistics=False)
    assert (found["verdict"], found["target"]) == ("backdoored", 3)


def test_where_one_witness_is_left_the_reason_names_the_network():
    line = lines.evidence(
        mode="ban",
        num_classes=CLASSES,
        vectors={
            "stored": [0.1] * CLASSES,
            "untargeted": [*map(float, range(CLASSES))],
            "last_layer": [*map(float, range(CLASSES))],
        },
        errors={
            name: [1e-4] * CLASSES for name in ("stored", "untargeted", "last_layer")
        },
    )
    found = verdict.Judge("within")(line)
    assert found["verdict"] == "inconclusive" and found["score"] is None
    assert "no batch statistics" in found["reason"]
