"""Every classifier in a file is read: averages, lists, clients, networks side by side."""

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import discovery, part_paths
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
STATE = builders.state_dict(SPEC)
OTHER = builders.state_dict(SPEC, seed=1)
PARAMETERS = {name: OTHER[name] for name in OTHER if "running" not in name}


@pytest.fixture
def parts(tmp_path):
    def parts(root: object) -> dict[str, checkpoints.Part]:
        path = tmp_path / "model.pt"
        path.write_bytes(builders.nested_file(root))
        found = checkpoints.read_all(path)
        return {one.path.removeprefix(f"{path}"): one for one in found}

    return parts


def hashes(found: dict[str, checkpoints.Part]) -> dict[str, str]:
    return {name: part.candidate.sha256 for name, part in found.items()}


def of(state: dict) -> str:
    return checkpoints.read_state_dict(state).sha256


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("root", "names"),
    [
        ({"state_dict": STATE, "state_dict_ema": OTHER}, "state_dict state_dict_ema"),
        (
            {"state_dict": STATE, "ema_state_dict": {"steps": np.int64([5]), **OTHER}},
            "state_dict ema_state_dict",
        ),
        ({"model": STATE, "model_ema": prefixed(OTHER, "module.")}, "model model_ema"),
        (
            {"net": STATE, "averaged_model": {"shadow": OTHER}},
            "net averaged_model/shadow",
        ),
        ([STATE, OTHER], "0 1"),
        ({"models": (STATE, OTHER)}, "models/0 models/1"),
        ({0: STATE, 1: OTHER}, "0 1"),
        (
            {"global_model": STATE, "clients": {17: {"weights": OTHER}}},
            "global_model clients/17/weights",
        ),
        ({**STATE, "ema": OTHER}, ". ema"),
        (
            {
                "state_dict": {
                    **prefixed(STATE, "student."),
                    **prefixed(OTHER, "teacher."),
                }
            },
            "state_dict/student state_dict/teacher",
        ),
        (
            {**prefixed(STATE, "model."), **prefixed(OTHER, "model_ema.module.")},
            "model model_ema.module",
        ),
        ({"params": STATE, "params_ema": OTHER}, "params params_ema"),
    ],
    ids=str,
)
def test_each_classifier_is_a_part(root, names, parts):
    found = parts(root)
    assert list(found) == [f"#{name}" for name in names.split()]
    assert list(hashes(found).values()) == [of(STATE), of(OTHER)]


@pytest.mark.parametrize("name", ["ema_params", "params_ema", "target_params"])
def test_averages_in_a_training_state_of_flax_are_parts(name, parts):
    tree, other = builders.flax_tree(STATE, SPEC), builders.flax_tree(OTHER, SPEC)
    statistics = name.replace("params", "batch_stats")
    state = {
        **{"step": np.int64([7]), "params": tree["params"]},
        **{
            "batch_stats": tree["batch_stats"],
            "opt_state": {"0": {"mu": tree["params"]}},
        },
    }
    whole = {name: other["params"], statistics: other["batch_stats"]}
    found = parts({**state, **whole})
    assert list(found) == ["#.", f"#{name}"]
    assert list(hashes(found).values()) == [of(STATE), of(OTHER)]
    if name != "target_params":  # no average by its name
        found = parts({**state, name: other["params"]})
        assert list(hashes(found).values()) == [of(STATE), of({**STATE, **PARAMETERS})]
    elsewhere = parts({**state, "best": {**other}})
    assert list(hashes(elsewhere).values()) == [of(STATE), of(OTHER)]


def test_containers_beside_a_modules_tensors_are_looked_into(parts):
    """An object with a module and, in a list, another one's weights."""
    kind = builders.symbol("train", "Trainer") + b")\x81"
    root = {"model.x": STATE["linear.bias"], **STATE, "history": [OTHER]}
    found = parts(builders.Built(kind, root))
    assert list(hashes(found).values()) == [of(STATE), of(OTHER)]


def test_what_lies_deeper_than_is_looked_is_said(parts):
    deep = OTHER
    for _ in range(14):
        deep = {"a": deep}
    found = parts({"model": STATE, "more": deep})
    assert found["#model"].candidate.notes == (
        "what lies more than 12 containers deep was not looked into",
    )
    assert "'more/a/a/a" in str(found["#rest"].error)
    settings = {"a": 1}
    for _ in range(14):
        settings = {"a": settings}
    ((_, only),) = parts({"model": STATE, "more": settings}).items()
    assert only.candidate.notes != ()  # it may hold anything


def test_data_without_end_beside_a_model_does_not_hide_another(parts):
    """As the poisoned data set in a BackdoorBench file: many small containers."""
    data = [((),)] * 5 + [((i,),) for i in range(60_000)]
    found = parts({"model": STATE, "data": data, "z": {"y": {"ema": OTHER}}})
    assert list(hashes(found).values()) == [of(STATE), of(OTHER)]


def test_a_single_classifier_has_the_path_of_its_file(parts):
    (only,) = parts({"model": STATE, "optimizer": {"lr": 1}}).items()
    assert only[0] == "" and only[1].candidate.part_of == ""


def test_a_part_is_read_by_its_path(parts, tmp_path):
    parts({"state_dict": STATE, "state_dict_ema": OTHER})
    path = f"{tmp_path}/model.pt#state_dict_ema"
    found = checkpoints.read(path)
    assert (found.path, found.sha256, found.part_of) == (path, of(OTHER), "")
    assert found.names.container == "state_dict_ema"
    assert discovery.find([path]) == [path]
    with pytest.raises(
        checkpoints.CheckpointError, match="there is state_dict, state_"
    ):
        checkpoints.read(f"{tmp_path}/model.pt#ema")


def test_without_a_name_the_likeliest_is_read_and_the_others_are_named(parts, tmp_path):
    parts({"ema": OTHER, "netC": STATE})
    found = checkpoints.read(tmp_path / "model.pt")
    assert found.sha256 == of(STATE)
    assert "other parts, which were not judged: ema" in found.notes[0]
    memory = checkpoints.read_state_dict({"ema": OTHER, "netC": STATE})
    assert memory.sha256 == of(STATE) and "not judged: ema" in memory.notes[0]


def test_no_file_can_take_the_place_of_a_part(parts, tmp_path):
    (tmp_path / "model.pt#ema").write_bytes(builders.nested_file(STATE))
    found = parts({"model": STATE, "ema": OTHER})
    assert list(found) == ["#model", "##ema"]
    assert checkpoints.read(f"{tmp_path}/model.pt#ema").sha256 == of(STATE)
    assert checkpoints.read(f"{tmp_path}/model.pt##ema").sha256 == of(OTHER)
    assert part_paths.split_name(found["##ema"].path) == "ema"


def test_the_same_tensors_under_two_names_are_one_classifier(parts):
    ((path, only),) = parts({"model": STATE, "best_model": STATE}).items()
    assert path == ""
    assert only.candidate.notes == ("best_model holds the same tensors as model",)


def test_equal_weights_in_two_places_are_two_parts(parts):
    copy = {name: value.copy() for name, value in STATE.items()}
    found = parts({"model": STATE, "best_model": copy})
    assert set(hashes(found).values()) == {of(STATE)} and len(found) == 2


def test_one_that_does_not_fit_leaves_the_others_alone(parts, tmp_path):
    odd = {**OTHER, "linear.bias": np.ones(43, np.float32)}
    found = parts({"model": STATE, "ema": odd})
    assert found["#model"].candidate.sha256 == of(STATE)
    assert found["#ema"].candidate is None
    assert "bias for 43" in str(found["#ema"].error)
    assert str(found["#ema"].error).startswith(f"{tmp_path}/model.pt#ema: ")


def test_averages_of_parameters_alone_take_the_models_own_statistics(parts):
    near = {name: STATE[name] + np.float32(0.01) for name in PARAMETERS}
    for averages, expected in (
        ({"decay": np.float32([0.9]), **PARAMETERS}, {**STATE, **PARAMETERS}),
        ({"shadow_params": list(near.values())}, {**STATE, **near}),
    ):
        found = parts({"model": STATE, "ema": averages})
        assert list(hashes(found).values()) == [of(STATE), of(expected)]
        note = found[list(found)[1]].candidate.notes[0]
        assert "its running statistics are those of model" in note


def test_parameters_and_their_buffers_in_two_dicts_are_one_network(parts):
    buffers = {name: STATE[name] for name in STATE if "running" in name}
    own = {name: STATE[name] for name in STATE if "running" not in name}
    for root in (
        {"params": own, "buffers": buffers},
        {"buffers": buffers, "epoch": 3, "params": own},
        {"model": (prefixed(own, "module."), prefixed(buffers, "module."))},
        {**own, "buffers": buffers},
    ):
        assert hashes(parts(root)) == {"": of(STATE)}
    found = parts({"params": own, "ema_params": PARAMETERS, "buffers": buffers})
    assert hashes(found) == {
        "#params": of(STATE),
        "#ema_params": of({**PARAMETERS, **buffers}),
    }
    assert "running statistics are those" in found["#ema_params"].candidate.notes[0]
    others = {name: OTHER[name] for name in OTHER if "running" in name}
    apart = [
        {"params": own, "buffers": others},
        {"params": PARAMETERS, "buffers": buffers},
    ]
    assert list(hashes(parts(apart)).values()) == [
        of({**own, **others}),
        of({**PARAMETERS, **buffers}),
    ]


def test_averages_without_names_are_not_matched_in_another_order(parts):
    """Two layers of one shape exchanged, in the list or in the model; another model."""
    near = {name: STATE[name] + np.float32(0.01) for name in PARAMETERS}
    one, two = "layer1.0.conv1.weight", "layer1.1.conv1.weight"
    exchanged = {**near, one: near[two], two: near[one]}
    order = {one: two, two: one}
    model = {order.get(name, name): STATE[order.get(name, name)] for name in STATE}
    for state, averages in ((STATE, exchanged), (model, near), (STATE, PARAMETERS)):
        found = parts({"model": state, "ema": {"shadow_params": [*averages.values()]}})
        assert list(found) == ["#model", "#rest"]
        assert "62 tensors" in str(found["#rest"].error)


def test_the_order_of_names_means_nothing_and_unknown_names_are_never_matched(parts):
    names = list(STATE)
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(names).tolist()
        assert hashes(parts({n: STATE[n] for n in shuffled})) == {"": of(STATE)}
        unknown = {f"k{place}": STATE[name] for place, name in enumerate(shuffled)}
        for root in (
            unknown,
            {"model": unknown},
            [*unknown.values()],
            {"params": unknown},
        ):
            with pytest.raises(
                checkpoints.CheckpointError, match="unknown architecture"
            ):
                parts(root)
        with pytest.raises(checkpoints.CheckpointError, match="unknown architecture"):
            checkpoints.read_state_dict(unknown, architecture="resnet18")


def test_what_is_named_like_a_network_but_lacks_weights_is_said(parts):
    found = parts({"model": STATE, "gradients": PARAMETERS})
    assert list(found) == ["#model", "#rest"]
    assert "62 tensors" in str(found["#rest"].error)
    assert found["#model"].candidate.notes == (
        "the file holds more, which was not judged: gradients is named like resnet18 but "
        "lacks 40 of 102 weights",
    )


def test_parts_may_not_ask_for_more_memory_than_one_file(parts):
    """Networks over one storage: each counts in full."""
    state = builders.state_dict(checkpoints.ModelSpec("resnet18", 10, 4))
    heads = [
        {**state, "linear.bias": np.full(10, number, np.float32)}
        for number in range(40)
    ]
    found = parts(heads)
    first, last = found["#0"], found["#39"]
    assert first.candidate is not None and last.candidate is None
    assert "the most a file of this size may ask for" in str(last.error)
