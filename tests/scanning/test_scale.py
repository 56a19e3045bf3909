"""One device, eight of them, two processes: the same verdicts.

Of a small network, whose programs every process compiles in seconds.
"""

import os
import re
import signal
import socket

import numpy as np
import pytest

from ban_jax import cli, records
from ban_jax.commands import outcome
from tests.commands import processes
from tests.scanning import files

SEEDS = (1, 2, 3, 4, 5)
QUICK = (
    "--ban.steps", "1", "--ban.mask-steps", "1", "--directed.steps", "1",
    "--directed.pixel-steps", "1", "--directed.pixel-images", "16",
    "--normalisation", "0/1",
)  # fmt: skip
JUDGED = ("--profile", "none", "--threshold", "1.02")
"""Between the scores of these few models, which are all looked at closer."""
KNOWN = """
import os, signal, sys
from ban_jax import cli, records
from tests.scanning import files
write = records.Writer.write
def dying(self, record):
    write(self, record)
    os.kill(os.getpid(), signal.SIGKILL)
if {dies}:
    records.Writer.write = dying
with files.known():
    sys.exit(cli.main({arguments}))
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Images that all models know."""
    path = tmp_path_factory.mktemp("data") / "clean.npz"
    images, _ = files.images()
    _, labels = files.expert(0, images)
    np.savez(path, images=images, labels=labels)
    return str(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Five models that differ a little."""
    folder = tmp_path_factory.mktemp("models")
    images, _ = files.images()
    return [
        files.save(folder, f"{seed}.safetensors", files.twin(seed, images))
        for seed in SEEDS
    ]


@pytest.fixture(scope="module")
def judged(paths, clean):
    """From a folder and more flags to the arguments of a scan."""

    def arguments(out, *more):
        told = ["--data", clean, *QUICK, *JUDGED, "--out", str(out)]
        return ["scan", *paths, *told, *map(str, more)]

    return arguments


def scanning(arguments, *, dies=False, **environment):
    """A process that scans; one that dies does so when it has written a line."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    code = KNOWN.format(arguments=arguments, dies=dies)
    return processes.started(code, PYTHONPATH=root, **environment)


def lines(out):
    return [*map(files.comparable, records.load(out / "results.jsonl").records)]


@pytest.fixture(scope="module")
def whole(judged, tmp_path_factory):
    """The scan in one piece, and its exit code."""
    out = tmp_path_factory.mktemp("whole")
    code = cli.main(judged(out))
    assert code == 1
    assert {record["verdict"] for record in lines(out)} == {"backdoored", "clean"}
    assert all("universal" in record["vectors"] for record in lines(out))
    return out, code


def test_eight_devices_give_the_same_verdicts(whole, judged, tmp_path):
    out, code = whole
    with scanning(judged(tmp_path), JAX_NUM_CPU_DEVICES="8") as process:
        told, _ = process.communicate()
    assert process.returncode == code, told
    for one, eight in zip(lines(out), lines(tmp_path), strict=True):
        for name in ("path", "key", "verdict", "target", "clean_accuracy"):
            assert one[name] == eight[name]
        assert eight["score"] == pytest.approx(one["score"], abs=1e-2)
        assert set(eight["vectors"]) == set(one["vectors"])


def test_two_processes_one_killed_the_restart_completes_and_the_merge_is_the_whole(
    whole, judged, paths, tmp_path, capsys
):
    out, code = whole
    second = judged(tmp_path, "--shard", "1/2", "--chunk", 1)
    with (
        scanning(judged(tmp_path, "--shard", "0/2")) as survivor,
        scanning(second, dies=True) as killed,
    ):
        told, _ = survivor.communicate()
        assert survivor.returncode in (0, 1), told
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    assert cli.main(["merge", str(tmp_path)]) == outcome.INCONCLUSIVE
    told = capsys.readouterr().err
    assert "1 file was not scanned" in told and paths[3] in told
    assert cli.main(judged(tmp_path, "--shard", "1/2")) in (0, 1)
    assert cli.main(["merge", str(tmp_path)]) == code
    assert lines(tmp_path) == lines(out)


def test_a_cluster_tells_each_process_its_shard_and_one_that_dies_takes_none_along(
    paths, tmp_path
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
    ranks = [{**cluster, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    told = [
        "scan", *paths[:2], "--mode", "weights", "--shard", "auto", *JUDGED,
        "--out", str(tmp_path),
    ]  # fmt: skip
    # It is the first, the cluster's coordinator, that dies.
    with (
        scanning(told, dies=True, **ranks[0]) as first,
        scanning(told, **ranks[1]) as second,
    ):
        said = [process.communicate()[0] for process in (first, second)]
    assert first.returncode == -signal.SIGKILL, said[0]
    assert second.returncode in (0, 1), said[1]
    assert re.search("Shard 1/2 is done", said[1])
    assert (tmp_path / "results.1-of-2.jsonl").exists()


def test_auto_without_a_cluster_says_what_to_do(paths, tmp_path):
    told = ["scan", *paths, "--mode", "weights", "--shard", "auto"]
    with scanning([*told, "--out", str(tmp_path)]) as process:
        told, _ = process.communicate()
    assert process.returncode == 4
    assert "--shard i/n" in told
