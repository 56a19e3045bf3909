"""Models that lie elsewhere: listed, and fetched into a bounded cache, never executed."""

from ban_jax.remote.address import Address, is_remote, parse
from ban_jax.remote.cache import Cache, default_folder
from ban_jax.remote.errors import FetchError
from ban_jax.remote.listing import listed
from ban_jax.remote.source import File, Source, wanted

__all__ = [
    "Address",
    "Cache",
    "FetchError",
    "File",
    "Source",
    "default_folder",
    "is_remote",
    "listed",
    "parse",
    "wanted",
]
