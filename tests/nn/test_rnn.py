"""Recurrent layers over padded batches: each sequence is run as if it were alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from seq2seq.nn import RNNState, fast
from seq2seq.nn.rnn import CELLS, make_dropout, make_rnn, run_rnn

B, T, H, E = 4, 6, 7, 8
LENGTHS = torch.tensor([3, 5, 1, 4])  # neither sorted nor equal, and shorter than T
pytestmark = pytest.mark.usefixtures("float64")

every_rnn = pytest.mark.parametrize(
    ("cell", "layers", "directions", "is_fast"),
    [(cell, n, d, is_fast) for cell in CELLS for n in (1, 3) for d in (1, 2) for is_fast in (False, True)],
)


def make(cell="gru", layers=2, directions=1, is_fast=False):
    torch.manual_seed(0)
    return make_rnn(cell, E, H, layers, bidirectional=directions == 2, fast=is_fast)


def make_inputs():
    torch.manual_seed(1)
    return torch.randn(B, T, E)


def make_state(rnn, batch=B):
    torch.manual_seed(2)
    h, c = torch.randn(2, rnn.num_layers, 1 + rnn.bidirectional, batch, H)
    return RNNState(h, c if rnn.mode == "LSTM" else None)


def parts(state):
    return [part for part in state if part is not None]


@every_rnn
def test_a_sequence_alone_gives_what_it_gives_in_a_padded_batch(cell, layers, directions, is_fast):
    rnn, inputs = make(cell, layers, directions, is_fast), make_inputs()
    initial = make_state(rnn)

    outputs, final = run_rnn(rnn, inputs, LENGTHS, initial)

    for index, length in enumerate(LENGTHS.tolist()):
        state = initial.select(torch.tensor([index]))
        alone, end = run_rnn(rnn, inputs[index : index + 1, :length], state=state)
        torch.testing.assert_close(outputs[index, :length], alone[0], rtol=0, atol=1e-12)
        for part, expected in zip(parts(final), parts(end), strict=True):
            torch.testing.assert_close(part[:, :, index], expected[:, :, 0], rtol=0, atol=1e-12)


@every_rnn
def test_padding_is_never_read(cell, layers, directions, is_fast):
    rnn, inputs = make(cell, layers, directions, is_fast), make_inputs()
    padding = (torch.arange(T) >= LENGTHS.unsqueeze(1)).unsqueeze(-1)

    outputs, final = run_rnn(rnn, inputs, LENGTHS)
    with_nan, final_with_nan = run_rnn(rnn, inputs.masked_fill(padding, torch.nan), LENGTHS)

    assert torch.equal(outputs, with_nan)
    for part, other in zip(parts(final), parts(final_with_nan), strict=True):
        assert torch.equal(part, other)


@every_rnn
def test_outputs_are_zero_at_padding_and_as_long_as_the_input(cell, layers, directions, is_fast):
    outputs, _ = run_rnn(make(cell, layers, directions, is_fast), make_inputs(), LENGTHS)

    assert outputs.shape == (B, T, directions * H)  # although the longest sequence has fewer steps
    assert torch.equal(outputs.any(dim=-1), torch.arange(T) < LENGTHS.unsqueeze(1))


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@given(order=st.permutations(range(B)))
def test_the_order_of_the_sequences_changes_nothing(cell, is_fast, order):
    rnn, inputs = make(cell, directions=2, is_fast=is_fast), make_inputs()
    initial, order = make_state(rnn), torch.tensor(order)
    outputs, final = run_rnn(rnn, inputs, LENGTHS, initial)

    mixed_outputs, mixed_final = run_rnn(rnn, inputs[order], LENGTHS[order], initial.select(order))

    torch.testing.assert_close(mixed_outputs, outputs[order], rtol=0, atol=1e-12)
    for part, expected in zip(parts(mixed_final), parts(final.select(order)), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("layers", "batch"), [(2, B + 1), (1, B), (2, 1)])
def test_a_state_of_another_shape_is_refused(layers, batch, lengths):
    state = RNNState(torch.zeros(layers, 1, batch, H))

    with pytest.raises(
        ValueError,
        match=rf"^the state is \({layers}, 1, {batch}, 7\), and must be \(L, D, B, H\) = \(2, 1, 4, 7\)$",
    ):
        run_rnn(make(), make_inputs(), lengths, state)


def test_an_unknown_cell_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^cell=rnn must be one of gru, lstm$"):
        make_rnn("rnn", E, H)


def test_fast_layers_are_made_only_where_they_are_wanted():
    assert [type(make(cell, is_fast=is_fast)) for cell in CELLS for is_fast in (False, True)] == [
        nn.GRU, fast.GRU, nn.LSTM, fast.LSTM,
    ]  # fmt: skip
    assert [type(make_dropout(0.5, fast=is_fast)) for is_fast in (False, True)] == [nn.Dropout, fast.Dropout]


@pytest.mark.parametrize(("layers", "expected"), [(1, 0.0), (2, 0.3)])
def test_dropout_is_between_layers(layers, expected):
    assert make_rnn("gru", E, H, layers, dropout=0.3).dropout == expected
