"""The small network of `tests.checkpoints` is known to every test of repairs."""

import pytest

from tests.scanning import files


@pytest.fixture(autouse=True, scope="package")
def small_network():
    """Files of it are recognised; forgotten afterwards."""
    with files.known():
        yield
