"""The page in a real browser; passed over where Playwright or Chromium is missing."""

import shutil

import pytest

from ban_jax import report
from tests.report import report_sample

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
LEAST_TEXT = 9
"""Pixels of height of the smallest text in a picture."""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    lines = [*report_sample.graded(), report_sample.with_images()]
    steps = report.steps(lines, "out/results.jsonl")
    report.write_html(path, lines, class_names=report_sample.CLASS_NAMES, steps=steps)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page with options of a browser's context; nothing may go wrong."""
    contexts, wrong = [], []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda told: wrong.append(told.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((address, "data:")) or wrong.append(request.url)
            ),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def column(page, number):
    return page.eval_on_selector_all(
        ".verdicts tbody tr",
        "(rows, k) => rows.map(row => row.cells[k].dataset.sort)",
        number,
    )


def test_the_table_sorts_by_a_column_both_ways_and_filters(opened):
    page = opened()
    score = page.locator(".verdicts thead button", has_text="Score")
    for direction in (-1, 1):
        score.click()
        found = [float(told or "-inf") for told in column(page, 3)]
        assert found == sorted(found, reverse=direction == -1) and len(set(found)) > 1
    page.get_by_label("Show verdict").select_option("suspicious")
    assert page.locator(".verdicts tbody tr:visible").count() == 1
    assert page.locator("details.candidate:visible").count() == 1


def test_a_link_opens_its_section(opened):
    page = opened()
    last = page.locator("details.candidate").last
    assert not last.evaluate("section => section.open")
    page.locator(".verdicts tbody tr").last.locator("a").click()
    assert last.evaluate("section => section.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_schemes(opened, scheme):
    page = opened(color_scheme=scheme)
    ink, paper = page.evaluate(
        "() => { const told = getComputedStyle(document.body);"
        "return [told.color, told.backgroundColor].map("
        "c => c.match(/\\d+/g).slice(0, 3).reduce((sum, x) => sum + Number(x), 0)); }"
    )
    assert (ink < 200 and paper > 650) if scheme == "light" else ink - paper > 450


def test_nothing_is_cut_off_and_pictures_are_legible_on_a_phone(opened):
    page = opened(viewport={"width": 400, "height": 800})
    page.get_by_role("button", name="Open all").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    heights = page.eval_on_selector_all(
        "svg text", "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert len(heights) > 20 and min(heights) >= LEAST_TEXT


def test_words_of_a_command_stay_whole_on_a_phone(opened):
    page = opened(viewport={"width": 400, "height": 800})
    page.get_by_role("button", name="Open all").click()
    lines = (
        "words => words.map(word => { const range = document.createRange();"
        "range.selectNodeContents(word); return range.getClientRects().length; })"
    )
    words = page.eval_on_selector_all(".command span", lines)
    assert len(words) > 4 and set(words) == {1}


def test_half_a_screen_has_room_for_the_table_of_verdicts(opened):
    page = opened(viewport={"width": 900, "height": 800})
    wide = "table => table.scrollWidth - table.clientWidth"
    assert page.locator(".tablewrap").first.evaluate(wide) <= 0


def test_tables_and_pictures_have_words_for_readers_who_do_not_see_them(opened):
    page = opened()
    page.get_by_role("button", name="Open all").click()
    bare = "tables => tables.filter(table => !table.caption).length"
    assert page.eval_on_selector_all("table", bare) == 0
    heads = "heads => heads.filter(head => !head.scope).length"
    assert page.eval_on_selector_all("th", heads) == 0
    assert page.locator("img:not([alt])").count() == 0
    unnamed = "svg:not([aria-label]):not([aria-hidden]):not([aria-labelledby])"
    assert page.locator(unnamed).count() == 0
