"""The state: reading PyTorch's layout is in `test_handoff.py`; here are writing it, refusals and selection."""

import pytest
import torch

from seq2seq.nn import RNNState


def test_a_number_of_rows_that_does_not_fit_the_directions_is_refused():
    with pytest.raises(ValueError, match="h_n has 3 rows, which is not a multiple of 2 directions"):
        RNNState.from_torch(torch.zeros(3, 4, 7), directions=2)


@pytest.mark.parametrize("with_cell", [False, True])
def test_a_state_goes_back_to_pytorch_as_it_came(with_cell):
    h_n = torch.arange(6 * 4 * 5.0).view(6, 4, 5)  # three layers, two directions, four sequences, five units

    back = RNNState.from_torch((h_n, -h_n) if with_cell else h_n, directions=2).to_torch()

    assert torch.equal(back[0] if with_cell else back, h_n)
    assert not with_cell or torch.equal(back[1], -h_n)


@pytest.mark.parametrize("with_cell", [False, True])
def test_sequences_are_selected_in_any_order_and_number(with_cell):
    h = torch.arange(3 * 2 * 4 * 5).view(3, 2, 4, 5)

    selected = RNNState(h, -h if with_cell else None).select(torch.tensor([3, 0, 3]))

    assert torch.equal(selected.h, torch.stack([h[:, :, 3], h[:, :, 0], h[:, :, 3]], dim=2))
    assert torch.equal(selected.c, -selected.h) if with_cell else selected.c is None


@pytest.mark.parametrize("with_cell", [False, True])
def test_layers_can_be_split_and_stacked(with_cell):
    h = torch.arange(3 * 2 * 4 * 5).view(3, 2, 4, 5)
    state = RNNState(h, -h if with_cell else None)

    layers = state.layers()

    assert [layer.h.unique().numel() for layer in layers] == [2 * 4 * 5] * 3
    assert torch.equal(layers[2].h[0], h[2])
    again = RNNState.stack(layers)
    assert torch.equal(again.h, h)
    assert torch.equal(again.c, -h) if with_cell else again.c is None
