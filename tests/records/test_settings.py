"""What a record says of how it came about, and what its key depends on."""

import dataclasses

import pytest

from ban_jax import convolution, detectors, records
from ban_jax.convolution import Choice, Layer

LAYER = Layer(8, 3, 1, 4, 4)
TABLE = Choice("native", ((LAYER, "shift"),), table="packaged")


@pytest.mark.parametrize(
    "changes, same",
    [
        ({"lowering": Choice("native", ((LAYER, "shift"),), table="user")}, True),
        ({"lowering": Choice("native", ((LAYER, "im2col"),), table="packaged")}, False),
        ({"lowering": Choice("shift", ((LAYER, "shift"),), table="packaged")}, False),
        ({"lowering": "native"}, False),
        ({"precision": "tf32"}, False),
        ({"precision": "bfloat16"}, False),
        ({"chunk": 7}, True),
    ],
)
def test_the_key_depends_on_what_the_table_decides_and_on_the_precision(changes, same):
    base = records.Settings(lowering=TABLE)
    other = records.Settings(**{"lowering": TABLE, **changes})
    assert (base.digest(None) == other.digest(None)) == same


def test_a_record_names_the_table_its_hash_and_the_precision():
    settings = records.Settings(lowering=TABLE, precision="tf32")
    record = records.Job(settings, None).failure("a.safetensors", "unreadable")
    assert record["lowering"] == TABLE.identity()
    assert record["lowering"]["table"] == "packaged"
    assert record["precision"] == "tf32"


def test_one_lowering_for_all_layers_is_told_like_a_table():
    told = records.Settings(lowering="shift").lowering_identity()
    assert told == convolution.Choice("shift", table="shift").identity()


def test_settings_of_the_closer_look_decide_too():
    directed = detectors.DETECTORS["directed"].settings
    base = records.Settings()
    assert base.closer.config == directed() and base.closer.mode == "directed"
    same = records.Settings(further=directed())
    other = records.Settings(further=directed(steps=directed().steps + 1))
    assert base.digest(None) == same.digest(None) != other.digest(None)
    assert other.closer.config.steps == directed().steps + 1
    assert other.closer.closer is None


def test_a_record_tells_the_settings_of_both_looks():
    told = records.Settings().told_config()
    assert told["epsilon"] == records.Settings().config.epsilon
    assert told["directed"] == dataclasses.asdict(
        detectors.DETECTORS["directed"].settings()
    )
    weights = detectors.DETECTORS["weights"].settings()
    alone = records.Settings(mode="weights", config=weights)
    assert alone.told_config() == {} and alone.closer is None
