"""What the TPU compiler says of the noise search and of whole chunks, without a TPU.

    pip install libtpu==VERSION      (that of `pip show jax`, extra `tpu`)
    JAX_PLATFORMS=cpu python -m benchmarks.tpu_aot

Programs are compiled ahead of time for one device of a described topology; nothing runs.
Each is compiled in a process of its own, which is given up after `timeout` seconds, and
written down at once: a second run goes on with what is missing.

`layer`: one convolution of M stacked models, 128 images each: forward, and back to the
images. `step`: one step of the noise search of M stacked models, 128 images each: forward,
and back to the noise. `chunk`: a detector's whole program for M stacked candidates and
512 images. Of a loop's body XLA counts one turn, so FLOPs and bytes say something for
`layer` and `step` alone, and for `sequential` not even there: its loop is over models.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import tyro
from jax import numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from ban_jax import convolution, detectors, models, perturb, population, types
from ban_jax.commands import tuning
from ban_jax.detectors import evidence, targeted
from ban_jax.scanning import examination
from ban_jax.types import MINIBATCH
from benchmarks import _timing

NAME = "tpu_aot"
MINIBATCHES = 4
SIZE = 32
Program = Literal["layer", "step", "chunk"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
      program: see the module docstring.
      layer: of `layer`, see `convolution.Layer`.
      architecture: of `step` and `chunk`, for 32x32 images and 10 classes.
      width: channels of the first convolution.
      models: stacked.
      lowering: of all convolutions.
      precision: of all convolutions.
    """

    program: Program = "step"
    layer: tuple[int, ...] | None = None
    architecture: str | None = "resnet18"
    width: int = 64
    models: int = 8
    lowering: convolution.Name = "native"
    precision: types.Precision = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Flags:
    """Attributes:
    programs: kinds to compile.
    arch: architectures.
    width: theirs.
    models: chunk sizes.
    compared: chunk size at which a step is compiled under every lowering and precision.
    topology: as `jax.experimental.topologies` names it.
    timeout: seconds for one program.
    name: of the result file.
    results: its folder.
    case: compiles this one program and prints its figures; for the script's own use.
    """

    programs: tuple[Program, ...] = get_args(Program)
    arch: tuple[str, ...] = ("resnet18", "vgg16", "preact_resnet18", "densenet121")
    width: int = 64
    models: tuple[int, ...] = (1, 8, 16, 32)
    compared: int = 8
    topology: str = "v5e:2x2"
    timeout: int = 900
    name: str = NAME
    results: str | None = None
    case: str | None = None


def cases(flags: Flags) -> Iterator[Case]:
    """Lowerings and precisions of one architecture first, then the chunks of all."""
    first = flags.arch[0]
    layers = tuning.layers_of([first], flags.width, SIZE, 3)
    alike = functools.partial(Case, width=flags.width)
    for layer, name in itertools.product(layers, convolution.LOWERINGS):
        yield alike("layer", tuple(layer), None, models=flags.compared, lowering=name)
    for name in convolution.LOWERINGS:
        yield alike("step", None, first, models=flags.compared, lowering=name)
    for precision in get_args(types.Precision):
        yield alike("step", None, first, models=flags.compared, precision=precision)
    for arch, count in itertools.product(flags.arch, flags.models):
        yield alike("chunk", None, arch, models=count)
    for arch in flags.arch:
        yield alike("step", None, arch, models=flags.compared)


def compiled(case: Case, device: jax.Device) -> jax.stages.Compiled:
    """A case, compiled for a device."""
    if case.layer is not None:
        layer, setting = (
            convolution.Layer(*case.layer),
            tuning.Setting(case.precision, 1),
        )
        function, shapes = tuning.program(
            layer, case.lowering, "search", case.models, setting, loop=1
        )
        there = SingleDeviceSharding(device)
        return (
            jax.jit(function, in_shardings=(there,) * len(shapes))
            .lower(*shapes)
            .compile()
        )
    module = models.create(
        case.architecture or "",
        num_classes=10,
        width=case.width,
        lowering=case.lowering,
        precision=case.precision,
    )
    detect = _step if case.program == "step" else detectors.DETECTORS["targeted"].detect
    variables = dict(models.abstract_variables(module, SIZE))
    constants = variables.pop("normalisation")
    images = (MINIBATCHES, MINIBATCH, SIZE, SIZE, 3)
    return population.program(
        examination.bound(
            examination.examine, network=models.network(module), detect=detect
        ),
        population.Placement((device,), stacked=True),
        examination.Member(
            variables,
            *(
                jax.ShapeDtypeStruct((1, *constants[name].shape), jnp.float32)
                for name in ("mean", "std")
            ),
            jax.ShapeDtypeStruct((8,), jnp.uint32),
        ),
        examination.Common(
            types.Probe(
                jax.ShapeDtypeStruct(images, jnp.float32),
                jax.ShapeDtypeStruct(images[:2], jnp.int32),
            ),
            jax.eval_shape(lambda: jax.random.key(0)),
            targeted.Settings(),
        ),
        case.models,
    )


def _step(
    network: types.Network,
    variables: types.Variables,
    probe: types.Probe,
    *,
    key: types.Array,
    config: targeted.Settings,
) -> Any:
    """One step of the noise search, in the place of a detector."""
    return perturb.perturb_params(
        evidence.logits_of(network, "batch"),
        variables,
        probe.images[0],
        probe.labels[0],
        key=key,
        epsilon=config.epsilon,
        steps=1,
    )


def figures(case: Case, topology: str) -> dict[str, Any]:
    """Compiles a case for the topology's first device; what the compiler tells of it."""
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    device = described.devices[0]
    start = time.perf_counter()
    program = compiled(case, device)
    memory, cost = program.memory_analysis(), program.cost_analysis()
    return {
        "device": device.device_kind,
        "compile_seconds": round(time.perf_counter() - start, 1),
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "code_mib": round(memory.generated_code_size_in_bytes / 2**20, 1),
        "gflops_per_model": round(cost["flops"] / case.models / 1e9, 2),
        "gbytes_per_model": round(cost["bytes accessed"] / case.models / 1e9, 3),
    }


def attempt(case: Case, flags: Flags) -> dict[str, Any]:
    """Figures of a case from a process of its own, or why there are none."""
    told = json.dumps(dataclasses.asdict(case))
    command = [sys.executable, "-m", "benchmarks.tpu_aot", "--case", told]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # no cloud machine's metadata to ask for
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    try:
        done = subprocess.run(
            [*command, "--topology", flags.topology],
            env=environment,
            capture_output=True,
            text=True,
            timeout=flags.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not compiled after {flags.timeout} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        return {"failed": (lines or done.stderr.splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main(flags: Flags) -> None:
    """Compiles what the result file lacks, and writes it after every program."""
    if flags.case is not None:
        print(json.dumps(figures(Case(**json.loads(flags.case)), flags.topology)))
        return
    machine = _timing.hardware()
    path = os.path.join(flags.results or _timing.RESULTS, f"{flags.name}.json")
    rows: list[dict[str, Any]] = []
    if os.path.exists(path):
        with open(path) as file:
            rows = [row for row in json.load(file)["programs"] if "failed" not in row]
    done = [{field: row.get(field) for field in Case.__annotations__} for row in rows]
    for case in dict.fromkeys(cases(flags)):
        asked = json.loads(json.dumps(dataclasses.asdict(case)))
        if asked in done or case.program not in flags.programs:
            continue
        rows.append({**asked, **attempt(case, flags)})
        print(rows[-1], flush=True)
        _timing.write_result(
            flags.name,
            {
                "topology": flags.topology,
                "libtpu": importlib.metadata.version("libtpu"),
                "programs": rows,
            },
            machine=machine,
            folder=flags.results,
        )


if __name__ == "__main__":
    main(tyro.cli(Flags, args=sys.argv[1:]))
