"""A scan by the workers of a Ray cluster: mode `weights`, so nothing compiles.

The cluster is real: machines of one CPU each, as Ray's own tests have them on one computer.
"""

import os
import signal
import sys
import time

import pytest

from ban_jax import checkpoints, cli, records
from ban_jax.records import Job
from ban_jax.scanning import scan
from ban_jax.storage import state
from tests.scanning import files

ray = pytest.importorskip("ray")

from ray import cluster_utils  # noqa: E402

from ban_jax.scanning import ray_pool, ray_worker  # noqa: E402

pytestmark = pytest.mark.ray
COUNT = 40
SPEC = checkpoints.ModelSpec("resnet18", num_classes=5, width=2, in_channels=1)
"""One that workers know: they import the package, not what a test registers."""


class Odd(ray_worker.Worker):
    """Dies of one file, is slow with another, has a fault with a third."""

    def measure(self, name, job, paths, known):
        if any("deadly" in path for path in paths):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("slow" in path for path in paths):
            time.sleep(5)
        if any("fault" in path for path in paths):
            raise KeyError("a fault of the program")
        return super().measure(name, job, paths, known)


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one CPU, and this process joined to them."""
    made = cluster_utils.Cluster()
    for _ in range(2):
        made.add_node(num_cpus=1, include_dashboard=False)
    ray.init(made.address, log_to_driver=False, logging_level="ERROR")
    # Workers are to find this file's classes without finding the file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield made
    ray.shutdown()
    made.shutdown()


def save(folder, name, seed):
    return files.save(folder, name, files.variables(seed, SPEC), SPEC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Distinct models, and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(COUNT):
        save(folder, f"m{number:02}.safetensors", number)
    (folder / "torn.safetensors").write_bytes(b"\x10\x00")
    return folder


@pytest.fixture
def job():
    return Job(records.Settings(mode="weights"), None)


def told(measured):
    """Lines by path; none twice."""
    lines = [files.comparable(line) for line, _ in measured]
    found = {line["path"]: line for line in lines}
    assert len(found) == len(lines), "a line came twice"
    return found


def pool(request, worker=ray_worker.Worker):
    made = ray_pool.Pool(worker=worker)
    request.addfinalizer(made.close)
    return made


def test_lines_equal_those_of_this_process(cluster, folder, job, request):
    paths = checkpoints.find([str(folder)])
    found = told(pool(request).measure(paths, job))
    assert found == told(scan.scan(paths, job))
    assert found[str(folder / "torn.safetensors")]["error"]


def test_two_kills_and_a_new_machine_lose_and_double_nothing(
    cluster, folder, job, request, capsys, monkeypatch
):
    monkeypatch.setattr(ray_pool, "LARGEST", 2)
    paths = checkpoints.find([str(folder)])
    one, measured, added = pool(request), [], None
    for line in one.measure(paths, job):
        measured.append(line)
        if len(measured) in (4, 16):
            victim = next(member for member in one.members if member.pieces)
            os.kill(victim.told.pid, signal.SIGKILL)
        if len(measured) == 8:
            added = cluster.add_node(num_cpus=1, include_dashboard=False)
    cluster.remove_node(added)
    assert told(measured) == told(scan.scan(paths, job))
    assert len(one.gone) == 2
    assert "was lost" in capsys.readouterr().err
    assert one._started > 4, "neither were the dead replaced nor the machine used"


def test_a_file_that_kills_its_workers_is_said_and_its_neighbours_are_measured(
    cluster, folder, job, request, tmp_path
):
    deadly = save(tmp_path, "deadly.safetensors", 99)
    paths = [*checkpoints.find([str(folder)])[:5], deadly]
    one = pool(request, Odd)
    # All in one piece, so that innocents go down with it first.
    one._next_size = lambda: 6
    found = told(one.measure(paths, job))
    reason = found.pop(deadly)["error"]
    assert deadly in reason and "2 workers were lost" in reason
    assert found == told(scan.scan(paths[:5], job))


def test_a_slow_file_holds_up_nothing_that_waits_behind_it(
    cluster, folder, job, request, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_pool, "SLOW_SECONDS", 0.1)
    slow = save(tmp_path, "slow.safetensors", 98)
    paths = [slow, *checkpoints.find([str(folder)])[:5]]
    one = pool(request, Odd)
    one._next_size = lambda: 1
    order = [line["path"] for line, _ in one.measure(paths, job)]
    assert sorted(order) == sorted(paths)
    assert order[-1] == slow


def test_a_fault_of_the_program_ends_the_scan_as_in_this_process(
    cluster, job, request, tmp_path
):
    with pytest.raises(KeyError, match="a fault of the program"):
        list(pool(request, Odd).measure([save(tmp_path, "fault.safetensors", 97)], job))


def test_lines_of_an_earlier_run_are_used_and_strangers_are_not(
    cluster, folder, job, request
):
    paths = checkpoints.find([str(folder)])[:6]
    known = [line for line, _ in scan.scan(paths, job)]
    forged = {**known[0], "width": 77}
    found = list(pool(request).measure(paths, job, known=[forged, *known[1:]]))
    new = {line["path"] for line, is_new in found if is_new}
    assert new == {paths[0]}
    assert told(found)[paths[0]]["width"] != 77


def test_lines_carry_the_seal_of_who_asked(
    cluster, folder, job, request, tmp_path, monkeypatch
):
    """Workers on other machines have another secret."""
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "mine"))
    paths = checkpoints.find([str(folder)])[:3]
    for line, _ in pool(request).measure(paths, job):
        assert records.seal.is_own(line)


def test_the_command_writes_the_same_file_and_goes_on_from_it(
    cluster, folder, tmp_path, capsys
):
    plain, other = tmp_path / "plain", tmp_path / "other"
    words = ["scan", str(folder), "--mode", "weights", "--out"]
    code = cli.main([*words, str(plain)])
    assert cli.main([*words, str(other), "--engine", "ray"]) == code
    assert "per second" in capsys.readouterr().err

    def lines(out):
        found = records.load(out / "results.jsonl").records
        return [files.comparable(line) for line in found]

    assert lines(other) == lines(plain)
    written = (other / "results.jsonl").read_bytes()
    assert cli.main([*words, str(other), "--engine", "ray"]) == code
    assert (other / "results.jsonl").read_bytes() == written, "seconds were measured"


class Unborn(ray_worker.Worker):
    """Fails as where the package is not installed."""

    def __init__(self, cpus, accelerated):
        raise ImportError("no module named jax")


def test_workers_that_never_start_end_the_scan_and_say_why(
    cluster, folder, job, request
):
    one = pool(request, Unborn)
    with pytest.raises(ValueError, match="failed to start and none is left; the last"):
        list(one.measure(checkpoints.find([str(folder)]), job))


def test_a_cluster_without_room_for_a_worker_is_refused(cluster):
    with pytest.raises(ValueError, match="has 64 CPUs for a worker"):
        ray_pool.Pool(cpus=64)
