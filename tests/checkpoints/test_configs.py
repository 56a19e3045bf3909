"""`config.json` beside a checkpoint: hints that are bounded, checked and noted."""

import json

import pytest
from safetensors import numpy as safetensors_numpy

from ban_jax import checkpoints, models
from ban_jax.checkpoints import configs
from tests.checkpoints import builders

SPEC = checkpoints.ModelSpec.of("efficientnet_b0", num_classes=5, width=8)
STATE = builders.state_dict(SPEC)
TIMM = {
    "architecture": "tf_efficientnet_b0",
    "num_classes": 5,
    "pretrained_cfg": {
        "num_classes": 1000,
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
}
HUGGING_FACE = {
    "architectures": ["EfficientNetForImageClassification"],
    "image_size": 600,
    "id2label": {"0": "cat", "1": "dog\u202e", "2": "a", "3": "b", "4": "c"},
}
PREPARED = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
}


def read(folder, config, prepared=None):
    path = folder / "model.safetensors"
    safetensors_numpy.save_file(STATE, path)
    for name, content in (
        ("config.json", config),
        ("preprocessor_config.json", prepared),
    ):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return checkpoints.read(path)


def test_timms_config_names_the_padding_and_the_images(tmp_path):
    found = read(tmp_path, TIMM)
    assert found.spec.stem == "tf"
    assert found.normalisation == ((0.5,) * 3, (0.25,) * 3)
    assert found.notes == (
        "3x3 stem: stride 2, TensorFlow's padding is assumed, as config.json says",
        "config.json calls the network 'tf_efficientnet_b0'",
        "config.json: the network's images have 224x224 pixels, bicubic resizing, the "
        "middle 87.5% of each side kept",
    )


def test_hugging_faces_two_files_say_constants_classes_and_images(tmp_path):
    found = read(tmp_path, HUGGING_FACE, PREPARED)
    assert found.normalisation == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert found.normalisation_source == "preprocessor_config.json"
    told = "\n".join(found.notes)
    assert "images have 224x224 pixels, bicubic resizing" in told
    assert "names 5 classes: 'cat', " in told and "\u202e" not in told


@pytest.mark.parametrize(
    ("more", "stem"),
    [
        ({}, "tf"),
        ({"tf_padding": False}, None),
        ({"architectures": ["ResNetForImageClassification"]}, None),
        ({"architectures": ["ForImageClassification"]}, None),
    ],
)
def test_hugging_faces_mobile_networks_are_tensorflows(more, stem):
    for name in ("efficientnet_b0", "mobilenet_v2"):
        family = {"e": "EfficientNet", "m": "MobileNetV2"}[name[0]]
        config = {"architectures": [f"{family}ForImageClassification"], **more}
        module = models.create(name, num_classes=5, stem="imagenet")
        assert configs.stem(config, name, module) == stem


@pytest.mark.parametrize(
    "more, mean, std",
    [
        ({"rescale_factor": 1 / 255}, 0.4, 0.2),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, 0.7, 0.1),
        ({"do_rescale": False, "mean": 102.0, "std": 51.0}, 0.4, 0.2),
        ({"include_top": True}, 0.4, 0.04),
        ({"include_top": False}, 0.4, 0.2),
        ({"image_processor_type": "EfficientNetImageProcessor"}, 0.4, 0.04),
        ({"image_processor_type": "ViTImageProcessor"}, 0.4, 0.2),
    ],
)
def test_constants_of_processors_are_told_for_pixels_from_0_to_1(more, mean, std):
    prepared = {"image_mean": [more.pop("mean", 0.4)], **more}
    prepared["image_std"] = [prepared.pop("std", 0.2)]
    found = configs.constants(prepared)
    assert found["mean"] == pytest.approx([mean])
    assert found["std"] == pytest.approx([std])


def test_timms_name_counts_in_hugging_faces_wrapper():
    wrapped = {"architectures": ["TimmWrapperForImageClassification"], **TIMM}
    module = models.create("efficientnet_b0", num_classes=5, stem="imagenet")
    assert configs.stem(wrapped, "efficientnet_b0", module) == "tf"
    wrapped["architecture"] = "efficientnet_b0"
    assert configs.stem(wrapped, "efficientnet_b0", module) == "imagenet"


@pytest.mark.parametrize(
    "more",
    [
        {"rescale_factor": 0},
        {"rescale_factor": "x"},
        {"rescale_factor": -1e-300},
        {"image_std": [1e300], "include_top": True},
        {"image_std": [1e-200], "include_top": True},
        {"rescale_factor": 5e-324},
    ],
)
def test_constants_that_no_processor_has_are_not_taken(more, tmp_path):
    found = read(tmp_path, {}, {"image_mean": [0.5], "image_std": [0.5], **more})
    assert found.normalisation is None


def test_a_crop_that_is_off_is_no_size_of_images(tmp_path):
    size = {"height": 64, "width": 64}
    found = read(tmp_path, {}, {**PREPARED, "size": size, "do_center_crop": False})
    told = "config.json: the network's images have 64x64 pixels, bicubic resizing"
    assert told in found.notes


def test_a_config_of_another_number_of_classes_is_noted(tmp_path):
    found = read(tmp_path, {"id2label": {"0": "one", "1": "two"}})
    assert "config.json says 2 classes, the last layer has 5" in found.notes


def test_a_config_of_another_network_chooses_nothing(tmp_path):
    found = read(tmp_path, {"architecture": "tf_mobilenetv3_small_100"})
    assert found.spec.stem == "imagenet"
    assert any(note.endswith("is assumed") for note in found.notes)


@pytest.mark.parametrize(
    "config, prepared, named",
    [
        ({"architecture": 3}, None, "architecture"),
        ({"image_size": "large"}, None, "the image size"),
        ({"image_size": 10**9}, None, "the image size"),
        (
            {"pretrained_cfg": {"input_size": [3, 8, 8], "crop_pct": 7}},
            None,
            "crop_pct",
        ),
        (
            {"pretrained_cfg": {"input_size": [3, 8, 8], "interpolation": ["x"]}},
            None,
            "interpolation",
        ),
        ({"id2label": {"0": 1}}, None, "the names of classes"),
        ({}, {"size": {"height": None}, "image_mean": "x"}, None),
    ],
)
def test_what_is_of_another_kind_is_named_and_left_out(
    config, prepared, named, tmp_path
):
    found = read(tmp_path, config, prepared)
    told = f"config.json is not of the expected kind in {named}"
    assert found.spec == SPEC_OF_FILE and found.normalisation is None
    assert (told in found.notes) == (named is not None)


@pytest.mark.parametrize(
    ("mean", "std"), [(0.5, 1e-38), (0.5, 1e30), (0.0, 1e-4), (1e9, 58.0), (-2e3, 0.2)]
)
def test_constants_that_make_a_network_blind_are_not_taken(mean, std, tmp_path):
    found = read(tmp_path, {"mean": [mean] * 3, "std": [std] * 3})
    assert found.normalisation is None
    assert any("none of images: it is not taken" in note for note in found.notes)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1 / 255), (123.0, 58.0), (123.0, 1.0)])
def test_constants_of_networks_for_bytes_are_taken(mean, std, tmp_path):
    found = read(tmp_path, {"mean": [mean] * 3, "std": [std] * 3})
    assert found.normalisation is not None


def timm(**changes):
    return {"pretrained_cfg": {**TIMM["pretrained_cfg"], **changes}}


SQUARE = {"height": 224, "width": 224}


@pytest.mark.parametrize(
    "config, prepared, expected",
    [
        (TIMM, {}, (224, 0.875, "bicubic", False)),
        (timm(crop_mode="squash", crop_pct=1), {}, (224, 1.0, "bicubic", True)),
        (timm(interpolation="random"), {}, (224, 0.875, "bilinear", False)),
        ({"image_size": 64}, {}, (64, 1.0, "bilinear", True)),
        (TIMM, {"size": SQUARE, "resample": 3}, (224, 1.0, "bicubic", True)),
        ({}, {"size": 224}, (224, 1.0, "bilinear", True)),
        (
            {},
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
            (224, 0.875, "bilinear", False),
        ),
        (
            {},
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
            (384, 1.0, "bilinear", True),
        ),
    ],
)
def test_configs_say_how_images_are_prepared(config, prepared, expected):
    assert configs.preparation(config, prepared) == expected


@pytest.mark.parametrize("short", [225, 235, 255, 256, 300, 447])
def test_a_side_and_the_middle_of_it_are_kept_whatever_division_makes(short):
    prepared = {"size": {"shortest_edge": short}, "crop_size": SQUARE}
    found = configs.preparation({}, prepared)
    assert (found.size, found.short, found.squeezed) == (224, short, False)
    prepared = {"size": {"height": short, "width": short}, "crop_size": 224}
    assert configs.preparation({}, prepared).squeezed


@pytest.mark.parametrize(
    "config, prepared",
    [
        ({}, {}),
        (timm(input_size=[3, 224, 192]), {}),
        (timm(input_size=[3, 4096, 4096]), {}),
        (timm(input_size=[3, 2, 2]), {}),
        (timm(input_size=224.0), {}),
        (timm(crop_pct=0.1), {}),
        (timm(crop_pct=float("nan")), {}),
        (timm(crop_pct="0.9"), {}),
        (timm(interpolation="box"), {}),
        (timm(interpolation=["bicubic"]), {}),
        ({}, {"size": {"shortest_edge": 224}}),
        ({}, {"size": 10**400, "crop_size": 224}),
        ({}, {"size": 64, "crop_size": 224}),
        ({}, {"size": 224, "do_resize": False}),
        ({}, {"size": {"height": 224, "width": None}}),
        ({}, {"size": 224, "resample": [3]}),
    ],
)
def test_what_would_hide_a_trigger_or_fill_the_memory_is_not_prepared(config, prepared):
    assert configs.preparation(config, prepared) is None


def test_a_note_says_that_such_images_are_not_prepared(tmp_path):
    found = read(tmp_path, timm(crop_pct=0.1))
    assert any("does not prepare images so" in note for note in found.notes)


SPEC_OF_FILE = checkpoints.ModelSpec.of(
    "efficientnet_b0", num_classes=5, width=8, stem="imagenet"
)


def test_attention_heads_are_those_hugging_face_counts():
    vit = checkpoints.ModelSpec.of("vit", num_classes=5, width=96, depth=2)
    module = vit.create()
    for stem in module.alike:
        config = {"num_attention_heads": module.heads(stem)}
        assert configs.stem(config, "vit", module) == stem
    assert configs.stem({"num_attention_heads": 7}, "vit", module) is None
