"""`ban-jax bench --tune` from architectures to a table that decides."""

import pytest

from ban_jax import cli, convolution
from ban_jax.commands import tuning
from ban_jax.convolution import Layer, tables


def test_the_layers_are_those_of_the_architecture_that_leave_a_choice():
    found = tuning.layers_of(["resnet18"], 4, 8, 1)
    # Worked out from the paper's table; 1x1 projections are plain matrix products, and
    # the last block's second convolution sees one pixel.
    assert found == [
        Layer(8, 3, 1, 1, 4),
        Layer(8, 3, 1, 4, 4),
        Layer(8, 3, 2, 4, 8),
        Layer(4, 3, 1, 8, 8),
        Layer(4, 3, 2, 8, 16),
        Layer(2, 3, 1, 16, 16),
        Layer(2, 3, 2, 16, 32),
    ]


def test_layers_that_architectures_share_are_timed_once():
    both = tuning.layers_of(["resnet18", "preact_resnet18"], 4, 8, 1)
    assert len(both) == len(set(both)) == len(tuning.layers_of(["resnet18"], 4, 8, 1))


def test_a_repeat_takes_the_fastest_and_stops_when_it_has_enough(monkeypatch):
    times = iter([0.3, 0.1, 0.2, 9.0])
    monkeypatch.setattr(tuning.timeit, "timeit", lambda *_, **__: next(times))
    assert tuning.fastest(lambda: None, 5) == 0.1


@pytest.mark.parametrize("count, models", [(1, 3), (2, 2)])
def test_a_model_alone_is_timed_with_one_per_core_beside_it(count, models, monkeypatch):
    monkeypatch.setattr(tuning.population, "cores", lambda: 3)
    monkeypatch.setattr(tuning, "fastest", lambda *_: 12.0)
    setting = tuning.Setting("float32", 1, batch=2)
    seconds = tuning.seconds(Layer(2, 3, 1, 2, 2), "native", "search", count, setting)
    assert seconds == 12.0 / models / tuning.LOOP


def test_the_command_writes_a_table_that_then_decides(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    layer = Layer(2, 3, 1, 2, 2)
    monkeypatch.setattr(tuning, "layers_of", lambda *_: [layer])
    monkeypatch.setattr(tuning.Setting.__new__, "__defaults__", (4, 0.0))
    assert cli.main(["bench", "--tune", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert tables.user_table() in printed and "grouped" in printed
    chosen = tables.default()
    assert chosen.table == "user"
    assert [entry[0] for entry in chosen.search + chosen.kernel] == [layer, layer]
    (machine,) = tables.read(tables.user_table())
    assert {(row.what, row.models) for row in machine.rows} == {
        (what, models) for what in convolution.WORK for models in (1, tables.STACKED)
    }
    for row in machine.rows:
        same = {"sequential"} if row.models == 1 else set()
        same |= {"columns"} if row.what == "kernel" else set()
        assert set(row.seconds) == set(convolution.LOWERINGS) - same
        assert all(seconds > 0 for seconds in row.seconds.values())
    assert machine.runs[0]["batch"] == 4 and machine.runs[0]["versions"]["jax"]


def test_an_interrupted_tuning_keeps_what_it_has_timed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.json"
    layers = [Layer(side, 3, 1, 2, 2) for side in (8, 4, 2)]

    def rows_of(layer, setting):
        yield tables.Row(layer, "search", 1, {"native": 1.0, "columns": 0.5})
        if layer == layers[1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "layers_of", lambda *_: layers)
    monkeypatch.setattr(tuning, "rows_of", rows_of)
    code = cli.main(["bench", "--tune", "--table", str(path)])
    assert code == cli.INTERRUPTED
    (machine,) = tables.read(str(path))
    assert [row.layer for row in machine.rows] == layers[:2]
    told = capsys.readouterr().out
    assert f"Table: {path}; 2 of 3 layer shapes are not timed whole" in told


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--candidates", "0"), "--candidates must be at least 1"),
        (("--tune", "--repeats", "0"), "--repeats must be at least 1"),
        (("--tune", "--arch", "lenet"), "unknown architecture 'lenet'"),
    ],
)
def test_bad_flags_are_named(flags, words, capsys):
    assert cli.main(["bench", *flags]) == cli.USAGE
    assert words in capsys.readouterr().err
