"""Images, batches and jitted kernels that the tests of static triggers share."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from ban_jax import attacks
from ban_jax.attacks import Schedule, poison
from ban_jax.attacks.types import Batch

SHAPE = (8, 8, 3)
KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (6, *SHAPE))
MAPPING = np.array([1, 2, 3, 4, 0], np.int32)
CLEAN, POISONED, COVER = poison.CLEAN, poison.POISONED, poison.COVER
ROLES = (POISONED, CLEAN, COVER, COVER, POISONED, CLEAN)
LABELS = np.array([4, 1, 2, 2, 0, 3], np.int32)
SCHEDULE = Schedule(steps_per_epoch=1, epochs=1, batch_size=6, lowering="native")
STATIC = sorted(set(attacks.ATTACKS) - {"iad", "ssdt"})


def kernel_of(attack):
    return attack.kernel(SCHEDULE, 0.1, 5)


def batch(images=IMAGES, roles=ROLES):
    return Batch(
        jnp.asarray(images, jnp.float32),
        jnp.asarray(LABELS),
        jnp.asarray(roles, jnp.int8),
        jnp.asarray(MAPPING),
    )


@functools.partial(jax.jit, static_argnums=0)
def _teach(kernel, state, key, batch):
    return kernel.teach(state, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def _show(kernel, state, images):
    return kernel.trigger(state, images)


def show(attack, images=IMAGES, key=KEY):
    """Triggered images as at test time, of a trigger drawn from `key`."""
    images = jnp.asarray(images, jnp.float32)
    state = attack.init(key, images.shape[1:])
    return np.array(_show(kernel_of(attack), state, images))


def teach(attack, images=IMAGES, roles=ROLES, *, step=5, key=KEY):
    """The lesson of one batch, its randomness drawn from `step`."""
    state = attack.init(key, images.shape[1:])
    lesson = _teach(
        kernel_of(attack), state, jax.random.key(step), batch(images, roles)
    )
    return jax.tree.map(np.array, lesson)
