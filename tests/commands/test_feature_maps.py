"""`ban-jax report --features`: which checkpoints are mapped, and what is refused."""

import numpy as np
import pytest

from ban_jax import checkpoints
from ban_jax.commands import feature_maps, report
from ban_jax.data import probe as probes
from ban_jax.scanning import noisy_features, stems
from tests.checkpoints import builders


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


def test_the_network_that_is_mapped_has_the_stem_that_was_measured(monkeypatch):
    """A 7x7 stem is tried on the clean images when it is scanned, and here again."""
    spec = checkpoints.ModelSpec("resnet18", 5, 2, stem="imagenet")
    candidate = checkpoints.read_state_dict(builders.state_dict(spec))
    probe = probes.minibatches(np.zeros((4, 16, 16, 3)), np.zeros(4, np.int32))
    losses = {"7x7-stride1": 0.5}
    monkeypatch.setattr(stems, "_loss", lambda _, one, *more: losses.get(one.stem, 1.0))
    monkeypatch.setattr(checkpoints, "read", lambda path: candidate)
    mapped = []

    def seen(one, *_, **__):
        mapped.append(one.spec.stem)
        raise ValueError("enough")

    monkeypatch.setattr(noisy_features, "seen", seen)
    line = {"path": "a", "sha256": candidate.sha256, "normalisation": None}
    with pytest.raises(ValueError, match="enough"):
        feature_maps._mapped(line, probe)
    assert mapped == ["7x7-stride1"]


def test_maps_need_clean_images():
    with pytest.raises(ValueError, match="--features .*together with --data NAME"):
        report.Flags(results="r.jsonl", features=1)
    with pytest.raises(ValueError, match="--features .*at least 0"):
        report.Flags(results="r.jsonl", features=-1)
