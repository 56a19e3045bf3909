"""The table of a zoo: what is averaged, counted and kept apart."""

import statistics

from ban_jax.zoo import summary


def entry(kind, asr=None, mode="all_to_one", failed=False, **fields):
    defaults = {"architecture": "resnet18", "clean_accuracy": 0.9, "seconds": 2.0}
    return {
        "kind": kind, "asr": asr, "mode": mode, "failed": failed, **defaults, **fields
    }  # fmt: skip


def line_of(entries, kind):
    lines = [line for line in summary.table(entries).splitlines() if kind in line]
    assert len(lines) == 1
    return lines[0]


def test_figures_are_mean_deviation_and_least_success():
    values = (0.9, 0.95, 1.0)
    line = line_of([entry("blend", asr) for asr in values], "blend")
    spread = statistics.stdev(values)
    assert f"0.950 ± {spread:.3f} (≥ 0.900)" in line
    assert "0.900 ± 0.000" in line
    assert line.split()[:3] == ["blend", "resnet18", "3"] and line.endswith("2.0")


def test_one_model_has_no_deviation():
    line = line_of([entry("blend", 0.97)], "blend")
    assert line.split() == ["blend", "resnet18", "1", "0.900", "0.970", "2.0"]


def test_failed_backdoors_are_counted_and_stay_in_the_figures():
    line = line_of([entry("sig", 1.0), entry("sig", 0.2, failed=True)], "sig")
    assert line.split()[2:4] == ["2", "1"]
    assert "0.600" in line and "(≥ 0.200)" in line


def test_clean_models_have_no_success_rate():
    line = line_of([entry("clean", mode=None)] * 2, "clean")
    assert line.split() == "clean resnet18 2 0.900 ± 0.000 2.0".split()


def test_excess_stands_beside_the_success_with_a_heading_that_is_explained():
    entries = [entry("blend", 0.97, excess=0.95), entry("blend", 0.99, excess=0.93)]
    assert "0.940 ± 0.014 (≥ 0.930)" in line_of(entries, "blend")
    text = summary.table(entries)
    assert text.index(" ASR ") < text.index("excess ASR") < text.index("recovered")
    assert text.splitlines()[-1] == summary.EXCESS


def test_models_listed_before_excess_was_measured_are_told_of():
    older, newer = entry("blend", 0.97), entry("blend", 0.99, excess=0.93)
    assert "0.980 ± 0.014 (≥ 0.970)" in (line := line_of([older, newer], "blend"))
    assert "0.930" in line and "0.930 ±" not in line
    told = "1 of the backdoored models were listed before excess was measured"
    assert told in summary.table([older, newer, entry("clean", mode=None)])
    assert summary.EXCESS not in summary.table([older])
    assert "before excess" not in summary.table([newer])


def test_all_to_all_and_architectures_have_rows_of_their_own():
    text = summary.table(
        [
            entry("blend", 0.5, mode="all_to_all"),
            entry("blend", 0.9),
            entry("blend", 0.7, architecture="vgg16"),
        ]
    )
    lines = [line.split() for line in text.splitlines() if "blend" in line]
    assert [(line[1:-4], line[-2]) for line in lines] == [
        (["resnet18"], "0.900"),
        (["vgg16"], "0.700"),
        (["all", "to", "all", "resnet18"], "0.500"),
    ]


def test_cross_and_non_victim_accuracies_are_shown_where_they_are_known():
    line = line_of(
        [entry("ssdt", 0.9, cross_accuracy=0.81, non_victim_accuracy=0.72)], "ssdt"
    )
    assert line.split()[-3:-1] == ["0.810", "0.720"]


def test_an_empty_zoo_has_a_heading_alone():
    assert "attack" in summary.table([])
