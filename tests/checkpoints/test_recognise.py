"""Architecture, width, classes and naming from names and shapes; strict conversion."""

import re

import numpy as np
import pytest

from ban_jax import checkpoints, models
from ban_jax.checkpoints import hashing, network_search
from tests.checkpoints import builders

SPECS = [
    checkpoints.ModelSpec("resnet18", 10, 2),
    checkpoints.ModelSpec("resnet18", 43, 4, in_channels=1),
    checkpoints.ModelSpec("resnet18", 7, 2, stem="imagenet"),
    checkpoints.ModelSpec("resnet34", 10, 2),
    checkpoints.ModelSpec("preact_resnet18", 10, 2),
    checkpoints.ModelSpec("vgg16", 10, 4),
    checkpoints.ModelSpec("densenet121", 10, 4),
]
RESNET = checkpoints.ModelSpec("resnet18", 10, 2)


def renamed(state: dict, *pairs: tuple[str, str]) -> dict:
    for old, new in pairs:
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


def torchvision(state: dict) -> dict:
    return renamed(state, ("shortcut", "downsample"), ("linear", "fc"))


@pytest.fixture
def read(tmp_path):
    def read(state: dict, **options) -> checkpoints.Candidate:
        path = tmp_path / "model.pt"
        path.write_bytes(builders.torch_file(state))
        return checkpoints.read(path, **options)

    return read


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_architecture_is_recognised_with_its_size(spec, read):
    state = builders.state_dict(spec)
    candidate = read(state)
    assert candidate.spec == spec
    shapes = hashing.flatten(models.abstract_variables(spec.create()))
    for name, leaf in hashing.flatten(candidate.full_variables()).items():
        assert leaf.shape == shapes.pop(name).shape
    assert not shapes
    back = checkpoints.to_torch_names(candidate.variables, candidate.names)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


def test_files_of_one_kind_are_matched_once_and_keep_their_own_weights(read):
    state = builders.state_dict(RESNET)
    first = read(state)
    asked = network_search._match.cache_info()
    second = read({name: value + 1 for name, value in state.items()})
    assert network_search._match.cache_info().misses == asked.misses
    assert network_search._match.cache_info().hits > asked.hits
    assert second.spec == first.spec and second.sha256 != first.sha256
    back = checkpoints.to_torch_names(second.variables, second.names)
    np.testing.assert_array_equal(back["linear.bias"], state["linear.bias"] + 1)


def test_a_file_of_very_many_names_is_not_remembered(read, monkeypatch):
    monkeypatch.setattr(network_search, "_MAX_KEPT", 1)
    asked = network_search._match.cache_info()
    assert read(builders.state_dict(RESNET)).spec == RESNET
    assert network_search._match.cache_info() == asked


def test_names_are_those_of_the_field():
    """methods.md section 2, spelled out for one entry of each kind."""
    resnet = network_search.expected(RESNET)
    assert resnet["layer2.0.shortcut.0.weight"] == (
        "params/layer2_0/shortcut_0/kernel",
        (4, 2, 1, 1),
    )
    assert resnet["layer1.1.bn2.running_var"] == ("batch_stats/layer1_1/bn2/var", (2,))
    assert len(resnet) == 102
    vgg = network_search.expected(checkpoints.ModelSpec("vgg16", 10, 4))
    assert vgg["features.40.bias"][0] == "params/layers_40/bias"
    assert vgg["features.41.running_mean"][0] == "batch_stats/layers_41/mean"
    assert vgg["classifier.weight"] == ("params/classifier/kernel", (10, 32))
    densenet = network_search.expected(checkpoints.ModelSpec("densenet121", 10, 64))
    assert densenet["dense4.15.conv2.weight"][1] == (32, 128, 3, 3)
    assert densenet["trans3.bn.weight"][1] == (1024,)
    assert densenet["linear.weight"][1] == (10, 1024)


def numbered(state: dict) -> dict:
    """The names of pytorch-cifar100: layers of a block by their places in it."""
    places = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}
    found = {}
    for name, value in renamed(state, ("linear", "fc")).items():
        stage = re.match(r"layer(\d)\.", name)
        words = name.split(".")
        if words[0] in ("conv1", "bn1"):
            words[:1] = ["conv1", str(places[words[0]])]
        elif stage:
            words[0] = f"conv{int(stage[1]) + 1}_x"
            if words[2] in places:
                words[2:3] = ["residual_function", str(places[words[2]])]
        found[".".join(words)] = value
    return found


@pytest.mark.parametrize(
    "naming",
    [
        lambda state: renamed(torchvision(state)),
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state: {f"1.{name}": value for name, value in state.items()},
        lambda state: {
            ("classifier." if k.startswith("fc") else "features.") + k: v
            for k, v in torchvision(state).items()
        },
        numbered,
    ],
    ids=[
        *("torchvision", "DataParallel", "compiled", "Sequential", "TrojanZoo"),
        "pytorch-cifar100",
    ],
)
def test_other_programs_names_lead_to_the_same_weights(naming, read):
    state = builders.state_dict(RESNET)
    plain, other = read(state), read(naming(state))
    assert other.spec == RESNET and other.sha256 == plain.sha256
    back = checkpoints.to_torch_names(other.variables, other.names)
    assert back.keys() == naming(state).keys()


def test_noise_and_masks_of_noisy_layers_are_ignored(read):
    state = builders.state_dict(RESNET)
    extras = {
        f"layer1.0.bn1.{name}": np.ones(2, np.float32)
        for name in ("neuron_noise", "neuron_noise_bias", "neuron_mask")
    }
    assert read({**state, **extras}).sha256 == read(state).sha256


def test_a_normalisation_layer_in_the_model_gives_the_normalisation(read):
    state = {f"1.{k}": v for k, v in builders.state_dict(RESNET).items()}
    state["0.mean"] = np.float32([[[0.5]], [[0.25]], [[0.125]]])
    state["0.std"] = np.float32([[[0.5]], [[0.5]], [[0.25]]])
    candidate = read(state)
    assert candidate.normalisation == ((0.5, 0.25, 0.125), (0.5, 0.5, 0.25))
    assert candidate.normalisation_source == "the model's own layer"


def error(call, *arguments, **options) -> str:
    with pytest.raises(checkpoints.CheckpointError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_one_error_names_all_missing_and_unexpected_entries_and_wrong_shapes(read):
    state = builders.state_dict(RESNET)
    del state["bn1.weight"], state["layer3.1.conv2.weight"]
    state["aux.weight"] = state["other.bias"] = np.ones(3, np.float32)
    state["layer1.0.conv1.weight"] = np.ones((2, 2, 5, 5), np.float32)
    state["layer4.0.bn1.bias"] = np.ones(7, np.float32)
    message = error(read, state)
    assert "2 missing: bn1.weight, layer3.1.conv2.weight" in message
    assert "2 unexpected: 'aux.weight' (3,), 'other.bias' (3,)" in message
    assert "2 of the wrong shape" in message
    assert "'layer1.0.conv1.weight' should be (2, 2, 3, 3), is (2, 2, 5, 5)" in message
    assert "'layer4.0.bn1.bias' should be (16,), is (7,)" in message


def test_a_wrong_class_count_is_explained(read):
    state = builders.state_dict(RESNET)
    state["linear.bias"] = np.ones(43, np.float32)
    message = error(read, state)
    assert "weight is for 10 classes and its bias for 43" in message


def test_the_same_entry_twice_is_refused(read):
    state = builders.state_dict(RESNET)
    state["layer2.0.downsample.0.weight"] = state["layer2.0.shortcut.0.weight"]
    assert "(there twice)" in error(read, state)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a.weight": np.ones((3, 4)), "a.bias": np.ones(3)}, "'a.weight' (3, 4)"),
        (
            {
                f"layer{s}.{b}.conv1.weight": np.ones((1, 1, 3, 3))
                for s in (1, 2)
                for b in (0, 1)
            },
            "residual blocks (2, 2, 0, 0) per stage, known are (2, 2, 2, 2) (resnet18)",
        ),
        (
            {f"layer{i}.0.conv3.weight": np.ones((1, 1, 1, 1)) for i in (1, 2, 3)},
            "bottleneck residual blocks",
        ),
        (
            {
                **{f"features.{i}.weight": np.ones((1, 1, 3, 3)) for i in (0, 2, 5)},
                "classifier.weight": np.ones((3, 1)),
            },
            "VGG16 has",
        ),
    ],
)
def test_an_unknown_architecture_lists_the_known_ones_and_what_was_found(
    state, words, read
):
    state = {name: value.astype(np.float32) for name, value in state.items()}
    message = error(read, state)
    assert "unknown architecture" in message and words in message
    assert all(name in message for name in models.ARCHITECTURES)


def test_the_architecture_can_be_given(read):
    state = builders.state_dict(RESNET)
    assert read(state, architecture="resnet18").spec == RESNET
    assert "does not fit resnet34" in error(read, state, architecture="resnet34")
    assert "known: convnext, " in error(read, state, architecture="resnet19")


def test_weights_hash_depends_on_names_shapes_and_values_alone():
    tree = builders.flax_tree(builders.state_dict())
    other = builders.flax_tree(builders.state_dict())
    assert checkpoints.weights_hash(tree) == checkpoints.weights_hash(other)
    backwards = {name: tree[name] for name in reversed(tree)}
    assert checkpoints.weights_hash(backwards) == checkpoints.weights_hash(tree)
    normalised = {**tree, "normalisation": {"mean": np.ones(3)}}
    assert checkpoints.weights_hash(normalised) == checkpoints.weights_hash(tree)
    changed = {**tree, "params": {**tree["params"], "extra": np.ones(1)}}
    assert checkpoints.weights_hash(changed) != checkpoints.weights_hash(tree)
