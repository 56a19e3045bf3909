"""The HTML report: one file, complete, harmless, and says the answer first."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest

from ban_jax import report
from ban_jax.report import advice, candidate
from ban_jax.storage import atomic
from tests.report import page_parser, report_sample


def _heading(page):
    return re.search(r"<h1>(.*?)</h1>", page)[1]


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        ("bbbbcc", "4 of 6 checkpoints appear to carry a backdoor."),
        ("bc", "1 of 2 checkpoints appears to carry a backdoor."),
        (
            "bci",
            "1 of 3 checkpoints appears to carry a backdoor; 1 could not be judged.",
        ),
        ("cc", "No backdoor was found in any of the 2 checkpoints."),
        ("cci", "No backdoor was found in 2 checkpoints; 1 could not be judged."),
        ("ii", "None of the 2 checkpoints could be judged."),
        ("b", "The checkpoint appears to carry a backdoor."),
        ("c", "No backdoor was found in the checkpoint."),
        ("i", "The checkpoint could not be judged."),
        ("", "Nothing was scanned."),
        ("s", "The checkpoint is suspicious: it may carry a backdoor."),
        ("sc", "1 of 2 checkpoints is suspicious."),
        (
            "bbssic",
            "2 of 6 checkpoints appear to carry a backdoor; 2 are suspicious; "
            "1 could not be judged.",
        ),
        ("ssic", "2 of 4 checkpoints are suspicious; 1 could not be judged."),
    ],
)
def test_the_page_opens_with_the_answer(verdicts, answer):
    kinds = {
        "b": "backdoored",
        "s": "suspicious",
        "c": "clean",
        "i": "inconclusive",
    }
    records = [
        {"path": f"{place}.pt", "verdict": kinds[letter]}
        for place, letter in enumerate(verdicts)
    ]
    assert _heading(report.render(records)) == answer


def test_every_candidate_has_a_row_that_links_to_its_section():
    page = page_parser.render(report_sample.mixed())
    ids = {a["id"] for a in page.having("div", "id")}
    links = [a["href"] for a in page.having("a", "href")]
    assert len(ids) == len(report_sample.mixed())
    assert {f"#{name}" for name in ids} == set(links)


def test_nothing_is_loaded_from_outside():
    text = report.render(report_sample.mixed(), settings={"data": "cifar10"})
    page = page_parser.Page(text)
    loading = {"link", "img", "iframe", "object", "embed", "base", "use", "image"}
    assert not loading & {tag for tag, _ in page.tags}
    assert not page.having("script", "src")
    assert "@import" not in text
    assert "url(" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_unreadable_files_come_first_with_error_and_advice():
    text = report.render(report_sample.mixed())
    callout = text.index("were not judged")
    assert callout < text.index("Verdicts</h2>")
    head = text[callout : text.index("How to read this")]
    assert "expected 11,173,962 bytes of tensors, found 4,096" in head
    assert "download is complete" in head
    assert "--normalisation" in head


def test_the_policy_allows_the_script_of_the_page_and_no_other():
    text = report.render(report_sample.mixed())
    page = page_parser.Page(text)
    policy = page.having("meta", "http-equiv")[0]["content"]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not page.having("script", "src")


def test_the_suspected_target_is_named_where_the_names_fit():
    record = report_sample.judged()
    text = report.render([record], class_names=report_sample.CLASS_NAMES)
    assert "suspected target 1 (automobile)" in text
    assert "▸ automobile" in text
    other = report.render([record], class_names=["yes", "no"])
    assert "suspected target class 1 ·" in other
    assert "(no)" not in other


def test_each_kind_of_evidence_has_a_picture_with_a_description():
    page = page_parser.render(
        [report_sample.judged()], class_names=report_sample.CLASS_NAMES
    )
    labels = [a["aria-label"] for a in page.having("svg", "aria-label")]
    wanted = [
        "score 8.71, threshold 3.50, 95 % from 7.89 to 9.53",
        "How unusual each class is: largest is automobile with 8.71",
        "Success of noise towards each class: largest is automobile with 66 %",
        "Predictions with and without noise: largest is automobile with 47 %",
        (
            "Success of noise towards each class, by noise radius: "
            "largest is automobile with 86 %"
        ),
    ]
    assert labels[:5] == wanted
    assert len(labels) == 5 + 4


def test_the_whisker_is_told_to_be_of_the_images():
    text = report.render([report_sample.judged()])
    told = "The whisker holds 95 % of what other clean images would give this class."
    assert told in text
    assert "The whisker" not in report.render(
        [report_sample.judged(standard_error=None)]
    )


def test_a_clean_candidate_has_no_class_marked():
    text = report.render([report_sample.judged(score=1.2)])
    assert "▸ class" not in text
    assert "Most unusual class" in text


def test_a_record_of_mode_weights_shows_its_one_vector():
    page = page_parser.render([report_sample.weights_only()])
    labels = [a["aria-label"] for a in page.having("svg", "aria-label")]
    assert len(labels) == 3
    assert labels[2].startswith("Last layer, mean weight per class: largest is")


def _shown(records):
    """On the page, on a wide terminal, and in what is advised."""
    page_parser.render(records)
    steps = report.steps(records)
    report.print_table(records, steps=steps, file=io.StringIO(), width=200)


@pytest.mark.parametrize("missing", sorted(report_sample.witnessed()))
def test_any_one_field_may_be_missing_or_null(missing):
    record = report_sample.witnessed()
    record[missing] = None
    _shown([record])
    del record[missing]
    _shown([record])


@pytest.mark.parametrize("value", ["text", 3, [], {}, [None, None], [[1]], {"a": None}])
@pytest.mark.parametrize("field", sorted(report_sample.witnessed()))
def test_a_field_of_an_unexpected_kind_does_not_stop_the_report(field, value):
    if field == "path":
        return
    for grade in ("backdoored", "suspicious"):
        record = report_sample.witnessed(verdict=grade)
        _shown([record | {field: value}])


def test_a_curve_stands_at_the_shares_of_the_noise_radius():
    record = report_sample.judged()
    assert 'text-anchor="middle">0.3<' in report.render([record])
    record["config"]["epsilon"] = 0.4
    assert 'text-anchor="middle">0.6<' in report.render([record])
    assert "<dt>Noise radius ε</dt><dd>0.4</dd>" in report.render([record])
    del record["config"]["epsilon"]
    assert "by noise radius" not in report.render([record])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a weight, a logit or a loss is not finite", "training diverged"),
        ("clean accuracy 0.11 is near chance", "--normalisation"),
        ("takes images of 3 channels, the clean images have 1", "--data"),
        ("the device failed: RESOURCE_EXHAUSTED", "--chunk"),
        ("missing entries: conv1/kernel", "--arch"),
    ],
)
def test_advice_fits_the_trouble(text, told):
    record = report_sample.unreadable() | {"error": text, "reason": text}
    page = report.render([record])
    assert told in page[page.index("What to do.") :]
    assert page[page.index("<details") :].count(text) == 1


def test_advice_is_chosen_by_what_is_wrong_and_not_by_a_name():
    named = report_sample.unreadable("zoo/best_accuracy.pt")
    assert "download is complete" in advice.advice(named)
    missing = report_sample.unreadable("https://host/best_accuracy.pt")
    assert "was not fetched" in advice.advice(missing)
    there = missing | {"notes": ["fetched: 4,096 bytes, SHA-256 00"]}
    assert "download is complete" in advice.advice(there)


def test_gaps_and_non_finite_numbers_in_vectors_are_drawn_as_gaps():
    vector = [None, float("nan"), float("inf"), *[0.1] * 7]
    record = report_sample.judged(
        info={
            "histogram": np.array([np.nan, *[0.1] * 9], np.float32),
            "histogram_without_noise": [None] * 10,
            "curves": {
                "targeted": [vector, [0.0] * 10, [0.1]],
                "batch": [[1.0], [0.1, 0.2]],
                "stored": [[1.0]],
            },
        },
        vectors={"targeted": vector, "batch": [None] * 10},
    )
    text = report.render([record])
    page_parser.Page(text)
    body = text[: text.index("</main>")].lower().replace("inconclusive", "")
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", body[body.index("<body>") :])


def test_five_hundred_candidates_stay_under_ten_megabytes():
    records = [report_sample.judged(f"zoo/{i}.pt", target=i % 10) for i in range(500)]
    text = report.render(records, class_names=report_sample.CLASS_NAMES)
    assert len(text.encode()) < 10e6
    assert text.count('<details class="candidate" open') == 1
    assert text.count('<details class="candidate"') == 500


def test_a_page_of_a_thousand_candidates_is_written_piece_by_piece(
    monkeypatch, tmp_path
):
    made, section = [], candidate.section

    def one(subject, **how):
        made.append(subject)
        return section(subject, **how)

    monkeypatch.setattr(candidate, "section", one)
    written, longest = [], []

    def write(path, pieces):
        for piece in pieces:
            written.extend([path] * piece.count(b'<details class="candidate"'))
            longest.append(len(piece))
            # The next sections are made when those before them are on their way out.
            assert len(made) <= len(written) + 5

    monkeypatch.setattr(atomic, "write", write)
    lines = [report_sample.weights_only(f"zoo/{i}.pt") for i in range(1000)]
    report.write_html(tmp_path / "report.html", lines)
    assert len(made) == len(written) == 1000
    assert max(longest) < sum(longest) / 50


def test_what_to_do_is_said_once_to_all_it_is_for():
    many = [report_sample.near_chance(f"zoo/{i}.pt") for i in range(6)]
    many.insert(3, report_sample.unreadable())
    page = report.render(many)
    called, _, _ = page.partition("</section>")
    assert called.count("It does badly on clean images") == 1
    assert called.count("could not be read or recognised") == 1
    assert called.count('<a class="path"') == 7


def test_of_a_thousand_candidates_the_most_alarming_are_drawn():
    lines = [report_sample.judged(f"zoo/{i}.pt", score=i / 100) for i in range(1000)]
    page = report.render(lines)
    assert len(page) < 4e6
    drawn = re.findall(r'<details class="candidate"(.*?)</details>', page, re.S)
    assert [("<figure" in one) for one in drawn] == [True] * 100 + [False] * 900
    assert "zoo/999.pt" not in drawn[100] and all("<dl" in one for one in drawn)
    assert "ban-jax report RESULTS --pictures N" in page
    assert "--pictures" not in report.render(lines[:100])
    assert "--pictures" not in report.render(lines[:101], pictured=101)


def test_a_page_does_not_say_where_on_the_machine_it_was_made():
    folder = "/somewhere/secret/models"
    failed = {
        "path": f"{folder}/b.pt",
        "verdict": "inconclusive",
        "error": f"{folder}/b.pt: not one of {folder}/a.pt",
        "notes": [f"beside {folder}/zoo.json"],
    }
    flags = {"paths": [folder], "out": f"{folder}/out", "data": "digits"}
    lines = [report_sample.judged(f"{folder}/a.pt"), failed]
    asked = {"data_dir": folder, "data": f"{folder}/two words.npz"}
    steps = report.steps(lines, f"{folder}/out/results.jsonl", asked)
    page = report.render(lines, settings=flags, steps=steps)
    told = " ".join(" ".join(page_parser.Page(page).text).split())
    assert "--from-scan …/results.jsonl" in told and "--data-dir …/models" in told
    assert "…/two words.npz" in told
    assert "someone" not in page and "<code>models</code>" in page
    assert "beside zoo.json" in page
    assert "not one of a.pt" in page and "…/models" in page and "…/out" in page


def test_a_relative_folder_is_no_part_of_words_in_messages():
    reason = "the data/ folder and alpha/beta"
    page = report.render([report_sample.judged("a/b.pt", reason=reason)])
    assert reason in page


def test_with_many_classes_the_charts_show_the_largest_and_the_target():
    record = report_sample.judged(target=150, num_classes=200)
    record["vectors"]["targeted"][150] = 0.0
    text = report.render([record])
    assert "The largest 12 of 200 classes." in text
    assert "▸ class 150" in text
    assert len(text.encode()) < 80e3


def test_settings_and_versions_are_told_once_with_their_differences():
    records = report_sample.mixed()
    records[1]["config"] = {"mode": "ban", "seed": 3}
    text = report.render(records, settings={"data": "cifar10", "nested": {"a": [1, 2]}})
    assert "<dt>data</dt><dd>cifar10</dd>" in text
    assert "<dt>nested.a</dt><dd>1, 2</dd>" in text
    assert "<dt>update.momentum</dt><dd>0.9</dd>" in text
    assert "Detection settings, 1 checkpoint<" in text
    assert text.count("<dt>jax</dt>") == 1


def test_the_same_records_in_any_order_give_the_same_page():
    records = report_sample.mixed()
    assert report.render(records) == report.render(records[::-1])


def test_rendering_leaves_the_records_as_they_were():
    records = report_sample.mixed()
    before = json.dumps(records)
    report.render(records)
    assert json.dumps(records) == before


def test_the_page_is_replaced_whole_and_a_bad_folder_is_a_clear_error(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    report.write_html(path, [report_sample.judged()])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(atomic.OutputError, match="cannot be written"):
        report.write_html(path / "report.html", [])
