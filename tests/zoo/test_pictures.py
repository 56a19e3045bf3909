"""Contact sheets: three rows, the difference around mid-grey."""

import os

import numpy as np
import pytest
from PIL import Image

from ban_jax.zoo import pictures

STEP = pictures.SIDE + pictures.MARGIN


def cell(sheet, row, column):
    left = pictures.MARGIN + column * STEP
    top = row * (STEP + pictures.CAPTION) + pictures.CAPTION
    box = (left, top, left + pictures.SIDE, top + pictures.SIDE)
    return np.array(sheet.crop(box))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_clean_triggered_and_stretched_difference(channels):
    clean = np.zeros((2, 4, 4, channels), np.float32)
    clean[1] = 0.6
    triggered = clean.copy()
    triggered[0, :2] += 0.2
    triggered[1, :, 2:] -= 0.1
    sheet = pictures.contact_sheet(clean, triggered)
    assert sheet.mode == "RGB"
    assert sheet.size == (pictures.MARGIN + 2 * STEP, 3 * (STEP + pictures.CAPTION))
    assert (cell(sheet, 0, 0) == 0).all() and (cell(sheet, 0, 1) == 153).all()
    half = pictures.SIDE // 2
    assert (cell(sheet, 1, 0)[:half] == 51).all()
    assert (cell(sheet, 1, 0)[half:] == 0).all()
    first, second = cell(sheet, 2, 0), cell(sheet, 2, 1)
    assert (first[:half] == 255).all() and (first[half:] == 128).all()
    assert (second[:, half:] == 64).all() and (second[:, :half] == 128).all()


def test_a_sheet_names_attack_target_and_answers():
    images = np.ones((2, 4, 4, 1))
    plain = np.array(pictures.contact_sheet(images, images))
    told = {
        "title": "badnets, target: class 3",
        "answers": [["cat", "dog"], ["3", "3"]],
    }
    sheet = np.array(pictures.contact_sheet(images, images, **told))
    assert len(sheet) == len(plain) + pictures.CAPTION
    assert (sheet[: pictures.CAPTION] < 128).any()
    bands = [sheet[pictures.CAPTION * k :][: pictures.CAPTION] for k in (0, 1)]
    second = slice(pictures.MARGIN + STEP, None)
    assert (bands[1][:, second] < 128).any()  # the second image's answer


def test_no_difference_is_mid_grey():
    images = np.random.RandomState(0).rand(1, 4, 4, 3)
    sheet = pictures.contact_sheet(images, images)
    assert (cell(sheet, 2, 0) == 128).all()


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    images = np.zeros((1, 4, 4, 1))
    sheet = pictures.contact_sheet(images, images)
    pictures.save(str(tmp_path / "a.png"), sheet)
    with Image.open(tmp_path / "a.png") as found:
        assert found.size == sheet.size and found.format == "PNG"

    def failing(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space left"):
        pictures.save(str(tmp_path / "b.png"), sheet)
    assert os.listdir(tmp_path) == ["a.png"]
