"""Files of networks whose logits another program has computed, against ours.

A golden file holds, for each case, the shapes of a state dict by name, small images, and
the logits under stored statistics and under those of the batch; weights are drawn by name
and shape (`drawn`).
"""

import functools
import json
import math
import pathlib

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from tests.models import drawn

FOLDER = pathlib.Path(__file__).parent / "testdata"


class Goldens:
    """One golden file, and the checkpoints it tells of.

    Args:
      name: of the file, without `.npz`.
    """

    def __init__(self, name: str):
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.cases = sorted({one.partition("/")[0] for one in self.arrays})

    def write(self, case: str, folder: pathlib.Path) -> pathlib.Path:
        """The case's checkpoint, under the names of the program it is of."""
        path = folder / f"{case}.safetensors"
        if not path.exists():
            safetensors_numpy.save_file(self.state(case), path)
        return path

    def state(self, case: str) -> dict[str, np.ndarray]:
        return drawn.state(json.loads(str(self.arrays[f"{case}/shapes"])))

    def check_written_back(self, case: str, folder: pathlib.Path) -> None:
        """What is read and written again has the same names and values."""
        read = checkpoints.read(self.write(case, folder))
        back = folder / f"{case}.back.safetensors"
        checkpoints.write_safetensors(back, read.variables, read.spec, names=read.names)
        again, tensors = safetensors_numpy.load_file(back), self.state(case)
        assert again.keys() == tensors.keys()
        for name, value in tensors.items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)

    def check_logits(
        self, case: str, mode: str, folder: pathlib.Path, size: int, **fields: str
    ) -> None:
        """Logits differ by at most 1e-4 of the largest.

        Args:
          size: of the images, in pixels a side.
          fields: of the network, in place of those that were recognised.
        """
        read = checkpoints.read(self.write(case, folder))
        self.check_logits_of(read, case, mode, size, **fields)

    def check_logits_of(
        self,
        read: checkpoints.Candidate,
        case: str,
        mode: str,
        size: int,
        **fields: str,
    ) -> None:
        """The same of any file that is to be the same function."""
        module = read.spec.create().clone(**fields)
        images = drawn.pixels(self.arrays[f"{case}/images"], size)
        logits = _logits(module, read.variables, images, mode)
        expected = self.arrays[f"{case}/{mode}"]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * largest)


def check_full_size(name: str, parameters: int, **fields: str | int) -> None:
    """A network of 1,000 classes has so many weights, and is known by their shapes."""
    module = models.create(name, num_classes=1000, **fields)
    table = models.architecture.shapes_of(module)
    ours = {theirs: shape for theirs, (_, shape) in table.items()}
    statistics = ("running_mean", "running_var")
    counted = [
        math.prod(shape) for one, shape in ours.items() if not one.endswith(statistics)
    ]
    assert sum(counted) == parameters
    known = [
        other
        for other, architecture in models.ARCHITECTURES.items()
        if architecture.difference(ours) is None
    ]
    assert known == [name]
    found = models.ARCHITECTURES[name].fields(ours)
    assert models.create(name, **found) == module


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(module, variables, images, mode):
    identity = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    return module.apply({**variables, "normalisation": identity}, images, mode)
