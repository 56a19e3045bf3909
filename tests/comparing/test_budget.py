"""Counts that fit a budget, by the detectors' own work formulas."""

import dataclasses
import types

import pytest

from ban_jax import checkpoints, detectors, records
from ban_jax.comparing import budget
from ban_jax.data import clean_images
from ban_jax.records import Job
from ban_jax.zoo import BUNDLED, labelled

COUNTED = [
    name
    for name, one in detectors.DETECTORS.items()
    if budget.has_counts(one, one.settings())
]


def job(name, probe=None):
    config = detectors.DETECTORS[name].settings()
    return Job(records.Settings(mode=name, config=config), probe)


def probe():
    """Stands in for 512 images; only their number counts."""
    return types.SimpleNamespace(labels=types.SimpleNamespace(size=512))


@pytest.mark.parametrize("name", COUNTED)
def test_the_work_fits_and_a_little_more_would_not(name):
    whole = budget._work(job(name, probe()), 10)
    least = budget._work(budget.scaled(job(name, probe()), 0.0), 10)
    for share in (0.5, 1.0, 3.0):
        if share * whole < least:
            continue
        found = budget.fitted(job(name, probe()), share * whole, 10)
        assert found.work <= share * whole
        more = budget.scaled(job(name, probe()), found.factor * 1.3 + 1.0)
        assert budget._work(more, 10) > share * whole
    assert found.factor > 1.5


@pytest.mark.parametrize("name", COUNTED)
def test_the_documented_work_gives_the_documented_counts(name):
    whole = budget._work(job(name, probe()), 10)
    found = budget.fitted(job(name, probe()), float(whole), 10)
    assert found.job.settings.config == job(name).settings.config


@pytest.mark.parametrize("name", COUNTED)
def test_no_count_falls_below_what_it_allows(name):
    found = budget.fitted(job(name, probe()), 1e-9, 10)
    config = found.job.settings.config
    for field in dataclasses.fields(config):
        if field.name in detectors.DETECTORS[name].counts:
            least = max(field.metadata.get("minimum", 0), 1)
            documented = getattr(job(name).settings.config, field.name)
            assert getattr(config, field.name) == min(least, documented)
        else:
            assert getattr(config, field.name) == getattr(
                job(name).settings.config, field.name
            )


def test_what_became_of_the_counts_is_told_in_words():
    def told(name, work):
        return budget.fitted(job(name, probe()), work, 10).in_words()

    whole = budget._work(job("targeted", probe()), 10)
    assert told("targeted", 0.8 * whole).startswith("counts times 0.")
    least = budget._work(budget.scaled(job("targeted", probe()), 0.0), 10)
    assert told("targeted", least - 1) == (
        f"counts at their least, {least:,} forward-equivalents: more than the "
        f"{least - 1:,} allowed"
    )
    as_they_are = f"counts as they are, {whole:,} forward-equivalents"
    assert told("targeted", None) == as_they_are
    assert told("weights", 4000) == "counts as they are, 0 forward-equivalents"


def test_a_closer_look_is_changed_with_the_first():
    found = budget.scaled(job("ban"), 2.0).settings
    assert found.config.steps == 2 * job("ban").settings.config.steps
    documented = job("ban").settings.closer.config
    assert found.closer.config.steps == 2 * documented.steps


def test_a_method_without_counts_is_left_as_it_is():
    for name in ("trojan_signatures", "weights"):
        assert budget.rate(job(name), [], 10, 1.0) is None
        found = budget.fitted(job(name), 0.001, 10)
        assert found.job.settings.config == job(name).settings.config
        assert found.factor == 1.0


def test_the_rate_is_measured_on_candidates_that_can_be_read(tmp_path, monkeypatch):
    flags = types.SimpleNamespace(
        data="digits",
        data_dir=None,
        split="test",
        image_size=None,
        num_clean=128,
        seed=0,
    )
    measured = clean_images.minibatches(clean_images.load(flags))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    whole = labelled.labelled(BUNDLED)
    (path, *_) = [p for p, one in whole.items() if one["architecture"] == "resnet18"]
    one = Job(
        records.Settings(mode="targeted", config=_quick(), dataset="digits"), measured
    )
    assert budget.rate(one, [str(broken)], 10, 1.0) is None
    read = []
    monkeypatch.setattr(
        budget.checkpoints,
        "read",
        lambda path, _read=checkpoints.read: read.append(path) or _read(path),
    )
    assert budget.rate(one, [str(broken), path], 10, 1e-9) > 0
    assert read == [str(broken), path]


@pytest.mark.parametrize(
    "seconds, runs",
    [(1e-3, ["least"]), (100.0, ["least", "half"]), (1e9, ["least", "twentieth"])],
)
def test_a_short_run_takes_no_more_than_half_of_the_budget(seconds, runs, monkeypatch):
    one = job("neural_cleanse", probe())
    documented = budget._work(one, 10)
    known = {
        "least": budget._work(budget.scaled(one, 0.0), 10),
        "half": 0.5 * seconds * 1e3,
        "twentieth": documented / 20,
    }
    measured = []

    def measured_rate(given, paths):
        measured.append(budget._work(given, 10))
        return 1e3 * len(measured)

    monkeypatch.setattr(budget, "measured_rate", measured_rate)
    assert budget.rate(one, [], 10, seconds) == 1e3 * len(runs)
    for work, name in zip(measured, runs, strict=True):
        assert 0.8 * known[name] < work <= known[name]


def _quick():
    return detectors.DETECTORS["targeted"].settings(steps=1, radii=(1.0,))
