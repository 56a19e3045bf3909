"""`ban-jax report --features`: which checkpoints are mapped, and what is refused."""

import pytest

from ban_jax.commands import feature_maps, report


def record(path, verdict, score):
    return {"path": path, "verdict": verdict, "score": score, "info": {}}


RECORDS = [
    record("a", "backdoored", 5.0),
    record("b", "suspicious", 2.5),
    record("c", "clean", 1.0),
    record("d", "clean", 0.5),
    record("e", "inconclusive", None),
]


def test_the_most_alarming_are_mapped_and_the_least_alarming_clean_ones(
    monkeypatch, capsys
):
    def mapped(one, probe):
        if one["path"] == "d":
            raise ValueError("its weights are not those that were measured")
        return {**one, "info": {"features": {}}}

    monkeypatch.setattr(feature_maps, "_mapped", mapped)
    found = feature_maps.added(RECORDS, 1, data="digits")
    assert [one["path"] for one in found if one["info"]] == ["a"]
    assert "note: d: no map of its features: its weights" in capsys.readouterr().err
    assert [one["path"] for one in found] == [one["path"] for one in RECORDS]


def test_maps_need_clean_images():
    with pytest.raises(ValueError, match="--features .*together with --data NAME"):
        report.Flags(results="r.jsonl", features=1)
    with pytest.raises(ValueError, match="--features .*at least 0"):
        report.Flags(results="r.jsonl", features=-1)
