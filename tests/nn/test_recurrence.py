"""Our recurrence is PyTorch's: the same results and the same gradients, sooner."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from seq2seq.nn.recurrence import run, run_packed
from seq2seq.nn.state import RNNS, RNNState

B, T, H, E = 4, 6, 7, 8
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def network(cell: str, layers: int, directions: int, dropout: float = 0.0) -> nn.GRU | nn.LSTM:
    """Return a network of PyTorch's in double precision."""
    torch.manual_seed(1)
    return RNNS[cell](
        E, H, layers, batch_first=True, bidirectional=directions == 2, dropout=dropout, dtype=torch.double
    )


def gradients(result: Tensor, state: RNNState, of: list[Tensor]) -> list[Tensor]:
    """Return gradients of a sum in which everything that comes out has a weight of its own."""
    parts = [result, *(part for part in state if part is not None)]
    generator = torch.Generator().manual_seed(2)
    weighed = [(part * torch.rand(part.shape, generator=generator, dtype=torch.double)).sum() for part in parts]
    return list(torch.autograd.grad(torch.stack(weighed).sum(), of, retain_graph=True))


cells, counts = st.sampled_from(sorted(RNNS)), st.integers(1, 3)


@given(
    cell=cells, layers=counts, directions=st.integers(1, 2), lengths=st.lists(st.integers(1, T), min_size=1, max_size=5)
)
def test_packed_rows_of_any_lengths_give_what_pytorch_gives(
    cell: str, layers: int, directions: int, lengths: list[int]
) -> None:
    rnn = network(cell, layers, directions)
    padded = torch.randn(len(lengths), max(lengths), E, dtype=torch.double, requires_grad=True)
    packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True, enforce_sorted=False)

    outputs, state = run_packed(rnn, packed)
    expected, h_n = rnn(packed)
    expected_state = RNNState.from_torch(h_n, directions)

    torch.testing.assert_close((outputs.data, *state), (expected.data, *expected_state), **TOLERANCE)
    of = [padded, *rnn.parameters()]
    ours, theirs = gradients(outputs.data, state, of), gradients(expected.data, expected_state, of)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


@given(cell=cells, layers=counts, directions=st.integers(1, 2), steps=st.integers(1, T), rows=st.integers(1, B))
def test_steps_from_a_given_state_are_those_of_pytorch(
    cell: str, layers: int, directions: int, steps: int, rows: int
) -> None:
    rnn = network(cell, layers, directions)
    inputs = torch.randn(rows, steps, E, dtype=torch.double, requires_grad=True)
    h, c = torch.randn(2, layers, directions, rows, H, dtype=torch.double).requires_grad_().unbind()
    state = RNNState(h, c if cell == "lstm" else None)

    outputs, after = run(rnn, inputs, state)
    expected, h_n = rnn(inputs, state.to_torch())
    expected_after = RNNState.from_torch(h_n, directions)

    torch.testing.assert_close((outputs, *after), (expected, *expected_after), **TOLERANCE)
    of = [inputs, *(part for part in state if part is not None), *rnn.parameters()]
    torch.testing.assert_close(gradients(outputs, after, of), gradients(expected, expected_after, of), **TOLERANCE)


@pytest.mark.parametrize("cell", RNNS)
def test_layers_are_joined_by_dropout_in_training_only(cell: str) -> None:
    rnn = network(cell, layers=2, directions=2, dropout=0.3)
    packed = pack_padded_sequence(torch.randn(B, T, E, dtype=torch.double), torch.tensor([6, 3, 5, 1]), True, False)

    trained, state = run_packed(rnn, packed)
    tested, tested_state = run_packed(rnn.eval(), packed)

    assert torch.equal(state.h[0], tested_state.h[0]), "nothing is dropped below the bottom layer"
    assert not torch.equal(state.h[1], tested_state.h[1])
    assert torch.equal(tested.data, rnn(packed)[0].data) or torch.allclose(
        tested.data, rnn(packed)[0].data, **TOLERANCE
    )
    assert not torch.equal(trained.data, tested.data)


@pytest.mark.parametrize("cell", RNNS)
def test_autocast_takes_products_in_its_precision_and_keeps_the_state(cell: str) -> None:
    rnn = network(cell, layers=2, directions=2).float()
    packed = pack_padded_sequence(torch.randn(B, T, E), torch.tensor([6, 3, 5, 1]), True, False)
    parameters = list(rnn.parameters())
    exact, _ = run_packed(rnn, packed)
    expected = torch.autograd.grad(exact.data.sum(), parameters)

    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = run_packed(rnn, packed)
    found = torch.autograd.grad(outputs.data.sum(), parameters)

    assert outputs.data.dtype == state.h.dtype == torch.float32
    assert 0 < (outputs.data - exact.data).abs().max() < 0.03
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1)


def test_a_cell_that_counts_to_three_hundred_gets_there_under_autocast() -> None:
    rnn = network("lstm", layers=1, directions=1).float()
    for parameter in rnn.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(
        rnn.get_parameter("bias_ih_l0"), 20
    )  # i = f = g = 1: c grows by one a step; bfloat16 stops at 256
    packed = pack_padded_sequence(torch.zeros(2, 300, E), torch.tensor([270, 300]), True, False)

    with torch.autocast("cpu", torch.bfloat16):
        _, state = run_packed(rnn, packed)

    assert state.c is not None
    assert state.c[0, 0, :, 0].tolist() == [270, 300]


@pytest.mark.parametrize("cell", RNNS)
def test_gradients_on_a_cpu_do_not_go_through_pytorchs_own(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rnn = network(cell, layers=2, directions=2)
    monkeypatch.setattr(rnn, "forward", None)
    packed = pack_padded_sequence(torch.randn(B, T, E, dtype=torch.double), torch.tensor([6, 3, 5, 1]), True, False)

    run_packed(rnn, packed)

    if cell == "gru":  # for rows of one length, PyTorch has a fast LSTM
        run(rnn, torch.randn(B, T, E, dtype=torch.double), RNNState(torch.zeros(2, 2, B, H, dtype=torch.double)))


@pytest.mark.parametrize("cell", RNNS)
def test_weights_that_a_hook_sets_are_those_that_count(cell: str) -> None:
    rnn = network(cell, layers=1, directions=1)
    prune.l1_unstructured(rnn, "weight_hh_l0", amount=0.5)
    rnn.load_state_dict({name: weight + 1 for name, weight in rnn.state_dict().items()})
    packed = pack_padded_sequence(torch.randn(B, T, E, dtype=torch.double), torch.tensor([6, 3, 5, 1]), True, False)

    outputs, _ = run_packed(rnn, packed)

    torch.testing.assert_close(outputs.data, rnn(packed)[0].data, **TOLERANCE)


@pytest.mark.parametrize(("layers", "rows"), [(2, B + 1), (1, B), (2, 1)])
def test_a_state_of_another_shape_is_refused(layers: int, rows: int) -> None:
    rnn = network("gru", layers=2, directions=1)
    state = RNNState(torch.zeros(layers, 1, rows, H, dtype=torch.double))

    with pytest.raises(ValueError, match=rf"the state is \({layers}, 1, {rows}, 7\), and must be .* = \(2, 1, 4, 7\)"):
        run(rnn, torch.zeros(B, T, E, dtype=torch.double), state)


@pytest.mark.parametrize("cell", RNNS)
def test_second_derivatives_are_refused(cell: str) -> None:
    rnn = network(cell, layers=1, directions=1)
    inputs = torch.randn(1, 2, E, dtype=torch.double, requires_grad=True)
    outputs, _ = run_packed(rnn, PackedSequence(inputs.flatten(0, 1), torch.tensor([1, 1])))

    (first,) = torch.autograd.grad(outputs.data.square().sum(), inputs, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
