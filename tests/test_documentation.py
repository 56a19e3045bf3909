"""The documentation's examples run as they stand."""

import dataclasses
import importlib
import itertools
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import ban_jax
from ban_jax import cli, models, verdict
from ban_jax.baselines import profile
from ban_jax.commands import scan
from ban_jax.detectors import rules
from benchmarks import quoted, results_page
from tests.records import lines

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/SCALE.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
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


def test_the_page_names_all_that_a_rule_must_have():
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"The rule may be any object with (.*?)\(", text, re.S)
    named = re.findall(r"`(\w+)`", sentence)
    members = {name for name in vars(rules.Rule) if not name.startswith("_")}
    assert set(named) == members


def test_a_rule_with_no_more_than_the_page_names_judges():
    """What the package asks of a rule besides would be found here."""
    limits = {"within": 3.0, "trusted": 4.0, "population": 4.0}
    average = rules.AverageZ(("last_layer",), limits)

    class Rule:
        vectors = needed = ("last_layer",)
        pools = False
        thresholds = limits
        suspicious = {"within": 2.0}

        def scores(self, vectors, errors, against):
            return average.scores(vectors, errors, against)

    one = dataclasses.replace(ban_jax.detectors.DETECTORS["weights"], rule=Rule())
    found = lines.evidence(mode="another")
    with pytest.MonkeyPatch.context() as patch:
        known = {**ban_jax.detectors.DETECTORS._things, "another": one}
        patch.setattr(ban_jax.detectors.DETECTORS, "_things", known)
        spread = np.arange(5) + np.random.default_rng(0).normal(0, 0.1, (9, 5))
        many = [
            {**found, "path": str(n), "sha256": str(n), "vectors": {"last_layer": [*z]}}
            for n, z in enumerate(spread)
        ]
        judged = verdict.judge_all(many)
        alone = verdict.Judge()(found)
        assert verdict.Judge().asks(found) is None
    assert {one["baseline"] for one in judged} == {"population"}
    assert (alone["verdict"], alone["suspicious_above"]) == ("backdoored", 2.0)


def test_the_python_page_prints_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # outside of the checkout
    for block in blocks("docs/python.md"):
        exec(compile(block, "docs/python.md", "exec"), {})
    told = capsys.readouterr().out
    assert "class 1 scores" in told  # its target is 1
    # Its own classes alone would not do.
    assert "backdoored" in told or "digits" not in profile.shipped()


def test_a_script_goes_from_two_checkpoints_to_a_verdict_with_pictures(
    tmp_path, monkeypatch, capsys
):
    script = ROOT / "docs/two_checkpoints.py"
    monkeypatch.setattr(sys, "argv", [script.name, str(tmp_path)])
    exec(compile(script.read_text(encoding="utf-8"), script.name, "exec"), {})
    told = capsys.readouterr().out
    assert "preact_resnet18_w4_clean_s0: clean: " in told  # a clean model has no target
    assert "preact_resnet18_w4_badnets_t0_s0: backdoored, target 0" in told
    assert "with it: ['0', '0', '0', '0']" in told
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_the_page_of_results_is_what_the_result_files_give():
    assert results_page.PAGE.read_text(encoding="utf-8") == results_page.page()


def test_the_readmes_figures_are_those_of_the_result_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results_page.trust_table() in text
    assert results_page.speed_sentence() in " ".join(text.split())


@pytest.mark.parametrize("page", quoted.PAGES)
def test_what_a_page_quotes_are_the_figures_of_the_result_files(page):
    assert not quoted.missing(page, (ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", quoted.PAGES)
def test_a_figure_that_no_result_file_has_is_noticed(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text)
    wrong = re.sub("none|twelve", "three", wrong)
    patterns = [one for make in quoted.PAGES[page] for one in make()]
    assert len(quoted.missing(page, wrong)) == len(patterns)


def test_the_page_on_training_names_all_networks_and_no_others():
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (listed,) = re.findall(
        r"\*\*Networks\*\* \(`--arch`\): (.*?)\n\n", page, flags=re.S
    )
    assert set(re.findall(r"`(.*?)`", listed)) == set(models.ARCHITECTURES)


def test_every_page_is_in_the_sites_contents():
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    there = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert set(listed) == there
    assert len(listed) == len(there)


def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run([*command, "--site-dir", tmp_path], cwd=ROOT, check=True)
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "How far to trust a verdict" in first  # the README
    assert 'href="verdicts.html"' in first
    assert 'id="ban_jax.judge"' in (tmp_path / "api.html").read_text(encoding="utf-8")
    loads = r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?:"
    for page in tmp_path.glob("*.html"):
        assert not re.search(loads, page.read_text(encoding="utf-8")), page.name


def test_nothing_tells_to_install_from_an_index_where_the_package_is_not():
    """Whoever takes its name there would be installed."""
    sources = [ROOT / page for page in PAGES]
    for folder in ("ban_jax", "docs", ".github"):
        sources += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.yml")]
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"pip install (?:-\S+ )*['\"]?ban[_-]jax", text), source


def headings(path):
    """Names that links to parts of a page have, on GitHub."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page):
    place = ROOT / page
    text = re.sub(r"^```.*?^```", "", place.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, part = target.partition("#")
        there = (place.parent / file) if file else place
        assert there.exists(), f"{page} links to {target}"
        if part and there.suffix == ".md":
            assert part in headings(there), f"{page} links to {target}"


def command_lines(page):
    """The `ban-jax ...` lines of a page's blocks, without comments, joined where broken."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(
        r"^( +)?ban-jax (?!scan`)(.*(?:\n\1 +\S.*)*)$", text, re.M
    ):
        told = re.sub(r"\$\w+/\$?\w+", "0/8", found[2])  # a shard of variables
        words = shlex.split(told, comments=True)
        yield " ".join(itertools.takewhile(lambda word: word != "|", words))


FOR_USERS = [page for page in PAGES if page.startswith(("README", "docs/"))]
COMMANDS = sorted(set(itertools.chain.from_iterable(map(command_lines, FOR_USERS))))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_pages_is_understood(line):
    name, *arguments = line.split()
    assert name in cli.COMMANDS
    flags = importlib.import_module(f"ban_jax.commands.{name}").Flags
    assert not isinstance(cli._parse(flags, name, arguments), int)
