"""Packed tokens stand where PyTorch would put them, and come back to where they were."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.state import RNNState

T = 6
rows_of_any_lengths = st.lists(st.integers(1, T), min_size=1, max_size=6)


@given(lengths=rows_of_any_lengths, steps=st.integers(T, T + 2))
def test_tokens_are_packed_and_padded_as_by_pytorch(lengths: list[int], steps: int) -> None:
    padded = torch.randn(len(lengths), steps, 2)
    packing = Packing.of(torch.tensor(lengths), steps)
    theirs = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True, enforce_sorted=False)

    tokens = packing.pack(padded)

    assert torch.equal(tokens, theirs.data)
    assert packing.sizes == theirs.batch_sizes.tolist()
    assert torch.equal(packing.pad(tokens), pad_packed_sequence(theirs, batch_first=True, total_length=steps)[0])


@given(lengths=rows_of_any_lengths)
def test_a_token_gets_the_gradient_of_its_place_and_padding_gets_none(lengths: list[int]) -> None:
    packing = Packing.of(torch.tensor(lengths), T)
    padded = torch.randn(len(lengths), T, 2, requires_grad=True)
    weights = torch.randn(len(lengths), T, 2)

    (packing.pad(packing.pack(padded)) * weights).sum().backward()

    real = torch.arange(T) < torch.tensor(lengths).unsqueeze(1)
    assert torch.equal(padded.grad, weights * real.unsqueeze(2))


@given(lengths=rows_of_any_lengths)
def test_rows_are_sorted_from_the_longest_down_and_back(lengths: list[int]) -> None:
    packing = Packing.of(torch.tensor(lengths), T)
    state = RNNState(torch.tensor(lengths).view(1, 1, -1, 1))

    longest_first = packing.sort(state)

    assert longest_first.h.flatten().tolist() == sorted(lengths, reverse=True)
    assert torch.equal(packing.unsort(longest_first).h, state.h)


@given(rows=st.integers(1, 4), steps=st.integers(1, T))
def test_without_padding_tokens_stand_as_with_equal_lengths(rows: int, steps: int) -> None:
    padded = torch.randn(rows, steps, 2)
    full, equal = Packing.full(rows, steps), Packing.of(torch.full((rows,), steps), steps)

    assert full.sizes == equal.sizes
    assert torch.equal(full.pack(padded), equal.pack(padded))
    assert torch.equal(full.pad(full.pack(padded)), padded)
