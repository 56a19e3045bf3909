"""The made-up mode is known to every test of baselines."""

import pytest

from tests.baselines import made


@pytest.fixture(autouse=True, scope="package")
def made_up_mode():
    """Forgotten afterwards."""
    with made.known():
        yield
