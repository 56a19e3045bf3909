"""What a record says of how it came about, and what its key depends on."""

import pytest

from ban_jax import convolution, records
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
