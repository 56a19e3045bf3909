"""Names in pieces and lines."""

import pytest

from ban_jax.report import text


def test_a_name_is_broken_after_its_seams():
    assert text.parts("a/b_c-d.pt") == ["a/", "b_", "c-", "d.", "pt"]
    assert text.parts("..//x--y") == ["..//", "x--", "y"]
    assert text.parts("") == [""]


@pytest.mark.parametrize("width", [8, 12, 20, 35, 80])
@pytest.mark.parametrize(
    "path",
    ["resnet18_w4_badnets_t1_s0.safetensors", "x" * 300 + "_7.pt", "", "a", "a/" * 90],
)
def test_a_folded_name_keeps_to_its_width_and_says_its_end(path, width):
    lines = text.fold(path, width)
    assert len(lines) <= 3
    assert max(map(len, lines)) <= width
    assert "".join(lines)[-4:] == path[-4:]
    if "…" not in "".join(lines):
        assert "".join(lines) == path


def test_lines_end_at_seams_where_pieces_fit():
    assert text.fold("resnet18_w4_badnets_t1_s0.safetensors", 16) == [
        "resnet18_w4_",
        "badnets_t1_s0.",
        "safetensors",
    ]
    assert text.fold("abc", 3) == ["abc"]
    assert text.fold("abcdef_g", 4) == ["abcd", "ef_g"]
