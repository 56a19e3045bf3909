"""One device, eight of them, two processes: the same verdicts on real models."""

import os
import re
import signal
import socket

import pytest

from ban_jax import cli, records
from ban_jax.commands import outcome
from ban_jax.commands import scan as scan_command
from tests.commands import processes
from tests.scanning import files

pytestmark = pytest.mark.usefixtures("quick_compiles")

NAMES = ("badnets_t1_s0", "badnets_t6_s1", "blend_t3_s0", "clean_s0", "clean_s1")
PATHS = [
    os.path.join(scan_command.BUNDLED, f"resnet18_w4_{name}.safetensors")
    for name in NAMES
]
JUDGED = ("--profile", "none", "--threshold", "2.5", "--ban.mask-steps", "1")
"""Between the scores of these few models, which are all looked at closer."""
KILLED = """
import os, signal
from ban_jax import cli, records
write = records.Writer.write
def dying(self, record):
    write(self, record)
    os.kill(os.getpid(), signal.SIGKILL)
records.Writer.write = dying
cli.main({arguments})
"""


def arguments(out, *more, paths=PATHS):
    few = ["--data", "digits", "--num-clean", "128", *JUDGED]
    return ["scan", *paths, *few, "--out", str(out), *map(str, more)]


def scanning(out, *more, paths=PATHS, **environment):
    told = arguments(out, *more, paths=paths)
    code = f"import sys; from ban_jax import cli; sys.exit(cli.main({told}))"
    return start(code, **environment)


def start(code, **environment):
    """A process that compiles as this one does, so that it finds what is compiled."""
    return processes.start(code, JAX_DISABLE_MOST_OPTIMIZATIONS="1", **environment)


def lines(out):
    return [*map(files.comparable, records.load(out / "results.jsonl").records)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The scan in one piece, and its exit code."""
    out = tmp_path_factory.mktemp("whole")
    code = cli.main(arguments(out))
    assert code == 1  # real verdicts: backdoored and clean
    assert {record["verdict"] for record in lines(out)} == {"backdoored", "clean"}
    assert all("universal" in record["vectors"] for record in lines(out))
    return out, code


def test_eight_devices_give_the_same_verdicts(whole, tmp_path):
    out, code = whole
    process = scanning(tmp_path, JAX_NUM_CPU_DEVICES="8")
    told, _ = process.communicate()
    assert process.returncode == code, told
    for one, eight in zip(lines(out), lines(tmp_path), strict=True):
        for name in ("path", "key", "verdict", "target", "clean_accuracy"):
            assert one[name] == eight[name]
        assert eight["score"] == pytest.approx(one["score"], abs=1e-2)
        assert set(eight["vectors"]) == set(one["vectors"])


def test_two_processes_one_killed_the_restart_completes_and_the_merge_is_the_whole(
    whole, tmp_path, capsys
):
    out, code = whole
    survivor = scanning(tmp_path, "--shard", "0/2")
    told = arguments(tmp_path, "--shard", "1/2", "--chunk", 1)
    killed = start(KILLED.format(arguments=told))
    told, _ = survivor.communicate()
    assert survivor.returncode in (0, 1), told
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert cli.main(["merge", str(tmp_path)]) == outcome.INCONCLUSIVE
    told = capsys.readouterr().err
    assert "1 files were not scanned" in told and PATHS[3] in told
    assert cli.main(arguments(tmp_path, "--shard", "1/2")) in (0, 1)
    assert cli.main(["merge", str(tmp_path)]) == code
    assert lines(tmp_path) == lines(out)


def test_a_cluster_tells_each_process_its_shard_and_one_that_dies_takes_none_along(
    tmp_path,
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    cluster = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
    }
    first, second = (
        {**cluster, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"
    )
    more = ("--mode", "weights", "--shard", "auto")
    told = arguments(tmp_path, *more, paths=PATHS[:2])
    # It is the first, the cluster's coordinator, that dies.
    processes = [
        start(KILLED.format(arguments=told), **first),
        scanning(tmp_path, *more, paths=PATHS[:2], **second),
    ]
    told = [process.communicate()[0] for process in processes]
    assert processes[0].returncode == -signal.SIGKILL, told[0]
    assert processes[1].returncode in (0, 1), told[1]
    assert re.search("Shard 1/2 is done", told[1])
    assert (tmp_path / "results.1-of-2.jsonl").exists()


def test_auto_without_a_cluster_says_what_to_do(tmp_path):
    process = scanning(tmp_path, "--mode", "weights", "--shard", "auto")
    told, _ = process.communicate()
    assert process.returncode == 4
    assert "--shard i/n" in told
