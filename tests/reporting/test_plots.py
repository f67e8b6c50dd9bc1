"""Heatmaps: what they mark, and which letters they show."""

import pytest
import torch
from matplotlib import get_data_path

from seq2seq.decoding import Alignment
from seq2seq.reporting import fonts
from seq2seq.reporting.plots import attention_heatmap, save


def dots_in(weights):
    figure = attention_heatmap(Alignment(["a", "b", "c"], ["x", "end"], torch.tensor(weights)))
    (points,) = figure.axes[0].lines
    return sorted(zip(*map(list, points.get_data()), strict=True)), figure.axes[1].get_ylabel()


def test_a_weight_of_exactly_zero_has_a_dot():
    dots, label = dots_in([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])

    assert dots == [(0, 0), (1, 1), (2, 1)]  # column and row
    assert label == "attention weight; a dot: exactly 0"


def test_a_small_weight_has_none():
    assert dots_in([[1e-9, 0.25, 0.75], [0.5, 0.25, 0.25]]) == ([], "attention weight")


HOOKED_D = "\u1d81"  # DejaVu Sans lacks it; STIX, which also comes with matplotlib, has it


@pytest.fixture
def installed(monkeypatch):
    """Lets nothing be installed but some fonts that come with matplotlib."""

    def install(*names):
        files = [f"{get_data_path()}/fonts/ttf/{name}.ttf" for name in names]
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: files)
        monkeypatch.setattr(fonts, "_families", {})
        fonts.font_files.cache_clear()

    yield install
    fonts.font_files.cache_clear()


def labels_in(figure, tmp_path):
    save(figure, tmp_path / "heatmap.png")  # a missing glyph would be a warning, and that an error
    return [
        [label.get_text() for label in axis.get_ticklabels()] for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis)
    ]


@pytest.mark.pictures
def test_a_letter_is_drawn_in_an_installed_font_that_has_it(installed, tmp_path):
    installed("Removed", "STIXGeneral")

    figure = attention_heatmap(Alignment(["a", HOOKED_D], ["end"], torch.tensor([[0.5, 0.5]])))

    assert labels_in(figure, tmp_path) == [["a", HOOKED_D], ["end"]]
    assert figure.axes[0].get_xticklabels()[1].get_fontfamily() == ["DejaVu Sans", "STIXGeneral"]


@pytest.mark.pictures
def test_a_letter_that_no_font_has_is_its_code_point_with_its_name(installed, tmp_path):
    installed()

    figure = attention_heatmap(Alignment(["a", HOOKED_D], [HOOKED_D + "$", "ㄱ"], torch.full((2, 2), 0.5)))

    assert labels_in(figure, tmp_path) == [["a", "U+1D81\nlatin small d with…"], ["U+1D81\\$", "U+3131\nhangul kiyeok"]]


def test_a_character_is_looked_for_once(installed, monkeypatch):
    installed()
    fonts.families(HOOKED_D)
    monkeypatch.delattr(fonts, "FT2Font")  # no font can be opened any more

    assert fonts.printable(HOOKED_D * 2) == "U+1D81U+1D81"
