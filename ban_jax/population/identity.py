"""Random keys that a candidate owes to its own weights, never to its neighbours."""

import jax
import numpy as np

from ban_jax.types import Array


def identity_words(sha256: str) -> np.ndarray:
    """A hash as `[8]` uint32: `fold_in` takes 32 bits at a time."""
    return np.frombuffer(bytes.fromhex(sha256), dtype=">u4").astype(np.uint32)


def fold_words(key: Array, words: Array | np.ndarray) -> Array:
    """A candidate's key: the scan's, folded with the words `[8]` of its own identity."""
    for index in range(8):
        key = jax.random.fold_in(key, words[index])
    return key


def identity_key(seed: int, sha256: str) -> Array:
    """A candidate's random key: the seed and its own weights, never its neighbours."""
    return fold_words(jax.random.key(seed), identity_words(sha256))
