"""The fast layers equal PyTorch's: the same parameters, results and gradients."""

from typing import Any

import pytest
import torch
from conftest import KINDS, make_model
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from seq2seq.nn import fast
from seq2seq.nn.fast import rnn as fast_rnn

B, T, H, E = 4, 6, 7, 8
LENGTHS = [6, 3, 5, 1]
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
THEIRS = {"gru": nn.GRU, "lstm": nn.LSTM}
every_cell = pytest.mark.parametrize("cell", fast.CELLS)
pytestmark = pytest.mark.usefixtures("float64")


def make(cell: str, layers: int = 2, directions: int = 2, dropout: float = 0.0) -> tuple[nn.RNNBase, nn.RNNBase]:
    """Return a fast network and PyTorch's, with the same parameters."""
    torch.manual_seed(1)
    ours, theirs = (
        kinds[cell](E, H, layers, batch_first=True, bidirectional=directions == 2, dropout=dropout)
        for kinds in (fast.CELLS, THEIRS)
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def packed(inputs: Tensor, lengths: list[int]) -> PackedSequence:
    return pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)


def make_inputs(batch: int = B, steps: int = T) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(batch, steps, E, requires_grad=True)


def make_state(rnn: nn.RNNBase, batch: int) -> Any:
    """Return h or, for an LSTM, h and c to start from."""
    torch.manual_seed(3)
    rows = rnn.num_layers * (1 + rnn.bidirectional)
    h, c = (torch.randn(rows, batch, H, requires_grad=True) for _ in range(2))
    return h if rnn.mode == "GRU" else (h, c)


def tensors_in(*values: Any) -> list[Tensor]:
    """Return the tensors of results or states, without the bookkeeping of a packed sequence."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif value is not None:
            found += tensors_in(*(value[:1] if isinstance(value, PackedSequence) else value))
    return found


def gradients(result: Any, of: list[Tensor]) -> list[Tensor]:
    """Return gradients of a sum in which every number of the result has a weight of its own."""
    generator = torch.Generator().manual_seed(4)
    weighted = [(part * torch.rand(part.shape, generator=generator)).sum() for part in tensors_in(*result)]
    return list(torch.autograd.grad(torch.stack(weighted).sum(), of, retain_graph=True))


def check_equal(ours: nn.RNNBase, theirs: nn.RNNBase, inputs: Any, leaf: Tensor, state: Any) -> None:
    """Assert that both networks give the same results, and the same gradients of everything that goes in."""
    result, expected = ours(inputs, state), theirs(inputs, state)

    torch.testing.assert_close(tensors_in(*result), tensors_in(*expected), **TOLERANCE)
    if isinstance(inputs, PackedSequence):
        for part, other in zip(result[0][1:], expected[0][1:], strict=True):  # batch_sizes and the order
            assert torch.equal(part, other)
    leaves = [leaf, *tensors_in(state)]
    found = gradients(result, [*leaves, *ours.parameters()])
    torch.testing.assert_close(found, gradients(expected, [*leaves, *theirs.parameters()]), **TOLERANCE)


class Kernels:
    """Counts how often the kernels run one direction of a layer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.run_direction = fast_rnn.run_direction
        monkeypatch.setattr(fast_rnn, "run_direction", self)

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        self.calls += 1
        return self.run_direction(*arguments)


cells, counts, sizes = st.sampled_from(sorted(fast.CELLS)), st.integers(1, 3), st.integers(1, B)
any_lengths = st.lists(st.integers(1, T), min_size=1, max_size=5)


@given(cells, counts, st.integers(1, 2), any_lengths, st.booleans())
@example("gru", 2, 2, [9, 17, 11], True)
@example("lstm", 2, 2, [9, 17, 11], True)
def test_packed_sequences_of_any_lengths_give_what_pytorch_gives(
    cell: str, layers: int, directions: int, lengths: list[int], given_state: bool
) -> None:
    ours, theirs = make(cell, layers, directions)
    inputs = make_inputs(len(lengths), max(lengths))

    check_equal(ours, theirs, packed(inputs, lengths), inputs, make_state(ours, len(lengths)) if given_state else None)


@given(cells, counts, st.integers(1, 2), st.integers(1, T), sizes, st.booleans())
def test_padded_sequences_give_what_pytorch_gives(
    cell: str, layers: int, directions: int, steps: int, batch: int, given_state: bool
) -> None:
    ours, theirs = make(cell, layers, directions)
    inputs = make_inputs(batch, steps)

    check_equal(ours, theirs, inputs, inputs, make_state(ours, batch) if given_state else None)


@every_cell
def test_sequences_packed_in_sorted_order_give_what_pytorch_gives(cell: str) -> None:
    ours, theirs = make(cell)
    inputs = make_inputs()
    in_order = pack_padded_sequence(inputs, torch.tensor([6, 4, 4, 1]), batch_first=True)  # no `sorted_indices`

    result, expected = ours(in_order, make_state(ours, B)), theirs(in_order, make_state(ours, B))

    assert result[0].sorted_indices is None
    torch.testing.assert_close(tensors_in(*result), tensors_in(*expected), **TOLERANCE)


@every_cell
def test_only_some_of_the_results_may_be_used(cell: str) -> None:
    ours, theirs = make(cell)
    inputs = make_inputs()

    results, expected = (tensors_in(*rnn(packed(inputs, LENGTHS))) for rnn in (ours, theirs))

    assert len(results) == (2 if cell == "gru" else 3)  # the outputs, h_n and, of an LSTM, c_n
    for part, other in zip(results, expected, strict=True):
        torch.testing.assert_close(gradients([part], [inputs]), gradients([other], [inputs]), **TOLERANCE)


@every_cell
def test_what_memory_held_before_does_not_reach_the_results(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = make(cell)
    inputs = make_inputs()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # with NaN

    torch.use_deterministic_algorithms(True)
    try:
        check_equal(ours, theirs, packed(inputs, LENGTHS), inputs, make_state(ours, B))
    finally:
        torch.use_deterministic_algorithms(False)


# When the kernels run


@every_cell
def test_gradients_of_packed_sequences_come_from_the_kernels(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = make(cell, layers=3)
    kernels = Kernels(monkeypatch)

    ours(packed(make_inputs(), LENGTHS))

    assert kernels.calls == 6


@pytest.mark.parametrize(
    ("cell", "steps", "expected"), [("gru", 2, 4), ("gru", 1, 0), ("lstm", 6, 0)], ids=["gru", "one step", "lstm"]
)
def test_of_padded_sequences_the_kernels_run_those_of_a_gru_if_there_are_several_steps(
    cell: str, steps: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = make(cell)
    kernels = Kernels(monkeypatch)

    ours(make_inputs(steps=steps))

    assert kernels.calls == expected


@every_cell
def test_without_gradients_the_kernels_do_not_run_and_results_are_the_same(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = make(cell)
    inputs = packed(make_inputs(), LENGTHS)
    expected = tensors_in(*ours(inputs))
    kernels = Kernels(monkeypatch)

    with torch.no_grad():
        found = tensors_in(*ours(inputs))

    assert kernels.calls == 0
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("cell", "option"),
    [("gru", {"bias": False}), ("gru", {"batch_first": False}), ("lstm", {"bias": False}),
     ("lstm", {"batch_first": False}), ("lstm", {"proj_size": 3})],
)  # fmt: skip
def test_pytorch_runs_a_network_that_the_kernels_cannot(
    cell: str, option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (kinds[cell](E, H, **{"batch_first": True} | option) for kinds in (fast.CELLS, THEIRS))
    theirs.load_state_dict(ours.state_dict())
    kernels, inputs = Kernels(monkeypatch), make_inputs()

    found, expected = (tensors_in(*rnn(inputs), *rnn(packed(inputs, LENGTHS))) for rnn in (ours, theirs))

    assert kernels.calls == 0
    torch.testing.assert_close(found, expected, **TOLERANCE)


# What else layers do


@every_cell
def test_units_are_dropped_between_layers_in_training_only(cell: str) -> None:
    ours, theirs = make(cell, dropout=0.3)
    inputs = packed(make_inputs(), LENGTHS)

    trained, trained_state = ours(inputs)
    evaluated, state = ours.eval()(inputs)

    for part, other in zip(tensors_in(trained_state), tensors_in(state), strict=True):
        assert torch.equal(part[:2], other[:2]), "nothing is dropped below the bottom layer"
        assert not torch.isclose(part[2:], other[2:]).any()
    torch.testing.assert_close(evaluated.data, theirs.eval()(inputs)[0].data, **TOLERANCE)
    assert not torch.equal(trained.data, evaluated.data)


@every_cell
def test_autocast_multiplies_matrices_in_its_precision_and_keeps_the_state(cell: str) -> None:
    ours = make(cell)[0].float()
    inputs = packed(make_inputs().float(), LENGTHS)
    parameters = list(ours.parameters())
    exact, _ = ours(inputs)
    expected = torch.autograd.grad(exact.data.sum(), parameters)

    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = ours(inputs)
    found = torch.autograd.grad(outputs.data.sum(), parameters)

    assert {part.dtype for part in tensors_in(outputs, state)} == {torch.float32}
    assert 0 < (outputs.data - exact.data).abs().max() < 0.03
    for gradient, other in zip(found, expected, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, other, rtol=0.1, atol=0.1)


@every_cell
def test_a_state_in_lower_precision_is_taken_under_autocast(cell: str) -> None:
    ours = make(cell)[0].float()
    inputs = packed(make_inputs().float(), LENGTHS)
    state = tensors_in(make_state(ours, B))
    low, single = ([part.bfloat16().to(dtype) for part in state] for dtype in (torch.bfloat16, torch.float32))

    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (tensors_in(*ours(inputs, *(s if cell == "gru" else [s]))) for s in (low, single))

    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part, other)


def test_a_cell_that_counts_to_three_hundred_gets_there_under_autocast() -> None:
    ours = make("lstm", layers=1, directions=1)[0].float()
    for parameter in ours.parameters():
        nn.init.zeros_(parameter)
    # i = f = g = 1: c grows by one a step; bfloat16 stops at 256
    nn.init.constant_(ours.get_parameter("bias_ih_l0"), 20)

    with torch.autocast("cpu", torch.bfloat16):
        _, (_, c_n) = ours(packed(torch.zeros(2, 300, E, dtype=torch.float32), [270, 300]))

    assert c_n[0, :, 0].tolist() == [270, 300]


@every_cell
def test_a_weight_that_a_hook_sets_is_the_one_that_is_used(cell: str) -> None:
    ours, theirs = make(cell, layers=1, directions=1)
    for rnn in (ours, theirs):
        prune.l1_unstructured(rnn, "weight_hh_l0", amount=0.5)
        rnn.load_state_dict({name: weight + 1 for name, weight in rnn.state_dict().items()})
    inputs = packed(make_inputs(), LENGTHS)

    torch.testing.assert_close(tensors_in(*ours(inputs)), tensors_in(*theirs(inputs)), **TOLERANCE)


@every_cell
def test_second_derivatives_are_refused(cell: str) -> None:
    ours, _ = make(cell, layers=1, directions=1)
    inputs = make_inputs(batch=1, steps=2)
    outputs, _ = ours(packed(inputs, [2]))

    (first,) = torch.autograd.grad(outputs.data.square().sum(), inputs, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# Whole models


def loss_of(model: nn.Module, logits: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and the gradients of all parameters."""
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


@every_cell
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_fast_layers_has_the_same_logits_loss_and_gradients(
    kind: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = Kernels(monkeypatch)
    ours, theirs = (make_model(fast=is_fast, cell=cell, decoder=KINDS[kind]) for is_fast in (True, False))
    theirs.load_state_dict(ours.state_dict())
    source, target = torch.randint(0, 10, (B, T)), torch.randint(0, 9, (B, T + 1))

    results = [model.train()(source, torch.tensor(LENGTHS), target[:, :-1]) for model in (ours, theirs)]

    decoder_calls = 2 if cell == "gru" and kind in ("luong", "gnmt") else 0  # the other kinds run one step at a time
    if kind in ("luong", "luong with input feeding", "gnmt", "bahdanau"):  # not a decoder of one's own
        assert kernels.calls == 4 + decoder_calls  # by the first model alone
    torch.testing.assert_close(results[0].logits, results[1].logits, **TOLERANCE)
    losses = [loss_of(m, r.logits, target[:, 1:]) for m, r in zip((ours, theirs), results, strict=True)]
    torch.testing.assert_close(losses[0], losses[1], **TOLERANCE)
