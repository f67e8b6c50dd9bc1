"""The tables of a sweep."""

import statistics

import pytest

from seq2seq.runs.sweep import Row, format_interval, write_markdown


def row(number, overrides, rate):
    return Row(str(number), overrides.split(), {"test word error rate": f"{rate:.4f}", "seconds": "9"}, "")


def test_runs_that_differ_in_the_seed_are_one_line_with_format_interval(tmp_path):
    rows = [
        row(0, "model=gru dataset=kor seed=1", 0.20),
        row(1, "model=gru dataset=kor seed=2", 0.22),
        row(2, "model=gru dataset=kor seed=3", 0.24),
        row(3, "model=gru dataset=lit seed=1", 0.10),
        Row("4", ["model=gru", "dataset=lit", "seed=2"], {}, "it failed"),
    ]

    write_markdown(tmp_path / "summary.md", rows)

    assert (tmp_path / "summary.md").read_text().splitlines() == [
        "| overrides | runs | test word error rate | seconds |",
        "| --- | ---: | ---: | ---: |",
        "| `dataset=kor` | 3 | 0.2200 ± 0.0497 | 9.0000 ± 0.0000 |",
        "| `dataset=lit` | 1 | 0.1000 | 9.0000 |",
        "| mean of the lines above | 4 | 0.1600 | 9.0000 |",
        "",
        "All runs: `model=gru`",
        "",
        "1 of 5 runs failed",
    ]


@pytest.mark.parametrize("count", [2, 5, 20, 40])
def test_the_interval_is_that_of_students_t(count):
    # Quantiles for 1, 4, 19 and 39 degrees of freedom, from a printed table; 2 stands for all above 19.
    t = {2: 12.706, 5: 2.776, 20: 2.093, 40: 2.023}[count]
    values = [number / count for number in range(count)]

    half = float(format_interval(values, digits=4).split("±")[1])

    assert half == pytest.approx(t * statistics.stdev(values) / count**0.5, rel=0.015, abs=1e-4)
