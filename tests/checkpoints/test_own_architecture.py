"""`register_architecture`: checkpoints of a user's own network are recognised and read."""

import functools

import flax.serialization
import jax
import numpy as np
import pytest

from ban_jax import checkpoints, models
from ban_jax.checkpoints import hashing
from tests.checkpoints import builders
from tests.checkpoints.own_network import Small

SPEC = checkpoints.ModelSpec("small", 7, 5, 1)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Registrations of a test end with it."""
    registry = models.ARCHITECTURES
    monkeypatch.setattr(registry, "_things", dict(registry._things))


@pytest.fixture
def variables():
    """Random weights of `SPEC`; call after registering."""

    def make(spec=SPEC, seed=0):
        rng = np.random.default_rng(seed)
        abstract = models.abstract_variables(spec.create())
        return jax.tree.map(
            lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
            {name: abstract[name] for name in hashing.HASHED},
        )

    return make


def write_npz(path, tree, spec):
    np.savez(path, **{k: np.asarray(v) for k, v in hashing.flatten(tree).items()})


def write_msgpack(path, tree, spec):
    path.write_bytes(flax.serialization.msgpack_serialize(tree))


@pytest.mark.parametrize(
    "write",
    [checkpoints.write_safetensors, checkpoints.write_orbax, write_npz, write_msgpack],
)
def test_one_call_and_files_of_every_layout_are_recognised(write, tmp_path, variables):
    models.register_architecture("small", Small)
    tree = variables()
    path = tmp_path / ("model.npz" if write is write_npz else "model")
    write(path, tree, SPEC)
    found = checkpoints.read(path)
    assert found.spec == SPEC and hash(found.spec) == hash(SPEC)
    assert found.sha256 == checkpoints.weights_hash(tree)
    network = models.network(found.spec.create())
    logits, _ = network.logits(
        found.full_variables(), np.ones((2, 8, 8, 1), np.float32), "batch"
    )
    assert logits.shape == (2, 7)


def test_without_the_call_the_file_is_unknown(tmp_path, variables):
    models.register_architecture("small", Small)
    checkpoints.write_safetensors(tmp_path / "model", variables(), SPEC)
    del models.ARCHITECTURES._things["small"]
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.read(tmp_path / "model")
    message = str(caught.value)
    assert "unknown architecture (no layers named as in any of them)" in message
    assert "known: convnext, " in message and " small," not in message


def test_ours_are_recognised_as_before():
    models.register_architecture("small", Small)
    state = builders.state_dict()
    assert checkpoints.read_state_dict(state).spec == builders.SPEC


def test_what_does_not_fit_is_named(variables):
    models.register_architecture("small", Small)
    state = checkpoints.to_torch_names(variables())
    state["stem_norm.bias"] = np.ones(9, np.float32)
    with pytest.raises(
        checkpoints.CheckpointError, match="does not fit small .*is \\(9,\\)"
    ):
        checkpoints.read_state_dict(state)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (4, 2, 3), (10, 64, 3)])
def test_sizes_are_read_off_the_shapes(sizes, variables):
    models.register_architecture("small", functools.partial(Small, width=8))
    spec = checkpoints.ModelSpec("small", *sizes)
    state = checkpoints.to_torch_names(variables(spec))
    assert checkpoints.read_state_dict(state).spec == spec


def test_a_file_of_another_program_is_described_by_recognise_and_rename(variables):
    def recognise(shapes):
        if "between.weight" not in shapes:
            return None
        outputs, inputs = shapes["between.weight"]
        classes = shapes["linear.weight"][0]
        channels = shapes["stem_conv.weight"][1]
        sizes = {"num_classes": classes, "width": inputs, "in_channels": channels}
        return sizes | {"hidden": outputs}

    def rename(names):
        return {name: name.replace("backbone.", "") for name in names}

    models.register_architecture("small", Small, recognise=recognise, rename=rename)
    tree = variables()
    plain = checkpoints.to_torch_names(tree)
    theirs = {
        name if name.startswith("linear") else f"backbone.{name}": value
        for name, value in plain.items()
    }
    found = checkpoints.read_state_dict(theirs)
    assert found.spec == checkpoints.ModelSpec(
        "small", 7, 5, 1, further=(("hidden", 10),)
    )
    assert found.spec.create().hidden == 10
    assert found.sha256 == checkpoints.weights_hash(tree)
    back = checkpoints.to_torch_names(found.variables, found.names)
    jax.tree.map(np.testing.assert_array_equal, back, theirs)
    with pytest.raises(checkpoints.CheckpointError, match="does not know these"):
        checkpoints.read_state_dict(builders.state_dict(), architecture="small")


def test_a_network_named_like_ours_is_taken_and_the_candidate_says_so():
    models.register_architecture("mine", models.resnet.ResNet)
    found = checkpoints.read_state_dict(builders.state_dict())
    assert found.spec.architecture == "mine"
    assert found.notes == (
        "read as mine; its tensors are named like those of resnet18 too",
    )
    given = checkpoints.read_state_dict(
        builders.state_dict(), architecture=builders.SPEC.architecture
    )
    assert given.spec == builders.SPEC and not given.notes


def test_a_network_that_cannot_be_built_takes_no_other_with_it():
    def broken(**fields):
        raise RuntimeError("no such layer")

    models.register_architecture("broken", broken)
    assert checkpoints.read_state_dict(builders.state_dict()).spec == builders.SPEC
    with pytest.raises(checkpoints.CheckpointError, match="no such layer"):
        checkpoints.read_state_dict({"a.weight": np.ones(3), "a.bias": np.ones(3)})


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="'resnet18' is known already"):
        models.register_architecture("resnet18", Small)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown architecture 'x'; known: convnext, "):
        models.create("x", num_classes=2)
