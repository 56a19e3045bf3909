"""Programs that an earlier process traced: the same results, and only where they belong."""

import dataclasses
import functools
import json
import os

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from ban_jax import checkpoints, detectors, population, records, types
from ban_jax.detectors import ban, evidence, weights
from ban_jax.population import naming, programs, stored
from ban_jax.scanning import chunks, examination, runner, timeline
from ban_jax.storage import compile_cache
from tests import tiny

SPEC = checkpoints.ModelSpec("resnet18", 3, 2)
VALUES = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
LABELS = np.array([0, 1, 2, 0], np.int32)


@pytest.fixture
def folder(tmp_path):
    """Where this test's programs are kept."""
    with compile_cache.tracing_into(str(tmp_path / "traced")):
        yield tmp_path / "traced"


def shares(values=VALUES, placement=tiny.ONE_ON_THREADS):
    """A small function of this package, as a process that has just begun computes it."""
    programs._compiled.cache_clear()
    return population.run(
        evidence.share_of_others, placement, [values, 1 - values], LABELS, 2
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def no_tracing(*arguments):
    raise AssertionError("traced, though an earlier process had done so")


@pytest.mark.parametrize("placement", [tiny.ONE_ON_THREADS, tiny.ONE_STACKED])
def test_a_program_that_was_kept_gives_the_same_and_is_not_traced_again(
    folder, placement, monkeypatch
):
    with compile_cache.tracing_into(None):
        expected = shares(placement=placement)
    assert_same(shares(placement=placement), expected)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(stored, "trace", no_tracing)
    assert_same(shares(placement=placement), expected)
    with pytest.raises(AssertionError, match="traced"):
        shares(VALUES[:, :2], placement)  # another shape


def test_evidence_comes_back_in_its_own_named_tuples(folder, monkeypatch):
    settings = records.Settings(mode="weights", config=weights.Settings())
    function = chunks._examined(settings, SPEC)
    variables = SPEC.create().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    member = examination.Member(
        jax.device_get(variables),
        np.zeros((1, 3), np.float32),
        np.ones((1, 3), np.float32),
        np.arange(8, dtype=np.uint32),
    )
    common = examination.Common(None, jax.random.key(0), settings.config)
    arguments = (function, tiny.ONE_ON_THREADS, [member], common, 1)
    (expected,) = population.run(*arguments)
    assert not list(folder.parent.glob("*/*.partial"))
    programs._compiled.cache_clear()
    monkeypatch.setattr(stored, "trace", no_tracing)
    (found,) = population.run(*arguments)
    assert type(found) is examination.Found
    assert type(found.evidence) is evidence.Evidence
    assert_same(found, expected)


def the_file(folder):
    (path,) = folder.iterdir()
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def changed(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def of_another_name(path):
    head, _, blob = path.read_bytes().partition(b"\n")
    told = {**json.loads(head), "key": "0" * 64}
    path.write_bytes(json.dumps(told).encode() + b"\n" + blob)


def writable(path):
    path.chmod(0o666)


def in_a_writable_folder(path):
    path.parent.chmod(0o777)


def a_link(path):
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    "damage, words",
    [
        (cut, "damaged"),
        (changed, "damaged"),
        (empty, "Expecting value"),
        (of_another_name, "another program"),
        (writable, "written to by others"),
        (in_a_writable_folder, "its folder can be written to by others"),
        (a_link, "symbolic link"),
    ],
)
def test_a_damaged_or_foreign_file_is_passed_over_with_a_word(folder, damage, words):
    key = "1" * 64
    stored.keep(key, stored.Traced(b"a program", None))
    assert stored.read(key) == stored.Traced(b"a program", None)
    damage(the_file(folder))
    with pytest.warns(UserWarning, match=words):
        assert stored.read(key) is None


def test_somebody_elses_file_is_passed_over(folder, monkeypatch):
    key = "1" * 64
    stored.keep(key, stored.Traced(b"a program", None))
    monkeypatch.setattr(compile_cache, "unsafe", lambda path: "")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.warns(UserWarning, match="another user"):
        assert stored.read(key) is None


def test_what_is_whole_and_no_program_is_traced_anew_and_replaced(folder):
    expected = shares()
    key = the_file(folder).stem
    stored.keep(key, stored.Traced(b"no program at all, of some length", None))
    with pytest.warns(UserWarning, match="traced anew"):
        assert_same(shares(), expected)
    assert stored.read(key).blob != b"no program at all, of some length"


def test_a_folder_that_cannot_be_written_costs_the_trace_and_nothing_else(tmp_path):
    (tmp_path / "traced").write_text("in the way")
    with compile_cache.tracing_into(None):
        expected = shares()
    with compile_cache.tracing_into(str(tmp_path / "traced")):
        assert_same(shares(), expected)


def key_of(
    config=None, spec=SPEC, lowering="native", size=8, placement=tiny.ONE_ON_THREADS
):
    """What the program of a scan's chunk is kept under."""
    settings = records.Settings(config=config or ban.Settings(), lowering=lowering)
    probe = types.Probe(
        np.zeros((1, 8, size, size, 3), np.float32), np.zeros((1, 8), np.int32)
    )
    member = examination.Member(
        {"params": np.zeros(3, np.float32)},
        np.zeros((1, 3), np.float32),
        np.ones((1, 3), np.float32),
        np.arange(8, dtype=np.uint32),
    )
    common = examination.Common(probe, jax.random.key(0), settings.config)
    function = chunks._examined(settings, spec)
    asked = programs._asked(function, placement, member, common, 2, False)
    return programs._key(*asked)


def test_the_same_settings_have_one_name_and_numbers_do_not_change_it(folder):
    assert key_of() == key_of(ban.Settings(epsilon=0.123))


@pytest.mark.filterwarnings("ignore")
def test_whatever_changes_the_program_changes_its_name(folder, monkeypatch):
    names = {
        "as it is": key_of(),
        "a count": key_of(dataclasses.replace(ban.Settings(), steps=3)),
        "the width": key_of(spec=checkpoints.ModelSpec("resnet18", 3, 4)),
        "the network": key_of(spec=checkpoints.ModelSpec("preact_resnet18", 3, 2)),
        "the lowering": key_of(lowering="shift"),
        "the size of images": key_of(size=16),
        "the placement": key_of(placement=tiny.ONE_STACKED),
    }
    with jax.default_matmul_precision("bfloat16"):
        names["a setting of JAX"] = key_of()
    with monkeypatch.context() as patch:
        patch.setattr(naming, "_sources", lambda: "other sources")
        names["the sources"] = key_of()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0")
        names["JAX"] = key_of()
    assert None not in names.values()
    assert len(set(names.values())) == len(names), names


def test_every_detector_and_network_of_ours_has_a_name():
    for one in detectors.DETECTORS.values():
        assert naming.name(one.detect)
    assert naming.name(chunks._examined(records.Settings(), SPEC))


@pytest.mark.parametrize(
    "other", [lambda x: x * 3, lambda x: x.T * 2, lambda x: jnp.sum(x * 2)]
)
def test_lambdas_differ_by_their_numbers_and_names(other):
    same = [naming._code(f.__code__) for f in (lambda x: x * 2, lambda y: y * 2)]
    assert same[0] == same[1] != naming._code(other.__code__)


def test_a_set_among_the_constants_of_a_function_has_one_order():
    code = naming._code((lambda x: x in {"c", "a", "b"}).__code__)
    assert ("frozenset", "'a'", "'b'", "'c'") in code[2]


def test_programs_are_kept_for_this_user_alone_and_taken_again_whatever_the_umask(
    folder, monkeypatch
):
    before = os.umask(0o002)
    try:
        expected = shares()
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(stored, "trace", no_tracing)
    assert_same(shares(), expected)


def test_the_sources_are_those_of_the_networks_too():
    files = {
        name
        for folder in naming._folders()
        for _, _, names in os.walk(folder)
        for name in names
    }
    assert {"unicorn.py", "preact_resnet.py"} <= files


def of_these_tests(member, shared):
    return member + shared


def test_functions_from_elsewhere_and_what_was_put_in_their_place_have_none(
    monkeypatch,
):
    with pytest.raises(naming.Unnamed, match="of_these_tests"):
        naming.name(of_these_tests)
    with pytest.raises(naming.Unnamed, match="of_these_tests"):
        naming.name(functools.partial(examination.examine, network=of_these_tests))
    with pytest.raises(naming.Unnamed):
        naming.name(object())
    original = evidence.share_of_others
    monkeypatch.setattr(evidence, "share_of_others", of_these_tests)
    with pytest.raises(naming.Unnamed, match="took the place"):
        naming.name(original)


def test_a_function_without_a_name_is_compiled_and_not_kept(folder):
    found = population.run(
        of_these_tests, tiny.ONE_ON_THREADS, [np.float32(1)], np.float32(2), 1
    )
    assert found == [3] and not folder.exists()


@pytest.mark.parametrize(
    "tree",
    [
        None,
        VALUES,
        {"b": VALUES, "a": (LABELS, None), "c": [VALUES]},
        examination.Found(
            evidence.Evidence({"v": VALUES}, {}, LABELS, LABELS, {"x": [VALUES]}),
            LABELS,
        ),
    ],
)
def test_a_structure_told_in_json_is_the_same_one(tree):
    told = json.loads(json.dumps(stored.described(tree)))
    assert_same(stored.rebuilt(told, jax.tree.leaves(tree)), tree)


@pytest.mark.parametrize(
    "where", [["os", "system"], ["ban_jax.cli", "main"], ["ban_jax.cli", "os.system"]]
)
def test_a_structure_names_nothing_but_named_tuples_of_this_package(where):
    with pytest.raises(ValueError, match="result|named tuple"):
        stored.rebuilt({"named": [where, [None]]}, [VALUES])


def test_programs_that_use_up_their_members_are_not_kept(folder):
    asked = (evidence.share_of_others, tiny.ONE_ON_THREADS, VALUES, LABELS, 1)
    assert programs._key(*programs._asked(*asked, False))
    assert programs._key(*programs._asked(*asked, True)) is None


def test_without_the_package_that_writes_them_programs_are_compiled_all_the_same(
    folder, monkeypatch
):
    monkeypatch.setattr(stored, "_can_serialize", lambda: False)
    found = shares()
    assert not folder.exists()
    with compile_cache.tracing_into(None):
        assert_same(found, shares())


def expected(surely, placement=tiny.ONE_ON_THREADS):
    """Programs in this process after a runner was told to expect one."""
    programs._compiled.cache_clear()
    one = runner.Runner(timeline.Timeline(), placement)
    arguments = ("kind", evidence.share_of_others, VALUES, LABELS)
    one.expect(*arguments, surely=surely).result()
    return programs._compiled.cache_info().currsize


def test_a_program_that_may_not_be_needed_is_loaded_but_not_compiled_ahead(folder):
    assert expected(surely=False) == 0
    assert expected(surely=True) == 1
    assert expected(surely=False) == 1
    assert expected(surely=True, placement=tiny.ONE_STACKED) == 0  # its size may change


def test_what_fails_ahead_is_told_where_it_is_asked_for(folder):
    one = runner.Runner(timeline.Timeline(), tiny.ONE_ON_THREADS)
    arguments = ("kind", evidence.share_of_others, VALUES[0])  # one axis too few
    one.expect(*arguments, LABELS, surely=True).result()
    with pytest.raises(IndexError):
        one.run(*arguments[:2], one.place("kind", [VALUES[0]]), LABELS)


def candidate():
    """A file that was read, of a network of three classes."""
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(SPEC.create().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))),
    )
    return checkpoints.Candidate("a", "0" * 64, SPEC, variables, None, None, None, None)


def test_programs_of_a_kind_are_expected_once_and_those_of_a_closer_look_perhaps(
    monkeypatch,
):
    asked = []
    labels = np.arange(8, dtype=np.int32).reshape(1, 8) % 3
    probe = types.Probe(np.zeros((1, 8, 8, 8, 3), np.float32), labels)
    scan = chunks.Scan(records.Job(records.Settings(), probe), timeline.Timeline())
    monkeypatch.setattr(
        scan._runner,
        "expect",
        lambda kind, function, member, shared, surely: asked.append(
            (kind.asked, surely, member.classes is None)
        ),
    )
    for _ in range(2):
        scan.expect(candidate())
    assert asked == [(None, True, True), *[(3, False, False)] * 2]
