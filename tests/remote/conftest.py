"""A server of this machine, and a cache of each test's own."""

import pytest

from ban_jax import remote
from tests.remote import servers
from tests.scanning import files


@pytest.fixture(autouse=True, scope="package")
def small_network():
    """Files of the small network are recognised; forgotten afterwards."""
    with files.known():
        yield


@pytest.fixture
def site():
    with servers.running() as found:
        yield found


@pytest.fixture
def cache(tmp_path):
    return remote.Cache(str(tmp_path / "cache"), 10_000)


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    """The bytes of a safetensors file of the small network."""
    folder = tmp_path_factory.mktemp("model")
    with open(files.save(folder, "a.safetensors", files.variables(0)), "rb") as file:
        return file.read()
