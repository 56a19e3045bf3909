"""Files of one zoo brought into another."""

import shutil
from collections.abc import Callable

from ban_jax.storage import atomic


def copy_of(source: str) -> Callable[[str], None]:
    """Writes a file as another one is, for `run_folder.RunFolder.write`."""

    def write(path: str) -> None:
        with atomic.replacing(path) as temporary:
            shutil.copyfile(source, temporary)

    return write
