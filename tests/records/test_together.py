"""Fields of a line that must fit each other: a damaged line is never judged."""

import pytest

from ban_jax.records import record
from tests.records import lines

GOOD = {"num_classes": 5, "vectors": {"v": [0.0] * 5}, "errors": {"v": [0.0] * 5}}


@pytest.mark.parametrize(
    "damage, message",
    [
        ({"vectors": {"v": [0.0] * 4}}, "vectors.v has 4 numbers for 5 classes"),
        ({"errors": {}}, "no errors for the vectors v"),
        ({"clean_accuracy": 7.5, "num_probe": 9}, "clean accuracy of 7.5 on 9 images"),
        ({"clean_accuracy": 0.9, "num_probe": 0}, "clean accuracy of 0.9 on 0 images"),
    ],
)
def test_a_damaged_line_is_refused(damage, message):
    good = lines.evidence(**GOOD)
    assert record.parse(good)["num_classes"] == 5
    with pytest.raises(ValueError, match=message):
        record.parse({**good, **damage})
