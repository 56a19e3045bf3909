"""Networks found whatever stands around their names, and beside them."""

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.checkpoints import naming
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec("resnet18", 10, 2)
STATE = builders.state_dict(SPEC)
VGG = builders.state_dict(checkpoints.ModelSpec("vgg16", 10, 4))


@pytest.fixture
def read(tmp_path):
    def read(root: object) -> checkpoints.Candidate:
        path = tmp_path / "model.pt"
        path.write_bytes(builders.nested_file(root))
        return checkpoints.read(path)

    return read


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def wrapped(state: dict, word: str) -> dict:
    """Each block wrapped alone, as activation checkpointing does."""
    return {
        ".".join([*name.split(".")[:2], word, *name.split(".")[2:]])
        if name.startswith("layer")
        else name: value
        for name, value in state.items()
    }


@pytest.mark.parametrize("word", sorted(naming.WRAPPERS))
def test_a_wrapper_may_stand_at_any_place_of_a_name(word, read):
    plain = read(STATE).sha256
    assert read(wrapped(STATE, word)).sha256 == plain
    assert read(prefixed(wrapped(STATE, word), f"{word}.net.{word}.")).sha256 == plain
    inner = {name.replace("features.", f"features.{word}."): VGG[name] for name in VGG}
    assert read(inner).sha256 == read(VGG).sha256


def test_backbone_and_head_may_have_prefixes_of_their_own(read):
    plain = read(STATE)
    for backbone, head in (
        ("backbone.", "head.fc."),
        ("0.", "1."),
        ("encoder.module.", "classifier.1."),
    ):
        state = {
            (
                head + name.removeprefix("linear.")
                if "linear" in name
                else backbone + name
            ): (value)
            for name, value in STATE.items()
        }
        other = read(state)
        assert other.sha256 == plain.sha256
        back = checkpoints.to_torch_names(other.variables, other.names)
        assert back.keys() == state.keys()


@pytest.mark.parametrize("head", ["", "fc."])
def test_backbone_and_head_may_lie_in_dicts_of_their_own(read, head):
    backbone = {name: STATE[name] for name in STATE if "linear" not in name}
    last = {head + leaf: STATE[f"linear.{leaf}"] for leaf in ("weight", "bias")}
    found = read({"encoder": backbone, "classifier": last, "epoch": 3})
    assert found.sha256 == read(STATE).sha256
    assert dict(found.names.keys)["params/linear/bias"] == f"classifier.{head}bias"
    with pytest.raises(checkpoints.CheckpointError, match=r"linear|last layer"):
        read(
            {
                "encoder": backbone,
                "one": last,
                "two": {
                    "weight": STATE["linear.weight"] + 1,
                    "bias": STATE["linear.bias"],
                },
            }
        )


def test_of_two_layers_that_may_be_the_last_none_is_taken(read):
    state = prefixed({n: v for n, v in STATE.items() if "linear" not in n}, "net.")
    for name in ("one", "two"):
        state[f"{name}.weight"] = STATE["linear.weight"] + len(name)
        state[f"{name}.bias"] = STATE["linear.bias"]
    state["two.bias"] = STATE["linear.bias"] + 1
    with pytest.raises(checkpoints.CheckpointError, match=r"linear|last layer"):
        read(state)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("criterion.weight", (10,)),
        ("criterion.centers", (10, 16)),
        ("loss_fn.pos_weight", (10,)),
        ("val_accuracy.tp", (10,)),
        ("train_acc.correct", ()),
        ("metrics.auroc.confmat", (10, 10)),
        ("n_averaged", ()),
        ("initted", (1,)),
        ("val_f1.tp", (10,)),
        ("optimizer.state.0.exp_avg", (2, 3)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_losses_metrics_and_counters_are_left_out_and_listed(name, shape, prefix, read):
    extra = np.ones(shape, np.float32)
    found = read({**prefixed(STATE, prefix), name: extra})
    assert found.sha256 == read(STATE).sha256
    assert found.notes == (f"left out, as no part of the network: '{name}' {shape}",)


@pytest.mark.parametrize(
    "name",
    ["trigger.weight", "model.extra.weight", "projector.0.weight", "conv1.weight"],
)
def test_what_may_belong_to_the_network_is_not_left_out(name, read):
    extra = np.ones((10, 10), np.float32)
    with pytest.raises(checkpoints.CheckpointError, match="1 unexpected") as caught:
        read({**prefixed(STATE, "model."), name: extra})
    assert name in str(caught.value)


def test_two_names_of_one_storage_are_one_tensor(read):
    twice = {**prefixed(STATE, "model."), **prefixed(STATE, "attacker.model.")}
    found = read(twice)
    assert found.sha256 == read(STATE).sha256
    assert any(note.startswith("further names of the same") for note in found.notes)
    back = checkpoints.to_torch_names(found.variables, found.names)
    assert back.keys() == twice.keys()
    tied = {**prefixed(STATE, "net."), "head.weight": STATE["linear.weight"]}
    assert read(tied).sha256 == found.sha256


def test_masks_of_pruning_are_multiplied_out(read):
    rng = np.random.default_rng(0)
    state, product = {}, {}
    for name, value in STATE.items():
        if value.ndim > 1:
            mask = (rng.random(value.shape) < 0.7).astype(np.float32)
            state[f"{name}_orig"], state[f"{name}_mask"] = value, mask
            product[name] = value * mask
        else:
            state[name] = product[name] = value
    found = read(prefixed(state, "module."))
    assert found.sha256 == read(product).sha256 != read(STATE).sha256
    assert "21 pruned weights" in found.notes[0]
    back = checkpoints.to_torch_names(found.variables, found.names)
    assert back.keys() == prefixed(product, "module.").keys()


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize(
    "ends",
    [
        ("{}_g", "{}_v"),
        ("parametrizations.{}.original0", "parametrizations.{}.original1"),
    ],
)
def test_weights_are_scaled_to_their_lengths(read, axis, ends):
    state = {}
    for number, (name, value) in enumerate(STATE.items()):
        if value.ndim < 2:
            state[name] = value
            continue
        others = tuple(i for i in range(value.ndim) if axis not in (i, None)) or None
        length = np.sqrt(np.sum(value**2, others, keepdims=axis is not None))
        layer, _, leaf = name.rpartition(".")
        for end, part in zip(ends, (length, value * (2 + number)), strict=True):
            state[f"{layer}.{end.format(leaf)}"] = part
    found = read(prefixed(state, "model."))
    assert "21 weights were scaled" in found.notes[0]
    expected = checkpoints.to_torch_names(read(STATE).variables)
    for name, value in checkpoints.to_torch_names(found.variables).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


@pytest.mark.parametrize("layers", ["all", "linear"])
@pytest.mark.parametrize(
    "ends", [("{}_orig", "{}_u"), ("parametrizations.{}.original",)]
)
def test_weights_that_are_kept_in_another_way_are_named_as_such(read, layers, ends):
    state = {}
    for name, value in STATE.items():
        layer, _, leaf = name.rpartition(".")
        if value.ndim < 2 or layers not in ("all", layer):
            state[name] = value
            continue
        state |= {f"{layer}.{end.format(leaf)}": value for end in ends}
    with pytest.raises(checkpoints.CheckpointError, match="remove_spectral_norm or"):
        read(state)


def test_a_weight_without_its_mask_is_not_the_weight(read):
    state = dict(STATE)
    state["conv1.weight_orig"] = state.pop("conv1.weight")
    with pytest.raises(
        checkpoints.CheckpointError, match="what they are computed from"
    ):
        read(state)


MEAN, STD = np.float32([0.5, 0.25, 0.125]), np.float32([0.5, 0.5, 0.25])


def layer(**leaves) -> dict:
    return {f"0.{name}": np.float32(value) for name, value in leaves.items()}


@pytest.mark.parametrize(
    "beside",
    [
        layer(mean=MEAN.reshape(3, 1, 1), std=STD.reshape(1, 3, 1, 1)),
        {"normalizer.new_mean": MEAN, "normalizer.new_std": STD},
        {"pixel_mean": MEAN, "pixel_std": STD},
        {"norm.mu": MEAN, "norm.sigma": STD},
        layer(means=MEAN, sds=STD),
        {
            "normalizer.mean": MEAN,
            "normalizer.std": STD,
            "attacker.normalize.mean": MEAN + 0,
            "attacker.normalize.std": STD + 0,
        },
        layer(weight=(1 / STD).reshape(3, 1, 1, 1), bias=-MEAN / STD),
        layer(weight=np.diag(1 / STD)[..., None, None], bias=-MEAN / STD),
        layer(running_mean=MEAN, running_var=STD**2 - 1e-5),
        layer(
            running_mean=0 * MEAN,
            running_var=0 * STD + 1 - 1e-5,
            weight=1 / STD,
            bias=-MEAN / STD,
        ),
        layer(mean=MEAN * 255, std=STD * 255),
    ],
    ids=[
        "buffers",
        "robustness",
        "detection",
        "mu and sigma",
        "smoothing",
        "twice",
        "depthwise",
        "diagonal",
        "batch norm",
        "affine batch norm",
        "0..255",
    ],
)
def test_pixel_constants_stored_in_the_model_are_used(beside, read):
    found = read({**prefixed(STATE, "1."), **beside})
    assert found.sha256 == read(STATE).sha256
    np.testing.assert_allclose(found.normalisation, (MEAN, STD), rtol=1e-5)
    assert found.normalisation_source == "the model's own layer"


def test_pixel_constants_for_bytes_are_recognised_and_said(read):
    found = read({**STATE, "0.mean": MEAN * 255, "0.std": STD * 255})
    assert any("pixels of 0..255" in note for note in found.notes)


def test_pixel_constants_in_the_order_of_caffe_are_told(read):
    mean = np.float32([103.53, 116.28, 123.675])
    std = np.float32([57.375, 57.12, 58.395])
    for means, is_told in ((mean, True), (mean[::-1].copy(), False)):
        notes = read({"net": STATE, "mean": means, "std": std}).notes
        assert any("blue, green, red" in note for note in notes) == is_told


def test_pixel_constants_that_contradict_each_other_are_not_used(read):
    beside = {"a.mean": MEAN, "a.std": STD, "b.mean": STD, "b.std": STD}
    found = read({**STATE, **beside})
    assert found.normalisation is None
    assert any("differ (a., b.)" in note for note in found.notes)


def test_of_two_networks_each_has_the_constants_beside_it(tmp_path):
    path = tmp_path / "two.pt"
    other = {name: value + 1 for name, value in STATE.items()}
    root = {
        **prefixed(STATE, "a.net."),
        **prefixed(other, "b.net."),
        **{"a.mean": MEAN, "a.std": STD, "b.mean": STD, "b.std": MEAN},
    }
    path.write_bytes(builders.nested_file(root))
    first, second = (part.candidate for part in checkpoints.read_all(path))
    assert first.normalisation == (tuple(MEAN), tuple(STD))
    assert second.normalisation == (tuple(STD), tuple(MEAN))


def test_flattened_parameters_are_told_as_such(read):
    flat = {f"_fsdp_wrapped_module.layer{i}._flat_param": MEAN for i in range(5)}
    with pytest.raises(checkpoints.CheckpointError, match="FSDP flattened"):
        read({**flat, "_fsdp_wrapped_module.conv1.weight": STATE["conv1.weight"]})


@pytest.mark.parametrize(
    "beside",
    [
        "linear.zero_point",
        "linear.weight._data",
        "conv1.weight_fake_quant.scale",
        "conv1.activation_post_process.min_val",
    ],
)
def test_quantised_weights_are_told_as_such(read, beside):
    state = {**STATE, beside: np.ones(1, np.float32)}
    with pytest.raises(checkpoints.CheckpointError, match="weights are quantised"):
        read(state)


def test_tensors_that_other_processes_keep_are_told_as_such(read):
    empty = {name: np.zeros(0, np.float32) for name in STATE}
    with pytest.raises(checkpoints.CheckpointError, match="tensors are empty"):
        read({"module": empty})


def test_networks_of_more_kinds_than_files_have_are_refused(read):
    root = {}
    for width in range(1, 11):
        spec = checkpoints.ModelSpec("resnet18", 10, width)
        root |= prefixed(builders.state_dict(spec), f"net{width}.")
    with pytest.raises(checkpoints.CheckpointError, match="more than 8 kinds"):
        read(root)


def test_prefixes_are_found_within_a_bound():
    names = [f"{'a.' * depth}w{i}" for depth in range(9) for i in range(3)]
    found = list(naming.prefixes(names))
    assert [prefix for prefix, _ in found] == ["a." * depth for depth in range(9)]
    assert [len(under) for _, under in found] == list(range(27, 0, -3))
    assert naming.common_prefix([f"x.y.{name}" for name in names]) == "x.y."
    many = [f"a.b{i % 7}.c.d.e.f.g.{i}" for i in range(30_000)]
    assert sum(len(under) for _, under in naming.prefixes(many)) <= 80_000
