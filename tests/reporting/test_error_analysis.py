"""The analysis of errors, against cases counted by hand."""

import pytest

from seq2seq.reporting.errors import NOTHING, Case, by_length, by_rarest, confusions, error_picture, write_errors
from seq2seq.reporting.tables import Prediction

pytestmark = pytest.mark.pictures


def case(predicted, reference, length=3, rank=1):
    correct = predicted == reference
    texts = Prediction(f"source {predicted}", " ".join(predicted), (" ".join(reference),), correct, "")
    return Case(texts, length, rank, list(predicted), list(reference))


CASES = [
    case("abc", "abc", length=3, rank=4),
    case("axc", "abc", length=3, rank=12),
    case("ac", "abc", length=5, rank=None),
    case("axcd", "abc", length=5, rank=11),
    case("axc", "abc", length=3, rank=10),
]


def test_confusions_are_counted_with_the_fewest_edits():
    assert confusions(CASES) == {("b", "x"): 3, ("b", NOTHING): 1, (NOTHING, "d"): 1}


def test_accuracy_by_length():
    assert by_length(CASES) == [("3", 3, 1 / 3), ("5", 2, 0.0)]


def test_accuracy_by_the_rarest_symbol_and_unknown_ones_last():
    assert by_rarest(CASES) == [("1-10", 2, 0.5), ("11-20", 2, 0.0), ("unknown", 1, 0.0)]
    assert by_rarest([case("a", "a", rank=20_000)]) == [("above 10000", 1, 1.0)]


def test_errors_are_listed_worst_first_without_what_is_right(tmp_path):
    write_errors(tmp_path / "errors.tsv", CASES)

    lines = (tmp_path / "errors.tsv").read_text().splitlines()
    assert lines[0] == "edits\tsource\tprediction\treference"
    assert [line[0] for line in lines[1:]] == ["2", "1", "1", "1"]
    assert lines[1] == "2\tsource axcd\ta x c d\ta b c"


def test_every_part_of_the_picture_has_a_title_of_its_own():
    titles = [axes.get_title() for axes in error_picture(CASES).axes]

    assert len(set(titles)) == len(titles) == 3
