"""Every source of images, and every way it can disappoint."""

import os
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ban_jax import data
from ban_jax.data import preparation, sources

SHARED = os.path.join(os.path.dirname(__file__), *[".."] * 3, "shared", "tfds")


def test_digits_are_split_once_and_for_all():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    assert train.pixels.shape == (1200, 8, 8, 1) and len(test.labels) == 597
    assert train.images.dtype == np.float32
    assert train.images.min() == 0 and train.images.max() == 1
    assert train.num_classes == 10 and train.class_names == tuple("0123456789")
    rows = {image.tobytes() for image in train.pixels}
    assert not any(image.tobytes() in rows for image in test.pixels)


def test_digits_are_embedded_wherever_other_data_lie():
    plain, beside = (
        data.load("digits", num=7),
        data.load("digits", data_dir="/d", num=7),
    )
    np.testing.assert_array_equal(plain.pixels, beside.pixels)


def test_digits_are_read_from_the_file_as_scikit_learn_does(monkeypatch):
    """Without importing it where the file lies where it is known to lie."""
    whole = sources._digits_table()
    monkeypatch.setattr(sources.os.path, "isfile", lambda path: False)
    np.testing.assert_array_equal(sources._digits_table(), whole)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match="digits needs scikit-learn"):
        data.load("digits")


def test_a_choice_is_random_by_seed_and_nested_in_larger_ones():
    small, large, other = (
        data.load("digits", num=num, seed=seed)
        for num, seed in ((20, 1), (40, 1), (20, 2))
    )
    np.testing.assert_array_equal(small.pixels, large.pixels[:20])
    np.testing.assert_array_equal(small.labels, large.labels[:20])
    assert np.any(small.pixels != other.pixels)
    everything = data.load("digits").pixels
    assert np.any(small.pixels != everything[:20])


@pytest.mark.parametrize("num", [0, -3, 598])
def test_a_choice_larger_than_the_split_is_refused(num):
    with pytest.raises(data.DataError, match=f"{num} images wanted, split 'test' has"):
        data.load("digits", num=num)


def test_at_most_takes_what_there_is():
    assert len(data.load("digits", num=598, at_most=True).labels) == 597
    with pytest.raises(data.DataError, match="0 images wanted"):
        data.load("digits", num=0, at_most=True)


def test_digits_have_no_third_split():
    with pytest.raises(data.DataError, match="splits train and test, not 'val'"):
        data.load("digits", split="val")


# .npz files


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


BYTES = np.random.RandomState(0).randint(0, 256, (6, 5, 4, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_npz_bytes_become_floats_in_the_unit_interval(tmp_path):
    path = save(tmp_path / "a.npz", images=BYTES, labels=LABELS)
    dataset = data.load(path)
    np.testing.assert_allclose(dataset.images, BYTES / 255, rtol=1e-6)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.num_classes == 3 and dataset.split == "all"
    assert dataset.labels.dtype == np.int32


def test_npz_floats_and_grey_images_are_taken_as_they_are(tmp_path):
    grey = np.random.RandomState(0).rand(6, 5, 4)
    dataset = data.load(save(tmp_path / "a.npz", images=grey, labels=LABELS))
    np.testing.assert_allclose(dataset.images[..., 0], grey, rtol=1e-6)
    assert dataset.image_shape == (5, 4, 1)


def test_npz_may_hold_several_splits(tmp_path):
    path = save(
        tmp_path / "a.npz",
        train_images=BYTES,
        train_labels=LABELS,
        test_images=BYTES[:2],
        test_labels=LABELS[:2],
    )
    assert len(data.load(path, split="train").labels) == 6
    test = data.load(path)
    assert len(test.labels) == 2 and test.split == "test"
    with pytest.raises(data.DataError, match="val_images and val_labels"):
        data.load(path, split="val")


def test_npz_class_names_set_the_class_count(tmp_path):
    names = np.array(["cat", "dog", "emu", "fox"])
    path = save(tmp_path / "a.npz", images=BYTES, labels=LABELS, class_names=names)
    dataset = data.load(path)
    assert dataset.class_names == ("cat", "dog", "emu", "fox")
    assert dataset.num_classes == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": BYTES}, "expected the arrays test_images and test_labels"),
        ({"images": BYTES[0, 0], "labels": LABELS}, "N, H, W, C"),
        ({"images": BYTES.swapaxes(1, 3), "labels": LABELS}, "1 or 3 channels"),
        ({"images": BYTES, "labels": LABELS[:5]}, "6 integers, got"),
        ({"images": BYTES, "labels": LABELS / 2}, "6 integers, got float64"),
        ({"images": BYTES.astype(np.int64), "labels": LABELS}, "uint8, or float"),
        ({"images": BYTES / 1.0, "labels": LABELS}, "values from 0 to 255"),
        ({"images": BYTES * np.nan, "labels": LABELS}, "before any normalisation"),
        ({"images": BYTES, "labels": LABELS - 1}, r"must be in 0\.\.1, found -1"),
        ({"images": BYTES, "labels": LABELS + 2**32}, r"\.\.4294967298"),
        ({"images": BYTES}, "expected the arrays images and labels, found images"),
        ({"images": BYTES[:0], "labels": LABELS[:0]}, "no image in split"),
        (
            {"images": BYTES, "labels": LABELS, "class_names": np.array(["a", "b"])},
            r"must be in 0\.\.1, found 0\.\.2",
        ),
    ],
)
def test_an_npz_of_the_wrong_content_says_what_is_wrong(tmp_path, arrays, message):
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(path)
    assert "bad.npz" in str(caught.value)


def test_object_arrays_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    images = np.array([Bomb()], dtype=object)
    path = save(tmp_path / "a.npz", images=images, labels=LABELS[:1])
    with pytest.raises(data.DataError, match="plain arrays"):
        data.load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(data.DataError, match="a.npz: not a readable .npz") as caught:
        data.load(str(path))
    assert "pickle" not in str(caught.value)  # NumPy advises to load it so


def test_a_missing_file_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="no such file"):
        data.load(str(tmp_path / "none.npz"))
    with pytest.raises(data.DataError, match="no such file or folder"):
        data.load(str(tmp_path / "none"))
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(data.DataError, match="expected an .npz file or a folder"):
        data.load(str(tmp_path / "a.csv"))


# Image folders


def picture(path, value, size=(6, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def test_a_folder_gives_classes_in_sorted_order(tmp_path):
    for number, name in enumerate(["b/2.png", "a/1.png", "a/0.png", "c/x.PNG"]):
        picture(tmp_path / name, number)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    dataset = data.load(str(tmp_path))
    assert dataset.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 2])
    assert dataset.pixels.shape == (4, 5, 6, 3)
    np.testing.assert_array_equal(dataset.pixels[:, 0, 0, 0], [2, 1, 0, 3])


def test_a_folder_with_splits_gives_the_one_asked_for(tmp_path):
    picture(tmp_path / "train" / "a" / "0.png", 1)
    picture(tmp_path / "val" / "a" / "0.png", 2)
    assert data.load(str(tmp_path), split="train").pixels[0, 0, 0, 0] == 1
    test = data.load(str(tmp_path), split="test")
    assert test.pixels[0, 0, 0, 0] == 2 and test.split == "test"
    with pytest.raises(data.DataError, match="no split 'dev', found train, val"):
        data.load(str(tmp_path), split="dev")


def test_grey_images_keep_one_channel_unless_one_has_colour(tmp_path):
    picture(tmp_path / "a" / "0.png", 9, mode="L")
    assert data.load(str(tmp_path)).image_shape == (5, 6, 1)
    picture(tmp_path / "a" / "1.png", 9)
    dataset = data.load(str(tmp_path))
    assert dataset.image_shape == (5, 6, 3)
    np.testing.assert_array_equal(dataset.pixels[0, 0, 0], [9, 9, 9])


def test_images_of_several_sizes_are_listed_and_can_be_resized(tmp_path):
    for index in range(3):
        picture(tmp_path / "a" / f"{index}.png", 7)
    picture(tmp_path / "b" / "odd.png", 7, size=(9, 9))
    with pytest.raises(data.DataError, match=r"3 of 4 are 5x6x3, but .*odd.png 9x9x3"):
        data.load(str(tmp_path))
    dataset = data.load(str(tmp_path), image_size=4)
    assert dataset.pixels.shape == (4, 4, 4, 3)
    assert set(dataset.pixels[..., 0].ravel()) == {7}


@pytest.mark.parametrize("split", ["test", "attacker"])
def test_a_folder_that_may_not_be_read_is_told_of(split, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(data.DataError, match="cannot be read: Permission denied"):
        data.load(str(tmp_path), split=split)


@pytest.mark.parametrize("size", [0, -4, preparation.Preparation(0)])
def test_a_size_that_cannot_be_is_refused_by_its_flag(size):
    with pytest.raises(ValueError, match="--image-size.* at least 1, got"):
        data.load("digits", image_size=size)


def test_npz_images_can_be_resized_too(tmp_path):
    path = save(tmp_path / "a.npz", images=BYTES / 255, labels=LABELS)
    assert data.load(path, image_size=8).pixels.shape == (6, 8, 8, 3)


def test_a_broken_image_is_named(tmp_path):
    picture(tmp_path / "a" / "0.png", 7)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[:40])
    with pytest.raises(data.DataError, match="cut.png: not a readable image"):
        data.load(str(tmp_path))


def test_folders_that_programs_leave_are_no_classes_and_pipes_no_images(tmp_path):
    for name, shade in (("a", 7), ("b", 8)):
        picture(tmp_path / name / "0.png", shade)
    for name in (".git", ".ipynb_checkpoints", "__MACOSX"):
        picture(tmp_path / name / "0.png", 9)
    os.mkfifo(tmp_path / "a" / "1.png")
    found = data.load(str(tmp_path))
    assert found.class_names == ("a", "b") and found.labels.tolist() == [0, 1]


def test_a_folder_without_class_folders_or_images_is_refused(tmp_path):
    picture(tmp_path / "flat" / "0.png", 7)
    with pytest.raises(data.DataError, match="one subfolder .*found 0.png"):
        data.load(str(tmp_path / "flat"))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(data.DataError, match="without any image"):
        data.load(str(tmp_path / "empty"))


# TFDS


class Records:
    """The part of `tfds.data_source`'s result that is used; counts what is decoded."""

    def __init__(self, features=("image", "label")):
        label = types.SimpleNamespace(names=["cat", "dog"])
        self.dataset_info = types.SimpleNamespace(
            features=dict.fromkeys(features, label)
        )
        self.decoded = []

    def __len__(self):
        return 50

    def __getitems__(self, indices):
        self.decoded += indices
        return [
            {"image": np.full((4, 4, 3), i, np.uint8), "label": i % 2} for i in indices
        ]


def test_tfds_decodes_only_the_images_asked_for(monkeypatch):
    import tensorflow_datasets

    records, asked = Records(), {}

    def data_source(name, **arguments):
        asked.update(name=name, **arguments)
        return records

    monkeypatch.setattr(tensorflow_datasets, "data_source", data_source)
    dataset = data.load("cats", data_dir="/data", num=7, seed=3)
    assert asked == {
        "name": "cats", "split": "test", "data_dir": "/data", "download": False,
    }  # fmt: skip
    assert len(records.decoded) == 7
    np.testing.assert_array_equal(dataset.pixels[:, 0, 0, 0], records.decoded)
    np.testing.assert_array_equal(dataset.labels, np.array(records.decoded) % 2)
    assert dataset.class_names == ("cat", "dog")


def test_tfds_sets_without_labels_are_refused(monkeypatch):
    import tensorflow_datasets

    records = Records(features=("image", "box"))
    monkeypatch.setattr(tensorflow_datasets, "data_source", lambda *a, **k: records)
    with pytest.raises(data.DataError, match="no label; found image, box"):
        data.load("boxes")


@pytest.mark.parametrize("error", [NotImplementedError, KeyError, AssertionError])
def test_whatever_tfds_raises_for_absent_data_one_message_names_the_remedy(
    monkeypatch, error
):
    import tensorflow_datasets

    def data_source(*arguments, **settings):
        raise error("cifar10")

    monkeypatch.setattr(tensorflow_datasets, "data_source", data_source)
    with pytest.raises(data.DataError, match="`ban-jax prepare cifar10 --data-dir /d`"):
        data.load("cifar10", data_dir="/d")


def test_an_unprepared_tfds_set_names_the_command_that_prepares_it(tmp_path):
    with pytest.raises(data.DataError, match="`ban-jax prepare cifar10 --data-dir"):
        data.load("cifar10", data_dir=str(tmp_path))


def test_an_unknown_name_suggests_near_ones(tmp_path):
    with pytest.raises(data.DataError, match="did you mean cifar10"):
        data.load("cifar-10", data_dir=str(tmp_path))


@pytest.mark.skipif(not os.path.isdir(SHARED), reason="no prepared CIFAR-10 at hand")
def test_a_prepared_cifar10_is_read():
    dataset = data.load("cifar10", data_dir=SHARED, num=20)
    assert dataset.pixels.shape == (20, 32, 32, 3) and dataset.num_classes == 10
    assert dataset.class_names is not None and "frog" in dataset.class_names
    with pytest.raises(data.DataError, match="no split 'dev'"):
        data.load("cifar10", data_dir=SHARED, split="dev")


def test_preparing_without_tensorflow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(data.DataError, match="its extra `prepare`"):
        data.prepare("cifar10")


def test_a_data_set_that_cannot_be_prepared_is_told_of_in_a_sentence(monkeypatch):
    def builder(name, **told):
        raise RuntimeError("no such server")

    tfds = types.SimpleNamespace(builder=builder)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    with pytest.raises(data.DataError, match="cannot be prepared: no such server"):
        data.prepare("cifar10")


# The defender's part


def test_the_order_is_the_one_ban_divides_cifar10_by():
    order = data.split_order(50000)
    assert order[:10].tolist() == [
        36044, 49165, 37807, 11341, 6091, 16904, 36293, 28026, 24681, 17849
    ]  # fmt: skip
    assert order[[499, 2499, 4999]].tolist() == [9082, 21777, 3672]
    assert order[:5000].sum() == 124322501
    np.testing.assert_array_equal(np.sort(order), np.arange(50000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 1000, 39209])
def test_the_order_is_torchs(count):
    torch = pytest.importorskip("torch")
    expected = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(data.split_order(count), expected.numpy())


@pytest.mark.parametrize("count", [9, 10, 1000, 1009, 39209])
def test_the_parts_are_those_of_torchs_random_split(tmp_path, count):
    torch_data = pytest.importorskip("torch.utils.data")
    generator = pytest.importorskip("torch").Generator().manual_seed(0)
    held_out, rest = torch_data.random_split(range(count), [0.1, 0.9], generator)
    path = numbered(tmp_path / "a.npz", count)
    assert numbers(data.load(path, split="defender")) == list(held_out)
    assert numbers(data.load(path, split="attacker")) == sorted(rest)


def numbered(path, count):
    """Training images that hold their own number."""
    images = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 2, 2)
    labels = np.arange(count) % 10
    one = {"test_images": images[:1], "test_labels": labels[:1]}
    return save(path, train_images=images, train_labels=labels, **one)


def numbers(dataset):
    return dataset.pixels.ravel().view(np.uint32).tolist()


def test_smaller_choices_of_the_defender_are_the_first_of_larger_ones(tmp_path):
    path = numbered(tmp_path / "a.npz", 1000)
    tenth = data.load(path, split="defender")
    assert numbers(tenth) == data.split_order(1000)[:100].tolist()
    assert tenth.split == "defender" and tenth.num_classes == 10
    for num, seed in ((10, 0), (50, 0), (50, 7), (100, 7)):
        part = data.load(path, split="defender", num=num, seed=seed)
        assert numbers(part) == numbers(tenth)[:num]
        np.testing.assert_array_equal(part.labels, np.array(numbers(part)) % 10)
    with pytest.raises(data.DataError, match="101 images wanted, split 'defender' has"):
        data.load(path, split="defender", num=101)


def test_choices_of_the_attacker_are_random_by_seed(tmp_path):
    path = numbered(tmp_path / "a.npz", 1000)
    rest = numbers(data.load(path, split="attacker"))
    assert rest == sorted(rest) and len(rest) == 900
    one, other = (
        numbers(data.load(path, split="attacker", num=40, seed=seed)) for seed in (0, 1)
    )
    assert one != other and set(one) | set(other) <= set(rest)
    assert one == numbers(data.load(path, split="attacker", num=80))[:40]


def folder_of_images(path):
    for index in range(25):
        picture(path / "train" / "abc"[index % 3] / f"{index}.png", index)
    picture(path / "test" / "a" / "0.png", 200)
    return str(path)


@pytest.mark.parametrize("kind", ["digits", "npz", "folder", "tfds"])
def test_every_kind_of_source_is_divided_without_overlap_or_loss(
    tmp_path, monkeypatch, kind
):
    import tensorflow_datasets

    monkeypatch.setattr(tensorflow_datasets, "data_source", lambda *a, **k: Records())
    name, count = {
        "digits": lambda: ("digits", 1200),
        "npz": lambda: (numbered(tmp_path / "a.npz", 333), 333),
        "folder": lambda: (folder_of_images(tmp_path), 25),
        "tfds": lambda: ("cats", 50),
    }[kind]()
    whole, defender, attacker = (
        data.load(name, split=split) for split in ("train", "defender", "attacker")
    )
    order = data.split_order(count)
    held_out = -(-count // 10)
    np.testing.assert_array_equal(defender.pixels, whole.pixels[order[:held_out]])
    np.testing.assert_array_equal(defender.labels, whole.labels[order[:held_out]])
    rest = np.sort(order[held_out:])
    np.testing.assert_array_equal(attacker.pixels, whole.pixels[rest])
    np.testing.assert_array_equal(attacker.labels, whole.labels[rest])
    assert (defender.split, attacker.split) == ("defender", "attacker")


def test_of_the_defenders_part_only_the_images_asked_for_are_decoded(monkeypatch):
    import tensorflow_datasets

    records, splits = Records(), []

    def data_source(name, *, split, **arguments):
        splits.append(split)
        return records

    monkeypatch.setattr(tensorflow_datasets, "data_source", data_source)
    data.load("cats", split="defender", num=3)
    assert records.decoded == data.split_order(50)[:3].tolist() and splits == ["train"]


@pytest.mark.parametrize("split", ["defender", "attacker"])
def test_a_source_without_training_images_has_no_parts(tmp_path, split):
    path = save(tmp_path / "one.npz", images=BYTES, labels=LABELS)
    with pytest.raises(data.DataError, match="one.npz: .*train_images .* are needed"):
        data.load(path, split=split)
    path = save(tmp_path / "test.npz", test_images=BYTES, test_labels=LABELS)
    message = (
        f"{split}' is cut from the train split: .*expected the arrays train_images"
    )
    with pytest.raises(data.DataError, match=message):
        data.load(path, split=split)
    picture(tmp_path / "plain" / "a" / "0.png", 1)
    with pytest.raises(data.DataError, match="a subfolder train"):
        data.load(str(tmp_path / "plain"), split=split)
    picture(tmp_path / "tested" / "test" / "a" / "0.png", 1)
    with pytest.raises(data.DataError, match="no split 'train', found test"):
        data.load(str(tmp_path / "tested"), split=split)


@pytest.mark.skipif(not os.path.isdir(SHARED), reason="no prepared CIFAR-10 at hand")
def test_the_defenders_part_of_a_prepared_cifar10_is_read():
    first, more = (
        data.load("cifar10", data_dir=SHARED, split="defender", num=num)
        for num in (5, 20)
    )
    np.testing.assert_array_equal(first.pixels, more.pixels[:5])
    with pytest.raises(data.DataError, match="split 'defender' has 5000"):
        data.load("cifar10", data_dir=SHARED, split="defender", num=5001)


def test_errors_are_value_errors_so_that_the_command_line_explains_them():
    assert issubclass(sources.DataError, ValueError)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_pixels_of_more_than_eight_bits_are_refused_not_cut_off(dtype, tmp_path):
    (tmp_path / "a").mkdir()
    ramp = np.arange(64, dtype=dtype).reshape(8, 8) * 1000
    Image.fromarray(ramp).save(tmp_path / "a" / "0.tif")
    with pytest.raises(data.DataError, match=r"0\.tif: expected pixels of 8 bits"):
        data.load(str(tmp_path))
