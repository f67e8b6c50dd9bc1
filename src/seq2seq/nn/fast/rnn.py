"""``nn.GRU`` and ``nn.LSTM`` that train faster on a CPU, with the same parameters, arguments and results.

Under autocast, matrices are multiplied in lower precision, but the state stays in 32 bits: in bfloat16, small updates
would be rounded away. Second derivatives and forward-mode differentiation are not supported.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils.rnn import PackedSequence

from seq2seq.nn.fast.dropout import dropout
from seq2seq.nn.fast.kernels import GRULayer, LSTMLayer

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class GRU(nn.GRU):
    """``nn.GRU`` that runs `GRULayer` on a CPU while gradients are enabled."""

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:  # noqa: A002  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what ``nn.GRU`` returns."""
        if not can_use_fast_path(self, input):
            return super().forward(input, hx)
        outputs, (h_n,) = run(self, input, [hx])
        return outputs, h_n


class LSTM(nn.LSTM):
    """``nn.LSTM`` that runs `LSTMLayer` on a CPU while gradients are enabled and the input is packed."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor | PackedSequence,  # noqa: A002
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Return what ``nn.LSTM`` returns."""
        if not can_use_fast_path(self, input):
            return super().forward(input, hx)
        outputs, (h_n, c_n) = run(self, input, hx or [None, None])
        return outputs, (h_n, c_n)


def can_use_fast_path(rnn: nn.RNNBase, inputs: Tensor | PackedSequence) -> bool:
    """Return whether the kernels support this network and input, and are faster than PyTorch.

    They are not faster on a single step, or on an LSTM's padded input.
    """
    if isinstance(inputs, PackedSequence):
        fits = inputs.data.dim() == 2
    else:
        fits = inputs.dim() == 3 and inputs.size(1) > 1 and rnn.mode == "GRU"
    return (
        fits and inputs.data.is_cpu and torch.is_grad_enabled() and rnn.bias and rnn.batch_first and not rnn.proj_size
    )


def run(
    rnn: nn.RNNBase, inputs: Tensor | PackedSequence, initial: Sequence[Tensor | None]
) -> tuple[Tensor | PackedSequence, list[Tensor]]:
    """Run all layers and directions.

    Args:
        rnn: Network whose parameters are used.
        inputs: A packed batch, or one without padding, ``(B, T, E)``.
        initial: h and, for an LSTM, c before the first step, ``(L * D, B, H)`` each; None for zeros.

    Returns:
        The top layer's outputs, packed if the inputs are, and h and, for an LSTM, c after the last step.
    """
    if isinstance(inputs, PackedSequence):
        tokens, batch_sizes = inputs.data, inputs.batch_sizes.tolist()
        order, unsorted = inputs.sorted_indices, inputs.unsorted_indices
    else:
        tokens, batch_sizes = inputs.transpose(0, 1).flatten(0, 1), [inputs.size(0)] * inputs.size(1)
        order = unsorted = None
    directions = 1 + rnn.bidirectional
    zeros = tokens.new_zeros(rnn.num_layers * directions, batch_sizes[0], rnn.hidden_size)
    states = [zeros if part is None else part if order is None else part.index_select(1, order) for part in initial]
    outputs, finals = run_layers(rnn, tokens, batch_sizes, [part.unbind() for part in states])
    after = [torch.stack(part) if unsorted is None else torch.stack(part).index_select(1, unsorted) for part in finals]
    if isinstance(inputs, PackedSequence):
        return inputs._replace(data=outputs), after
    return outputs.unflatten(0, inputs.shape[1::-1]).transpose(0, 1), after


def run_layers(
    rnn: nn.RNNBase, tokens: Tensor, batch_sizes: Sequence[int], states: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Run all layers and directions over packed tokens, ``(N, E)``; see `run`."""
    reversed_order = reverse_indices(batch_sizes) if rnn.bidirectional else None
    finals = []
    for layer in range(rnn.num_layers):
        if layer > 0:
            tokens = dropout(tokens, rnn.dropout, rnn.training)
        outputs = []
        for suffix, order in (("", None), ("_reverse", reversed_order))[: 1 + rnn.bidirectional]:
            parameters = [getattr(rnn, f"{name}_l{layer}{suffix}") for name in PARAMETERS]
            state = [part[len(finals)] for part in states]
            after_each, *final = run_direction(rnn.mode, [permute(tokens, order), *state, *parameters], batch_sizes)
            outputs.append(permute(after_each, order))
            finals.append(final)
        tokens = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return tokens, list(zip(*finals, strict=True))


def run_direction(mode: str, tensors: Sequence[Tensor], batch_sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Run one direction of a layer: see `GRULayer.forward` and `LSTMLayer.forward`."""
    layer = GRULayer if mode == "GRU" else LSTMLayer
    inputs, *state, w, u, w_bias, u_bias = tensors
    if torch.is_autocast_enabled("cpu") and u.dtype != torch.float64:
        state = [part.to(u.dtype) for part in state]  # under autocast, a bridge returns lower precision
        inputs, w, u = (part.to(torch.get_autocast_dtype("cpu")) for part in (inputs, w, u))
    with torch.autocast("cpu", enabled=False):
        return layer.apply(inputs, *state, w, u, w_bias, u_bias, batch_sizes)


def reverse_indices(batch_sizes: Sequence[int]) -> Tensor:
    """Return, for each packed token, the token that takes its place if its sequence is reversed, ``(N)``.

    Example:
        >>> reverse_indices([2, 2, 1]).tolist()  # tokens 0, 2 and 4 are a sequence, tokens 1 and 3 another
        [4, 3, 2, 1, 0]
    """
    sizes = torch.tensor(batch_sizes)
    lengths = (sizes.unsqueeze(1) > torch.arange(batch_sizes[0])).sum(0)
    starts = sizes.cumsum(0) - sizes
    steps = torch.arange(len(sizes)).repeat_interleave(sizes)
    sequences = torch.arange(len(steps)) - starts[steps]
    return starts[lengths[sequences] - 1 - steps] + sequences


def permute(tokens: Tensor, order: Tensor | None) -> Tensor:
    """Return ``tokens[order]``, for an order that is its own inverse; None keeps the order."""
    return tokens if order is None else Permute.apply(tokens, order)


class Permute(Function):
    """``tokens[order]``, whose gradient is a gather, not a scatter-add, because ``order`` is its own inverse."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor) -> Tensor:  # noqa: ANN401 - as in PyTorch
        """Permute the tokens."""
        ctx.order = order
        return tokens.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        """Permute the gradient back."""
        return grad_outputs[0].index_select(0, ctx.order), None
