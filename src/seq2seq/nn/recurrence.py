"""Recurrent networks of PyTorch, run faster than PyTorch does where we know how.

On a GPU, or for a single step, we do not. For more steps on a CPU, `seq2seq.nn.layers` take the place of ``nn.GRU`` and
``nn.LSTM``, whose parameters and dropout they use; the only difference is that second derivatives cannot be taken.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils.rnn import PackedSequence

from seq2seq.nn.dropout import dropout
from seq2seq.nn.layers import GRULayer, LSTMLayer
from seq2seq.nn.state import RNNState

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(rnn: nn.GRU | nn.LSTM, inputs: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
    """Return what ``rnn(inputs, state)`` returns, with the state by layer and direction.

    Args:
        rnn: With ``batch_first``.
        inputs: ``(B, T, E)``.
        state: Before the first step, ``(L, D, B, H)``.

    Returns:
        The top layer's outputs, ``(B, T, D * H)``, and the state after the last step.
    """
    if not inputs.is_cpu or inputs.size(1) == 1:
        outputs, after = rnn(inputs, state.to_torch())
        return outputs, RNNState.from_torch(after, 1 + rnn.bidirectional)
    rows, steps = inputs.shape[:2]
    outputs, last = run_tokens(rnn, inputs.transpose(0, 1).reshape(steps * rows, -1), [rows] * steps, state)
    return outputs.view(steps, rows, -1).transpose(0, 1), last


def run_packed(rnn: nn.GRU | nn.LSTM, inputs: PackedSequence) -> tuple[PackedSequence, RNNState]:
    """Return what ``rnn(inputs)`` returns, with the state by layer and direction.

    Args:
        rnn: Of any number of layers and directions.
        inputs: Rows of any lengths in any order, packed: N tokens, ``(N, E)``.

    Returns:
        The top layer's outputs, packed likewise, ``(N, D * H)``, and the state after each row's last step.
    """
    tokens, batch_sizes, _, unsorted = inputs
    if not tokens.is_cpu:
        outputs, after = rnn(inputs)
        return outputs, RNNState.from_torch(after, 1 + rnn.bidirectional)
    zero = tokens.new_zeros(rnn.num_layers, 1 + rnn.bidirectional, int(batch_sizes[0]), rnn.hidden_size)
    state = RNNState(zero, zero if rnn.mode == "LSTM" else None)
    outputs, last = run_tokens(rnn, tokens, batch_sizes.tolist(), state)
    return PackedSequence(outputs, *inputs[1:]), last if unsorted is None else last.select(unsorted)


def run_tokens(rnn: nn.RNNBase, tokens: Tensor, sizes: Sequence[int], state: RNNState) -> tuple[Tensor, RNNState]:
    """Run all layers and directions on a CPU.

    Args:
        rnn: Its parameters.
        tokens: Packed as in `seq2seq.nn.layers`, ``(N, E)``.
        sizes: Rows at each step.
        state: Before the first step, ``(L, D, B, H)``.
    """
    orders = [None, mirrored(sizes)] if rnn.bidirectional else [None]  # from the first token, from the last one
    layers = []
    for layer in range(rnn.num_layers):
        if layer > 0:
            tokens = dropout(tokens, rnn.dropout, rnn.training)
        outputs, ends = [], []
        for direction, order in enumerate(orders):
            suffix = f"l{layer}" + "_reverse" * direction
            parameters = [getattr(rnn, f"{name}_{suffix}") for name in PARAMETERS]
            first = [part[layer, direction] for part in state if part is not None]
            after_each, *last = run_direction(rnn.mode, [in_order(tokens, order), *first, *parameters], sizes)
            outputs.append(in_order(after_each, order))
            ends.append(last)
        tokens = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        layers.append(RNNState(*(torch.stack(part).unsqueeze(0) for part in zip(*ends, strict=True))))
    return tokens, RNNState.stack(layers)


def run_direction(mode: str, tensors: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Run a direction of a layer: see `GRULayer.forward` and `LSTMLayer.forward`.

    Under autocast all is computed in its precision, as in PyTorch's own.
    """
    layer = GRULayer if mode == "GRU" else LSTMLayer
    if not torch.is_autocast_enabled("cpu"):
        return layer.apply(*tensors, sizes)
    precision = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        return layer.apply(*(tensor.to(precision) for tensor in tensors), sizes)


def mirrored(sizes: Sequence[int]) -> Tensor:
    """Return, for each packed token, which token stands where it does when its row is read from the end, ``(N)``.

    Example:
        >>> mirrored([2, 2, 1]).tolist()  # a row of three, tokens 0, 2 and 4, and one of two, tokens 1 and 3
        [4, 3, 2, 1, 0]
    """
    rows_at = torch.tensor(sizes)
    lengths = (rows_at.unsqueeze(1) > torch.arange(sizes[0])).sum(0)
    starts = rows_at.cumsum(0) - rows_at
    steps = torch.arange(len(sizes)).repeat_interleave(rows_at)
    rows = torch.arange(len(steps)) - starts[steps]
    return starts[lengths[rows] - 1 - steps] + rows


def in_order(tokens: Tensor, order: Tensor | None) -> Tensor:
    """Return the tokens, ``(N, ...)``, as they are or in an order that is its own inverse."""
    return tokens if order is None else Swapped.apply(tokens, order)


class Swapped(Function):
    """``tokens[order]``, whose gradient needs no sum, because ``order[order]`` is all in place."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor) -> Tensor:  # noqa: ANN401 - as in PyTorch
        """Put the tokens in order."""
        ctx.order = order
        return tokens.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        """Put the gradient back."""
        return grad_outputs[0].index_select(0, ctx.order), None
