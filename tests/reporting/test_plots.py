"""Heatmaps: what they mark."""

import torch

from seq2seq.decoding import Alignment
from seq2seq.reporting.plots import attention_heatmap


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
