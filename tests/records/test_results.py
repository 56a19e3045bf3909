"""Any results file, cut anywhere: what is left is a beginning, and can be completed."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ban_jax import records
from ban_jax.records import jsonl
from tests.records import lines

numbers = st.floats(allow_nan=True, allow_infinity=True)
words = st.text(max_size=5)  # surrogates too, as in names that are not Unicode
paths = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)
vectors = st.dictionaries(words, st.lists(numbers, min_size=5, max_size=5), max_size=2)
evidence = st.builds(
    lambda path, vectors, **more: lines.evidence(
        path, vectors=vectors, errors={name: [0.0] * 5 for name in vectors}, **more
    ),
    paths,
    vectors,
    notes=st.lists(words, max_size=2),
    seconds=st.floats(0, 1e9),
)
judged = st.builds(
    lines.judged, paths, score=st.none() | st.floats(-1e9, 1e9), reason=words
)
files = st.lists(evidence | judged, max_size=3, unique_by=lambda line: line["path"])


def as_read(found):
    """What becomes of lines on the way through a file: numbers that are not finite go."""
    return [json.loads(records.encode(line)) for line in found]


@settings(max_examples=25, deadline=None)
@given(files, st.data())
def test_a_file_cut_at_any_byte_holds_the_first_records_and_can_be_completed(
    tmp_path_factory, found, data
):
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    whole = b"".join(map(records.encode, found))
    ends = [
        len(b"".join(map(records.encode, found[:n]))) for n in range(len(found) + 1)
    ]
    cut = data.draw(st.integers(0, len(whole)), "cut")
    path.write_bytes(whole[:cut])
    loaded = records.load(path)
    # A record is whole when all but the newline at its end is there.
    complete = sum(cut >= end - 1 for end in ends[1:])
    assert loaded.records == as_read(found)[:complete]
    assert loaded.torn == (cut > ends[complete])
    with records.Writer(path) as writer:
        assert (writer.records, writer.torn) == loaded
        for line in found[complete:]:
            writer.write(line)
    assert records.load(path) == (as_read(found), False)
    assert path.read_bytes() == whole


def test_one_file_cut_at_every_byte(tmp_path):
    path = tmp_path / "results.jsonl"
    found = [lines.judged("a.pt"), lines.evidence("bé\ud800.pt", notes=["{}\n"])]
    first, second = map(records.encode, found)
    whole = as_read(found)
    for cut in range(len(first) + len(second) + 1):
        path.write_bytes((first + second)[:cut])
        complete = (cut >= len(first) - 1) + (cut >= len(first) + len(second) - 1)
        assert records.load(path).records == whole[:complete]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_what_is_finite_already_stays_as_it_is(value):
    once = jsonl.finite(value)
    assert jsonl.finite(once) == once
    json.dumps(once, allow_nan=False)
