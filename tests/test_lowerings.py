"""Tables of measured lowerings: which row decides, and what a broken file does."""

import json

import pytest

from ban_jax import cli, convolution
from ban_jax.convolution import Layer, tables
from ban_jax.convolution.tables import Machine, Row

LAYER, OTHER = Layer(8, 3, 1, 4, 4), Layer(4, 3, 2, 4, 8)


def row(layer=LAYER, what="search", models=1, **seconds):
    return Row(layer, what, models, seconds)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Path of the user's table, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tables.user_table()


def test_the_packaged_table_can_be_read_and_knows_the_three_backends():
    machines = tables.read(tables.PACKAGED)
    assert {machine.backend for machine in machines} == {"cpu", "gpu", "tpu"}
    for machine in machines:
        assert machine.note or machine.runs
        assert bool(machine.rows) == bool(machine.runs)


def test_without_a_measurement_a_backend_has_its_documented_fallback(user):
    assert tables.choose("gpu", "NVIDIA A100") == convolution.Choice("im2col")
    unknown = tables.choose("abacus", "wooden")
    assert unknown == convolution.Choice("shift") and unknown.table == "none"


def test_the_fastest_lowering_of_the_rows_that_count_is_chosen():
    rows = (
        row(native=3.0, shift=1.0, im2col=2.0),
        row(models=8, native=1.0, sequential=0.5, shift=2.0),
        row(what="kernel", native=1.0, shift=1.0),  # of equals the simpler
        row(OTHER, models=8, what="kernel", im2col=1.0),
    )
    cpu = Machine("cpu", "cpu", "native", rows=rows).choice("t")
    assert cpu.search == ((LAYER, "shift"),) and cpu.kernel == ((LAYER, "native"),)
    gpu = Machine("gpu", "H100", "shift", rows=rows).choice("t")
    assert gpu.search == ((LAYER, "sequential"),)
    assert gpu.kernel == ((OTHER, "im2col"),)


def test_the_users_table_goes_first_on_the_device_it_was_measured_on(user):
    mine = Machine("gpu", "H100", "im2col", rows=(row(models=8, im2col=1.0),))
    tables.update(user, mine)
    chosen = tables.choose("gpu", "H100")
    assert chosen.table == "user" and chosen.search == ((LAYER, "im2col"),)
    assert tables.choose("gpu", "A100").table == "packaged"
    assert tables.choose("cpu", "cpu").table == "packaged"


def test_each_precision_has_rows_of_its_own_and_else_those_of_float32(user):
    wide = row(models=8, shift=1.0, im2col=2.0)
    narrow = Row(LAYER, "search", 8, {"shift": 2.0, "im2col": 1.0}, "bfloat16")
    tables.update(user, Machine("gpu", "H100", "shift", rows=(wide,)))
    tables.update(user, Machine("gpu", "H100", "shift", rows=(narrow,)))
    chosen = {
        precision: tables.choose("gpu", "H100", precision).search
        for precision in ("float32", "tf32", "bfloat16")
    }
    assert chosen["float32"] == chosen["tf32"] == ((LAYER, "shift"),)
    assert chosen["bfloat16"] == ((LAYER, "im2col"),)


def test_an_update_replaces_what_was_measured_again_and_keeps_all_else(user):
    old = (row(native=1.0), row(OTHER, native=2.0))
    tables.update(user, Machine("cpu", "cpu", "native", "kept", ({"n": 1},), old))
    tables.update(user, Machine("gpu", "H100", "shift"))
    new = Machine("cpu", "cpu", "shift", runs=({"n": 2},), rows=(row(shift=0.5),))
    tables.update(user, new)
    cpu, gpu = tables.read(user)
    assert gpu == Machine("gpu", "H100", "shift")
    assert cpu.runs == ({"n": 1}, {"n": 2}) and cpu.note == "kept"
    assert cpu.rows == (row(shift=0.5), row(OTHER, native=2.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"machines": [{"backend": "cpu"}]}',
        '{"machines": [{"backend": "cpu", "device": "cpu", "fallback": "winograd",'
        ' "note": "", "runs": [], "rows": []}]}',
        '{"machines": [{"backend": "cpu", "device": "cpu", "fallback": "shift",'
        ' "note": "", "runs": [], "rows": [{"layer": {"image": 1}}]}]}',
    ],
)
def test_a_broken_table_is_named_with_what_to_do_and_left_alone(user, text, tmp_path):
    (tmp_path / "ban_jax").mkdir()
    with open(user, "w") as file:
        file.write(text)
    with pytest.raises(tables.TableError, match="lowerings.json.*bench --tune"):
        tables.choose("cpu", "cpu")
    assert cli.main(["bench", "--tune", "--arch", "resnet18"]) == cli.USAGE
    with open(user) as file:
        assert file.read() == text


def test_a_table_is_json_with_a_line_for_every_row(user):
    rows = (row(native=1.0), row(OTHER, shift=2.0))
    machine = Machine("cpu", "cpu", "native", rows=rows)
    tables.update(user, machine)
    with open(user) as file:
        text = file.read()
    rows = json.loads(text)["machines"][0]["rows"]
    assert [json.dumps(entry) in text for entry in rows] == [True, True]
    assert tables.read(user) == [machine]


def test_a_lowering_that_was_not_timed_is_never_the_best():
    assert row(shift=9.0).best == "shift"


def test_noise_does_not_choose_against_the_simpler_lowering():
    assert row(native=1.02, shift=1.0).best == "native"
    assert row(native=1.04, shift=1.0).best == "shift"
