"""The documentation's examples run as they stand."""

import pathlib
import re
import sys

import pytest

import ban_jax
from ban_jax.commands import scan

ROOT = pathlib.Path(__file__).parents[1]
CHECKPOINT = f"{scan.BUNDLED}/resnet18_w4_badnets_t1_s0.safetensors"


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


@pytest.fixture
def registries():
    """Forgets what a page registers."""
    known = [
        ban_jax.detectors.DETECTORS,
        ban_jax.repairs.METHODS,
        ban_jax.attacks.ATTACKS,
        ban_jax.models.ARCHITECTURES,
    ]
    before = [dict(registry._things) for registry in known]
    yield
    for registry, things in zip(known, before, strict=True):
        registry._things = things


def run(page, folder, monkeypatch):
    """Executes a page; a block that begins with a file's name becomes that module."""
    monkeypatch.syspath_prepend(str(folder))
    space = {"CHECKPOINT": CHECKPOINT}
    for block in blocks(page):
        if name := re.match(r"# (\w+)\.py\n", block):
            (folder / f"{name[1]}.py").write_text(block, encoding="utf-8")
            sys.modules.pop(name[1], None)
        else:
            exec(compile(block, page, "exec"), space)
    return space


def test_one_page_brings_a_detector_a_repair_an_attack_and_a_network(
    tmp_path, monkeypatch, registries, capsys
):
    space = run("docs/extending.md", tmp_path, monkeypatch)
    assert space["found"]["architecture"] == "Small"
    assert "pull" in ban_jax.detectors.DETECTORS
    assert float(space["info"].accuracy_after) > 0.5
    assert space["state"].fixed is not None
    assert "inconclusive" in capsys.readouterr().out  # an untrained network


def test_the_detector_of_the_page_is_short():
    (detector,) = (
        block for block in blocks("docs/extending.md") if "DETECTOR =" in block
    )
    assert detector.count("\n") < 60


def test_the_readmes_python_prints_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # outside of the checkout
    for block in blocks("README.md"):
        exec(compile(block, "README.md", "exec"), {})
    assert "backdoored" in capsys.readouterr().out
