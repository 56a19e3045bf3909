"""Folders as their authors publish them, and as they arrive: incomplete or renamed."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ban_jax import data

COLUMNS = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2"]
BOX = [8, 8, 1, 1, 6, 6]


def picture(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255)).save(path)


def table(path, separator, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(map(str, cells)) for cells in [header, *rows]]
    path.write_text("\r\n".join(lines) + "\r\n")


def reds(dataset):
    return dataset.pixels[:, 0, 0, 0].tolist()


# GTSRB

TRAIN = {("00001_00000", 1): 11, ("00000_00001", 0): 2, ("00000_00000", 0): 1}
TEST = {"00000": (21, 42), "00001": (22, 0), "00002": (23, 7)}
HEADER = ["Filename", *COLUMNS, "ClassId"]


def official(base):
    """Two of the 43 classes, out of order and of several sizes."""
    for label in (0, 1):
        folder = base / "Final_Training" / "Images" / f"{label:05}"
        rows = []
        for (name, own), value in TRAIN.items():
            if own == label:
                picture(folder / f"{name}.ppm", value, (8 + value, 9))
                rows.append([f"{name}.ppm", *BOX, label])
        table(folder / f"GT-{label:05}.csv", ";", HEADER, rows)
    images = base / "Final_Test" / "Images"
    for name, (value, _) in TEST.items():
        picture(images / f"{name}.ppm", value, (value, 20))
    unlabelled = [[f"{name}.ppm", *BOX] for name in TEST]
    table(images / "GT-final_test.test.csv", ";", HEADER[:-1], unlabelled)
    labels = [[f"{name}.ppm", *BOX, label] for name, (_, label) in TEST.items()]
    table(images / "GT-final_test.csv", ";", HEADER, labels)
    return base


def repackaged(base):
    header, train, test = [*COLUMNS, "ClassId", "Path"], [], []
    for (name, label), value in TRAIN.items():
        file = f"Train/{label}/{label:05}_{name}.png"
        picture(base / file, value, (8 + value, 9))
        train.append([*BOX, label, file])
    for name, (value, label) in TEST.items():
        picture(base / f"Test/{name}.png", value)
        test.append([*BOX, label, f"Test/{name}.png"])
    table(base / "Train.csv", ",", header, train)
    table(base / "Test.csv", ",", header, test)
    return base


def small(path):
    return {"image_size": 8, "name_or_path": str(path)}


@pytest.mark.parametrize("make", [official, repackaged])
@pytest.mark.parametrize("inside", ["", "GTSRB"])
def test_gtsrb_gives_the_same_images_in_both_of_its_layouts(tmp_path, make, inside):
    make(tmp_path / inside)
    train = data.load(**small(tmp_path), split="train")
    assert reds(train) == [1, 2, 11] and train.labels.tolist() == [0, 0, 1]
    assert train.split == "train" and train.num_classes == 43
    assert train.class_names == tuple(str(number) for number in range(43))
    test = data.load(**small(tmp_path))
    assert reds(test) == [21, 22, 23] and test.labels.tolist() == [42, 0, 7]
    assert test.split == "test" and test.num_classes == 43


def test_gtsrb_in_its_corrected_archive_is_read(tmp_path):
    base = official(tmp_path / "GTSRB")
    (base / "Final_Training" / "Images").rename(base / "Training")
    (base / "Final_Training").rmdir()
    assert reds(data.load(**small(tmp_path), split="train")) == [1, 2, 11]
    shutil.rmtree(base / "Final_Test")
    assert reds(data.load(**small(tmp_path), split="train")) == [1, 2, 11]


@pytest.mark.parametrize("place", ["GTSRB/Final_Test", "GTSRB", ""])
def test_gtsrb_test_labels_are_found_where_people_put_them(tmp_path, place):
    base = official(tmp_path / "GTSRB")
    name = "GT-final_test.csv"
    (base / "Final_Test" / "Images" / name).rename(tmp_path / place / name)
    assert data.load(**small(tmp_path)).labels.tolist() == [42, 0, 7]


def test_gtsrb_images_need_a_size_and_keep_their_border(tmp_path):
    base = official(tmp_path)
    with pytest.raises(data.DataError, match="1 of 3 are .*ppm.*--image-size 32"):
        data.load(str(base))
    file = base / "Final_Test" / "Images" / "00000.ppm"
    framed = Image.open(file)
    framed.putpixel((0, 0), (255, 255, 255))
    framed.save(file)
    first = data.load(str(base), image_size=64).pixels[0]
    assert first[0, 0, 1] == 255


def test_gtsrb_without_the_labels_of_its_test_images_says_which_file_has_them(tmp_path):
    base = official(tmp_path)
    labels = base / "Final_Test" / "Images" / "GT-final_test.csv"
    unlabelled = labels.with_name("GT-final_test.test.csv")
    labels.unlink()
    with pytest.raises(
        data.DataError, match=r"Images: expected GT-final_test.csv, .*Test_GT.zip"
    ):
        data.load(**small(base))
    unlabelled.rename(labels)
    with pytest.raises(
        data.DataError, match="GT-final_test.csv: expected .*ClassId.*found 'Filename'"
    ):
        data.load(**small(base))


def test_gtsrb_lacking_a_part_says_what_is_expected_and_found(tmp_path):
    base = official(tmp_path / "a")
    with pytest.raises(data.DataError, match="splits train and test, not 'val'"):
        data.load(**small(base), split="val")
    (base / "Final_Training" / "Images" / "00001" / "GT-00001.csv").unlink()
    with pytest.raises(
        data.DataError, match="00001: expected GT-00001.csv; found 00001_00000.ppm"
    ):
        data.load(**small(base), split="train")
    shutil.rmtree(base / "Final_Training")
    with pytest.raises(
        data.DataError, match="expected the folder Final_Training/Images; found Final_T"
    ):
        data.load(**small(base), split="train")
    base = repackaged(tmp_path / "b")
    (base / "Test.csv").unlink()
    with pytest.raises(
        data.DataError, match="expected Test.csv; found Test, Train, Train.csv"
    ):
        data.load(**small(base))


def test_gtsrb_labels_that_contradict_their_folder_are_refused(tmp_path):
    base = official(tmp_path)
    row = ["00001_00000.ppm", *BOX, 5]
    file = base / "Final_Training" / "Images" / "00001" / "GT-00001.csv"
    table(file, ";", HEADER, [row])
    with pytest.raises(data.DataError, match="expected ClassId 00001 .* found 5"):
        data.load(**small(base), split="train")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([43, "Test/00000.png"], r"line 3: expected a ClassId in 0\.\.42, found '43'"),
        ([-1, "Test/00000.png"], "found '-1'"),
        (["x", "Test/00000.png"], "found 'x'"),
        (["9" * 5000, "Test/00000.png"], "expected a ClassId"),
        ([""], "found ''"),
        ([1], "line 3: expected a name inside the folder, found ''"),
        ([1, "/etc/passwd"], "inside the folder, found '/etc/passwd'"),
        ([1, "Test/../../a.png"], "inside the folder"),
        ([1, "Test\\..\\..\\a.png"], "inside the folder"),
        ([1, "C:\\a.png"], "inside the folder"),
        ([1, "Test/a\0.png"], "inside the folder"),
        ([1, "Test/00000.png"], "1 images are named more than once: .*00000.png"),
        ([1, "Test"], "1 of the 2 images named are missing"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(tmp_path, cells, message):
    base = repackaged(tmp_path)
    good = [*BOX, 1, "Test/00000.png"]
    header = [*COLUMNS, "ClassId", "Path"]
    table(base / "Test.csv", ",", header, [good, [*BOX, *cells]])
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(**small(base))
    assert "Test.csv" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\r\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    base = repackaged(tmp_path)
    (base / "Test.csv").write_bytes(content)
    with pytest.raises(data.DataError, match="Test.csv: (expected the col|not a read)"):
        data.load(**small(base))


def test_missing_images_are_counted_and_the_first_are_named(tmp_path):
    base = official(tmp_path / "a")
    (base / "Final_Training" / "Images" / "00000" / "00000_00001.ppm").unlink()
    with pytest.raises(
        data.DataError, match=r"GT-\*.csv: 1 of the 3 .* missing: '.*00000_00001.ppm'"
    ):
        data.load(**small(base), split="train")
    base = repackaged(tmp_path / "b")
    for name in ("00000", "00002"):
        (base / "Test" / f"{name}.png").unlink()
    with pytest.raises(
        data.DataError, match="Test.csv: 2 of the 3 .* missing: .*00000.png.*00002.png"
    ):
        data.load(**small(base))


def test_only_the_images_asked_for_are_opened(tmp_path):
    base = repackaged(tmp_path)
    order = np.random.RandomState(0).permutation(3)
    (base / "Test" / f"0000{order[2]}.png").write_bytes(b"broken")
    assert len(data.load(**small(base), num=2).labels) == 2
    with pytest.raises(data.DataError, match="not a readable image"):
        data.load(**small(base))


# Tiny-ImageNet and ImageNet-200

WNIDS = ["n02", "n01", "n10", "n03"]
VAL = [("val_0", "n10", 50), ("val_1", "n01", 51), ("val_2", "n02", 52)]
WORDS = "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn10\tcrane, bird\nn99\tentity\n"


def annotate(val, images="images/{}.JPEG"):
    for name, wnid, value in VAL:
        file = images.format(name, wnid=wnid)
        picture((val / file).with_suffix(".png"), value)
        (val / file).with_suffix(".png").rename(val / file)
    rows = [f"{name}.JPEG\t{wnid}\t0\t32\t44\t62\n" for name, wnid, _ in VAL]
    (val / "val_annotations.txt").write_text("".join(rows))


def tiny(base):
    for value, wnid in enumerate(WNIDS):
        folder = base / "train" / wnid
        picture(folder / "images" / f"{wnid}_0.png", 10 + value)
        (folder / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.png\t0\t0\t9\t9\n")
    annotate(base / "val")
    picture(base / "test" / "images" / "test_0.png", 99)
    (base / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (base / "words.txt").write_text(WORDS)
    return base


def test_tiny_imagenet_has_the_sorted_ids_as_classes_in_every_split(tmp_path):
    base = str(tiny(tmp_path))
    train = data.load(base, split="train")
    assert reds(train) == [11, 10, 13, 12] and train.labels.tolist() == [0, 1, 2, 3]
    for split in ("test", "val", "validation"):
        val = data.load(base, split=split)
        assert reds(val) == [50, 51, 52] and val.labels.tolist() == [3, 0, 1]
        assert val.split == split and val.num_classes == 4
        assert val.class_names == train.class_names


def test_tiny_imagenet_is_named_by_its_words_where_they_are_unique(tmp_path):
    base = tiny(tmp_path)
    names = data.load(str(base)).class_names
    assert names == ("goldfish", "n02", "n03", "n10")
    (base / "words.txt").unlink()
    assert data.load(str(base)).class_names == ("n01", "n02", "n03", "n10")


@pytest.mark.parametrize(
    "images",
    ["{}.JPEG", "{wnid}/{}.JPEG", "{wnid}/images/{}.JPEG", "images/{wnid}/{}.JPEG"],
)
def test_annotated_images_may_be_flat_or_sorted_into_class_folders(tmp_path, images):
    base = tiny(tmp_path)
    shutil.rmtree(base / "val")
    annotate(base / "val", images)
    val = data.load(str(base))
    assert reds(val) == [50, 51, 52] and val.labels.tolist() == [3, 0, 1]


def test_sorted_validation_images_need_no_annotations(tmp_path):
    base = tiny(tmp_path)
    shutil.rmtree(base / "val")
    picture(base / "val" / "n10" / "a.png", 7)
    val = data.load(str(base))
    assert reds(val) == [7] and val.labels.tolist() == [3]


@pytest.mark.parametrize("images", ["{}.JPEG", "images/{}.JPEG"])
def test_imagenet_200_may_have_a_flat_annotated_validation_folder(tmp_path, images):
    for value, wnid in enumerate(WNIDS):
        picture(tmp_path / "train" / wnid / "a.png", value, (20, 8))
    annotate(tmp_path / "val", images)
    assert reds(data.load(str(tmp_path), split="train", image_size=8)) == [1, 0, 3, 2]
    val = data.load(str(tmp_path))
    assert val.labels.tolist() == [3, 0, 1] and val.num_classes == 4
    shutil.rmtree(tmp_path / "train")
    alone = data.load(str(tmp_path))
    assert alone.labels.tolist() == [2, 0, 1]
    assert alone.class_names == ("n01", "n02", "n10")


def test_imagenet_200_in_class_folders_is_named_by_its_ids_or_words(tmp_path):
    for wnid in WNIDS:
        picture(tmp_path / "train" / wnid / "a.png", 1, (12, 20))
        picture(tmp_path / "val" / wnid / "b.png", 2, (20, 8))
    val = data.load(str(tmp_path), image_size=8)
    assert val.class_names == ("n01", "n02", "n03", "n10")
    assert val.pixels.shape == (4, 8, 8, 3) and val.labels.tolist() == [0, 1, 2, 3]
    (tmp_path / "words.txt").write_text(WORDS)
    named = data.load(str(tmp_path), image_size=8)
    assert named.class_names == ("goldfish", "n02", "n03", "n10")


def test_a_test_folder_with_classes_is_the_test_split(tmp_path):
    base = tiny(tmp_path)
    picture(base / "test" / "n03" / "a.png", 5)
    with pytest.raises(data.DataError, match="of no class: images"):
        data.load(str(base))
    shutil.rmtree(base / "test" / "images")
    assert reds(data.load(str(base))) == [5]


def test_wordnet_folders_lacking_a_part_say_so(tmp_path):
    base = tiny(tmp_path)
    with pytest.raises(data.DataError, match="no split 'dev', found test, train, val"):
        data.load(str(base), split="dev")
    shutil.rmtree(base / "train" / "n03")
    picture(base / "train" / "n77" / "a.png", 1)
    with pytest.raises(
        data.DataError, match="folders of 4 classes; missing: n03; of no class: n77"
    ):
        data.load(str(base), split="train")
    shutil.rmtree(base / "val")
    with pytest.raises(data.DataError, match="no split 'test', found test, train"):
        data.load(str(base))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_9.JPEG\tn01\t1", "1 of the 4 images named are missing: .*val_9.JPEG"),
        ("val_0.JPEG\tn55\t1", "the 4 classes .* found also n55"),
        ("val_0.JPEG n01", "line 4: expected a file and a class.*'val_0.JPEG n01'"),
        ("/etc/a.JPEG\tn01", "line 4: expected a name inside the folder"),
        ("../a.JPEG\tn01", "inside the folder, found '../a.JPEG'"),
        ("val_0.JPEG\t../n01", "inside the folder"),
    ],
)
def test_annotations_that_cannot_be_right_are_refused(tmp_path, line, message):
    base = tiny(tmp_path)
    file = base / "val" / "val_annotations.txt"
    file.write_text(file.read_text() + line)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(str(base))
    assert "val_annotations.txt" in str(caught.value)


def test_class_ids_cannot_leave_the_folder(tmp_path):
    base = tiny(tmp_path)
    (base / "wnids.txt").write_text("n01\n../../n02\n")
    with pytest.raises(data.DataError, match="wnids.txt, line 2: .*inside the folder"):
        data.load(str(base))


def test_a_plain_folder_is_not_mistaken_for_a_published_one(tmp_path):
    for name in ("GTSRB", "Train", "Final"):
        picture(tmp_path / name / "a.png", 1)
    assert data.load(str(tmp_path)).class_names == ("Final", "GTSRB", "Train")


# The defender's part


@pytest.mark.parametrize("make", [official, repackaged, tiny])
def test_published_layouts_have_a_defender_and_an_attacker(tmp_path, make):
    make(tmp_path)
    parts = [
        data.load(**small(tmp_path), split=name) for name in ("defender", "attacker")
    ]
    whole = data.load(**small(tmp_path), split="train")
    assert len(parts[0].labels) == 1
    assert sorted(reds(parts[0]) + reds(parts[1])) == sorted(reds(whole))
    assert parts[0].num_classes == whole.num_classes
