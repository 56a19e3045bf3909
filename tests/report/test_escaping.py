"""Text of records, names and flags stays text, wherever it is and whatever it holds."""

import copy
import importlib.resources
import os
import re

import pytest

from ban_jax import checkpoints, report
from ban_jax.report import environment
from tests.report import page_parser, report_sample, test_repairs

ATTACK = "<evil onload=alert(1)>\"'><evil src=x onerror=alert(2)></script></style>&amp;"


def _places(value, place=()):
    """Where a value may be replaced: every leaf, the first of every list, every key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*place, ("key", name))
            yield from _places(inner, (*place, ("in", name)))
    elif isinstance(value, list) and value:
        yield place
        yield from _places(value[0], (*place, ("in", 0)))
    else:
        yield place


def _attacked(record, place):
    record = copy.deepcopy(record)
    inner = record
    for _, name in place[:-1]:
        inner = inner[name]
    how, name = place[-1]
    if how == "key":
        inner[ATTACK] = inner.pop(name)
    else:
        inner[name] = ATTACK
    return record


def _name(place):
    return ".".join(f"{name}" + " (name)" * (how == "key") for how, name in place)


def _harmless(page):
    """Nothing of `ATTACK` became part of the page."""
    assert not page.having("evil")
    assert len(page.having("script")) == len(page.having("style")) == 1
    assert not [tag for tag, a in page.tags if any(n.startswith("on") for n in a)]
    assert all(
        a["src"].startswith("data:image/png;base64,") for a in page.having("img")
    )


_SCAN = {**report_sample.with_images(), **report_sample.witnessed()}
_SCAN["images"] = report_sample.with_images()["images"]
_REPAIR = test_repairs.repaired()


@pytest.mark.parametrize("place", [p for p in _places(_SCAN) if p], ids=_name)
def test_markup_in_any_one_place_of_a_record_stays_text(place):
    record = _attacked(_SCAN, place)
    _harmless(page_parser.render([record], class_names=report_sample.CLASS_NAMES))
    _harmless(page_parser.render([record | {"verdict": "inconclusive"}]))


@pytest.mark.parametrize("place", [p for p in _places(_REPAIR) if p], ids=_name)
def test_markup_in_any_one_place_of_a_repair_stays_text(place):
    _harmless(page_parser.render([], repaired=[_attacked(_REPAIR, place)]))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": f"zoo/{ATTACK}.pt"},
        {"reason": ATTACK},
        {"error": ATTACK},
        {"mode": ATTACK},
        {"baseline": ATTACK},
        {"threshold_source": ATTACK},
        {"architecture": ATTACK},
        {"normalisation": {"source": ATTACK}},
        {"sha256": ATTACK},
        {"seed": ATTACK},
        {"config_hash": ATTACK},
        {"notes": [ATTACK]},
        {"config": {ATTACK: [ATTACK]}},
        {"versions": {ATTACK: ATTACK}},
        {"info": {ATTACK: 1}},
        {"info": {"told": ATTACK}},
        {"info": {"curves": {ATTACK: [[0.1] * 10] * 3}}},
        {"vectors": {ATTACK: [0.1] * 10}},
        {"images": {ATTACK: report_sample.triggers()}},
        {"compared_with": ATTACK},
        {"witnesses": {ATTACK: [9.0] * 10}},
        {"void": {ATTACK: "odd"}},
        {"void": {"universal": ATTACK}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_a_record_says_is_shown_as_it_was_written(changes):
    page = page_parser.render([report_sample.judged(**changes)])
    _harmless(page)
    # Of a path the folder is left out.
    told = os.path.basename(ATTACK) if "path" in changes else ATTACK
    assert any(told in text for text in page.text)


@pytest.mark.parametrize(
    "options",
    [
        {"title": ATTACK},
        {"trust": ATTACK},
        {"steps": [ATTACK]},
        {"settings": {ATTACK: 1}},
        {"settings": {"data": ATTACK}},
        {"class_names": [ATTACK] * 10},
        {"repaired": [test_repairs.repaired(ATTACK), test_repairs.FAILED]},
        {"repaired": [test_repairs.repaired(attack={"kind": ATTACK})]},
        {"repaired": [test_repairs.repaired(notes=[ATTACK])]},
        {"repaired": [test_repairs.repaired(before={"verdict": ATTACK})]},
        {"repaired": [test_repairs.FAILED | {"error": ATTACK}]},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_else_is_given_is_shown_as_it_was_written(options):
    page = page_parser.render([report_sample.with_images()], **options)
    _harmless(page)
    assert any(ATTACK in text for text in page.text)


def _templates():
    folder = importlib.resources.files("ban_jax.report") / "templates"
    return {found.name: found.read_text(encoding="utf-8") for found in folder.iterdir()}


@pytest.mark.parametrize("name", sorted(_templates()))
def test_no_template_switches_escaping_off_or_leaves_an_attribute_unquoted(name):
    source = _templates()[name]
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", source)
    outside = re.sub(r"\{%.*?%\}", "", source)
    assert not re.search(r"""=[^"'\s>]*\{\{""", outside)


def test_flags_stand_out_and_the_text_around_them_is_escaped():
    template = environment.templates().from_string("{{ told | flags }}")
    assert template.render(
        told="do <it>: ban-jax repair --data 'a b' --out <x> end"
    ) == (
        'do &lt;it&gt;: <code class="command"><span>ban-jax</span> <span>repair</span> '
        "<span>--data</span> <span>&#39;a</span> <span>b&#39;</span> "
        "<span>--out</span> <span>&lt;x&gt;</span></code> end"
    )
    assert template.render(told="<b>--num-clean\0") == (
        "&lt;b&gt;<code>--num-clean</code>\\x00"
    )
    assert template.render(told="Raise --ban.mask-steps.") == (
        "Raise <code>--ban.mask-steps</code>."
    )


def test_a_name_that_a_template_mistypes_is_an_error():
    template = environment.templates().from_string("{{ candidte }}")
    with pytest.raises(Exception, match="'candidte' is undefined"):
        template.render(candidate="a")


def test_control_and_direction_characters_are_spelled_out():
    record = report_sample.judged("a\u202egnp.\x1b[2J\0.pt", reason="line\u2028\u200b")
    text = report.render([record], class_names=["\u202e"] * 10)
    assert not {"\u202e", "\x1b", "\0", "\u2028", "\u200b"} & set(text)
    assert "\\u202e" in text and "\\u200b" in text


def test_blank_names_and_piles_of_marks_are_seen_on_the_page():
    name = "b\u3164\u2800\ufe0f\U000e0100" + "\u0301" * 60 + "  x.pt "
    passed = [checkpoints.Passed(f"zoo/{name}", f"the same file as zoo/{name}")]
    record = {**report_sample.judged(f"zoo/{name}", reason=name), "calls": [name]}
    page = report.render([record], class_names=[name] * 10, passed=passed)
    assert not {"\u3164", "\u2800", "\ufe0f", "\U000e0100", "\u0301"} & set(page)
    assert page.count("<wbr>pt\\x20") >= 2 and "\\x20x.pt\\x20" in page


def test_a_message_keeps_its_own_lines():
    record = report_sample.unreadable() | {"error": "one\ntwo\x07", "reason": ""}
    assert ">one\ntwo\\x07<" in report.render([record])


def test_a_name_that_is_not_unicode_can_be_written(tmp_path):
    name = b"bad\xff.pt".decode(errors="surrogateescape")
    report.write_html(
        tmp_path / "report.html",
        [report_sample.judged(name)],
        class_names=["\udcff"] * 10,
        settings={"data": "\udcff"},
    )
    assert "bad\\udcff.pt" in (tmp_path / "report.html").read_text(encoding="utf-8")
