"""Our recurrence is PyTorch's: the same results and the same gradients, sooner."""

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from seq2seq.nn.fast import rnn as recurrence
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.fast.rnn import run
from seq2seq.nn.state import RNNS, RNNState
from seq2seq.training.build import products_in

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


def batch(lengths: list[int]) -> tuple[Tensor, Packing, PackedSequence]:
    """Return the tokens of a batch packed by us, where they stand, and the batch packed by PyTorch."""
    padded = torch.randn(len(lengths), max(lengths), E, dtype=torch.double, requires_grad=True)
    packing = Packing.of(torch.tensor(lengths), steps=max(lengths))
    packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    return packing.pack(padded).detach().requires_grad_(), packing, packed


def random_state(cell: str, layers: int, directions: int, rows: int) -> RNNState:
    """Return a state to start from."""
    h, c = torch.randn(2, layers, directions, rows, H, dtype=torch.double).unbind()
    return RNNState(h.requires_grad_(), c.requires_grad_() if cell == "lstm" else None)


LENGTHS = [6, 3, 5, 1]
cells, counts = st.sampled_from(sorted(RNNS)), st.integers(1, 3)
rows_of_any_lengths = st.lists(st.integers(1, T), min_size=1, max_size=5)


@given(
    cell=cells,
    layers=counts,
    directions=st.integers(1, 2),
    lengths=rows_of_any_lengths,
    given_state=st.booleans(),
    products=st.sampled_from(["highest", "medium"]),
)
@example(cell="gru", layers=2, directions=2, lengths=[9, 17, 11], given_state=True, products="medium")
@example(cell="lstm", layers=2, directions=2, lengths=[9, 17, 11], given_state=True, products="medium")
def test_packed_rows_of_any_lengths_give_what_pytorch_gives(
    cell: str, layers: int, directions: int, lengths: list[int], given_state: bool, products: str
) -> None:
    """With ``medium``, a packed batch is filled up with tokens of no row; in double precision all is exact still."""
    rnn = network(cell, layers, directions)
    tokens, packing, packed = batch(lengths)
    state = random_state(cell, layers, directions, len(lengths)) if given_state else None
    theirs = packed._replace(data=tokens)

    with products_in(products):
        outputs, after = run(rnn, tokens, packing, state and packing.sort(state))
    after = packing.unsort(after)
    expected, h_n = rnn(theirs, state and state.to_torch())
    expected_after = RNNState.from_torch(h_n, directions)

    torch.testing.assert_close((outputs, *after), (expected.data, *expected_after), **TOLERANCE)
    of = [tokens, *(part for part in state or () if part is not None), *rnn.parameters()]
    torch.testing.assert_close(gradients(outputs, after, of), gradients(expected.data, expected_after, of), **TOLERANCE)
    with torch.no_grad():  # by PyTorch, from the same tokens and state
        ours, last = run(rnn, tokens, packing, state and packing.sort(state))
    torch.testing.assert_close((ours, *packing.unsort(last)), (outputs, *after), **TOLERANCE)


@given(cell=cells, layers=counts, directions=st.integers(1, 2), steps=st.integers(1, T), rows=st.integers(1, B))
def test_rows_of_one_length_give_what_pytorch_gives(
    cell: str, layers: int, directions: int, steps: int, rows: int
) -> None:
    rnn = network(cell, layers, directions)
    inputs = torch.randn(rows, steps, E, dtype=torch.double, requires_grad=True)
    state, packing = random_state(cell, layers, directions, rows), Packing.full(rows, steps)

    tokens, after = run(rnn, packing.pack(inputs), packing, state)
    outputs = packing.pad(tokens)
    expected, h_n = rnn(inputs, state.to_torch())
    expected_after = RNNState.from_torch(h_n, directions)

    torch.testing.assert_close((outputs, *after), (expected, *expected_after), **TOLERANCE)
    of = [inputs, *(part for part in state if part is not None), *rnn.parameters()]
    torch.testing.assert_close(gradients(outputs, after, of), gradients(expected, expected_after, of), **TOLERANCE)


def test_packed_batches_come_in_few_sizes_where_each_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(recurrence, "run_direction", spied(recurrence.run_direction, seen))
    rnn = network("gru", layers=1, directions=1)
    tokens, packing, _ = batch([9, 17, 11])

    run(rnn, tokens, packing)
    with products_in("medium"):
        run(rnn, tokens, packing)

    assert seen == [37, 40]


@pytest.mark.parametrize("cell", RNNS)
def test_what_memory_held_before_does_not_reach_the_results_of_a_batch_that_is_filled_up(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rnn = network(cell, layers=2, directions=2)
    tokens, packing, _ = batch([9, 17, 11])
    of = [tokens, *rnn.parameters()]
    expected = gradients(*run(rnn, tokens, packing), of)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # with what is not a number

    torch.use_deterministic_algorithms(True)
    try:
        with products_in("medium"):
            found = gradients(*run(rnn, tokens, packing), of)
    finally:
        torch.use_deterministic_algorithms(False)

    torch.testing.assert_close(found, expected, **TOLERANCE)


def spied(run_direction: Any, seen: list[int]) -> Any:
    """Return the function, which also notes how many tokens it is given."""

    def spy(mode: str, tensors: list[Tensor], sizes: list[int]) -> tuple[Tensor, ...]:
        seen.append(len(tensors[0]))
        return run_direction(mode, tensors, sizes)

    return spy


@pytest.mark.parametrize("cell", RNNS)
def test_layers_are_joined_by_dropout_in_training_only(cell: str) -> None:
    rnn = network(cell, layers=2, directions=2, dropout=0.3)
    tokens, packing, packed = batch(LENGTHS)

    trained, state = run(rnn, tokens, packing)
    tested, tested_state = run(rnn.eval(), tokens, packing)

    assert torch.equal(state.h[0], tested_state.h[0]), "nothing is dropped below the bottom layer"
    assert not torch.equal(state.h[1], tested_state.h[1])
    torch.testing.assert_close(tested, rnn(packed)[0].data, **TOLERANCE)
    assert not torch.equal(trained, tested)


@pytest.mark.parametrize("cell", RNNS)
def test_autocast_takes_products_in_its_precision_and_keeps_the_state(cell: str) -> None:
    rnn = network(cell, layers=2, directions=2).float()
    tokens, packing, _ = batch(LENGTHS)
    parameters = list(rnn.parameters())
    exact, _ = run(rnn, tokens.float(), packing)
    expected = torch.autograd.grad(exact.sum(), parameters)

    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = run(rnn, tokens.float(), packing)
    found = torch.autograd.grad(outputs.sum(), parameters)

    assert outputs.dtype == state.h.dtype == torch.float32
    assert 0 < (outputs - exact).abs().max() < 0.03
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1)


def test_a_cell_that_counts_to_three_hundred_gets_there_under_autocast() -> None:
    rnn = network("lstm", layers=1, directions=1).float()
    for parameter in rnn.parameters():
        nn.init.zeros_(parameter)
    # i = f = g = 1: c grows by one a step; bfloat16 stops at 256
    nn.init.constant_(rnn.get_parameter("bias_ih_l0"), 20)
    packing = Packing.of(torch.tensor([270, 300]), steps=300)

    with torch.autocast("cpu", torch.bfloat16):
        _, state = run(rnn, torch.zeros(570, E), packing)

    assert state.c is not None
    assert packing.unsort(state).c[0, 0, :, 0].tolist() == [270, 300]


@pytest.mark.parametrize("cell", RNNS)
def test_gradients_on_a_cpu_do_not_go_through_pytorchs_own(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rnn = network(cell, layers=2, directions=2)
    monkeypatch.setattr(rnn, "forward", None)
    tokens, packing, _ = batch(LENGTHS)

    run(rnn, tokens, packing)

    if cell == "gru":  # for rows of one length, PyTorch has a fast LSTM
        run(rnn, torch.randn(B * T, E, dtype=torch.double), Packing.full(B, T))


@pytest.mark.parametrize("cell", RNNS)
def test_weights_that_a_hook_sets_are_those_that_count(cell: str) -> None:
    rnn = network(cell, layers=1, directions=1)
    prune.l1_unstructured(rnn, "weight_hh_l0", amount=0.5)
    rnn.load_state_dict({name: weight + 1 for name, weight in rnn.state_dict().items()})
    tokens, packing, packed = batch(LENGTHS)

    outputs, _ = run(rnn, tokens, packing)

    torch.testing.assert_close(outputs, rnn(packed)[0].data, **TOLERANCE)


@pytest.mark.parametrize(("layers", "rows"), [(2, B + 1), (1, B), (2, 1)])
def test_a_state_of_another_shape_is_refused(layers: int, rows: int) -> None:
    rnn = network("gru", layers=2, directions=1)
    state = RNNState(torch.zeros(layers, 1, rows, H, dtype=torch.double))

    with pytest.raises(ValueError, match=rf"the state is \({layers}, 1, {rows}, 7\), and must be .* = \(2, 1, 4, 7\)"):
        run(rnn, torch.zeros(B * T, E, dtype=torch.double), Packing.full(B, T), state)


@pytest.mark.parametrize("cell", RNNS)
def test_second_derivatives_are_refused(cell: str) -> None:
    rnn = network(cell, layers=1, directions=1)
    inputs = torch.randn(1, 2, E, dtype=torch.double, requires_grad=True)
    outputs, _ = run(rnn, inputs.flatten(0, 1), Packing.of(torch.tensor([2]), steps=2))

    (first,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
