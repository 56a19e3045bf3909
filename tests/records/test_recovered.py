"""Recovered images stay few and small in a line."""

import base64
import io
import json

import numpy as np
from PIL import Image

from ban_jax.detectors import evidence
from ban_jax.records import recovered


def found(num_classes, side, **changes):
    """Evidence with a picture per class, whose brightness is the class's share."""
    vector = np.arange(num_classes, dtype=np.float32)
    shade = np.linspace(0, 1, num_classes, dtype=np.float32)[:, None, None, None]
    images = np.broadcast_to(shade, (num_classes, side, side, 3))
    return evidence.Evidence(
        {"size": vector, "other": -vector}, {}, np.nan, True, images={"trigger": images}
    )._replace(**changes)


def opened(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_up_to_the_bound_every_class_keeps_its_picture():
    kept = recovered.pngs(found(recovered.MOST_CLASSES, 4))["trigger"]
    assert all(kept) and len(kept) == recovered.MOST_CLASSES
    assert [opened(one).mean() for one in kept] == sorted(
        opened(one).mean() for one in kept
    )


def test_of_many_classes_those_that_stand_out_in_the_first_vector_keep_theirs():
    vector = np.arange(200, dtype=np.float32)
    vector[[3, 5]] = 1e6, np.nan
    kept = recovered.pngs(found(200, 4, vectors={"size": vector}))["trigger"]
    assert len(kept) == 200
    places = [k for k, one in enumerate(kept) if one]
    assert places == [3, *range(200 - recovered.MOST_CLASSES + 1, 200)]


def test_a_large_picture_is_averaged_down_and_a_small_one_is_kept_as_it_is():
    images = np.zeros((1, 224, 200, 3), np.float32)
    images[0, :, 100:] = 1.0
    large = opened(recovered.pngs(found(1, 4, images={"a": images}))["a"][0])
    assert large.shape == (74, 66, 3)
    assert large[:, 0].max() == 0 and large[:, -1].min() == 255
    assert opened(recovered.pngs(found(1, 96))["trigger"][0]).shape == (96, 96, 3)


def test_without_pictures_there_are_none():
    assert recovered.pngs(found(2, 4, images={})) == {}


def strongest(change):
    return {
        "target": np.int32(7),
        "corner": np.array([28, 5], np.int32),
        "change": np.asarray(change, np.float32),
    }


def test_a_patch_is_kept_with_class_and_place_and_reads_back_to_a_127th():
    change = np.linspace(-1, 1, 27).reshape(3, 3, 3)
    told = recovered.info({"curves": {}, "patch": strongest(change)})
    assert json.loads(json.dumps(told)) == told
    assert told["curves"] == {}
    encoded = told["patch"].pop("change")
    assert told["patch"] == {
        "class": 7,
        "row": 28,
        "column": 5,
        "side": 3,
        "channels": 3,
    }
    back = np.frombuffer(base64.b64decode(encoded), np.int8).reshape(3, 3, 3) / 127
    np.testing.assert_allclose(back, change, atol=0.5 / 127 + 1e-6)
    assert back.min() == -1.0 and back.max() == 1.0 and back[1, 1, 1] == 0.0


def test_a_patch_that_is_not_finite_is_none():
    change = np.full((1, 1, 3), np.nan)
    assert recovered.info({"patch": strongest(change)}) == {}
    assert recovered.info({"histogram": 3}) == {"histogram": 3}
