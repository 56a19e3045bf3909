"""The small network of `tests.checkpoints` is known to every test of the commands."""

import pytest

from tests.scanning import files


@pytest.fixture(autouse=True, scope="package")
def small_network():
    """Files of it are recognised; forgotten afterwards."""
    with files.known():
        yield


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """Four models of one kind."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(4):
        files.save(folder, f"model_{seed}.safetensors", files.variables(seed))
    return folder
