"""Text of strangers: what is drawn as nothing, or over something else, is spelled out."""

import itertools
import unicodedata

import pytest

from ban_jax import visible

UNSEEN = (
    "\u3164\u115f\u1160\u034f\u2800\ufe0f\u180b\u180f\u17b4\uffa0\u200b\u2066\u00ad"
)
UNSEEN += "\U000e0100\U000e0041\U00016fe4\ufff0\x00\x1b\x9b\u3000\u00a0\u2028\udcff"


@pytest.mark.parametrize("c", UNSEEN)
def test_what_is_drawn_as_nothing_is_spelled_out(c):
    told = visible.printable(f"a{c}b")
    assert c not in told and told.startswith("a\\") and told.isascii()


@pytest.mark.parametrize(
    "known",
    [
        "модель.pt",
        "模型.pt",
        "café.pt",
        "cafe\u0301.pt",
        "हिन्दी",
        "བསྒྲུབས",
        "ที่นี่",
        "e\u0323\u0302",
    ],
)
def test_names_of_all_scripts_stay_what_they_are(known):
    assert visible.printable(known) == visible.name(known) == known


def test_marks_that_are_too_many_or_stand_on_no_letter_are_spelled_out():
    told = visible.printable("l" + "\u0301" * 60 + ".pt")
    assert sum(map(unicodedata.combining, told)) == 230 * visible.MOST_MARKS
    assert visible.printable("\u0301a") == "\\u0301a"
    assert visible.printable("a/\u0338b") == "a/\\u0338b"
    # The escape ends in a letter, on which the mark would then stand.
    assert visible.printable("a\u200b\u0301") == "a\\u200b\\u0301"


def test_spaces_at_the_ends_of_a_name_and_beside_others_are_seen():
    assert visible.name("a b.pt") == "a b.pt"
    assert visible.name(" a   b.pt  ") == "\\x20a \\x20\\x20b.pt\\x20\\x20"
    assert visible.name(" ") == "\\x20"


def test_printing_twice_changes_nothing():
    for pieces in itertools.product(
        ["a", " ", "\u0301", "\u200b", "\\", "\t"], repeat=4
    ):
        once = visible.printable("".join(pieces))
        assert visible.printable(once) == once
        named = visible.name("".join(pieces))
        assert visible.name(named) == visible.printable(named) == named


def test_no_two_texts_share_a_distinct_form():
    alphabet = ["t", "x", "0", "9", "u", "\\", "\t", "\x09\x00", "\n", " ", "\u0301"]
    texts = {
        "".join(pieces)
        for length in range(5)
        for pieces in itertools.product(alphabet, repeat=length)
    }
    assert len({visible.distinct(text) for text in texts}) == len(texts)
