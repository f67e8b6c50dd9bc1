"""Recurrent networks of PyTorch, run faster than PyTorch does where we know how.

While gradients are wanted on a CPU, `seq2seq.nn.fast.layers` take the place of ``nn.GRU``, and of ``nn.LSTM`` for packed
rows: for others PyTorch has a fast one. Their parameters and dropout are used. Gradients can be taken once, not twice,
and not in forward mode.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from seq2seq.nn.fast.dropout import dropout
from seq2seq.nn.fast.layers import GRULayer, LSTMLayer
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.state import RNNState

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(
    rnn: nn.GRU | nn.LSTM, tokens: Tensor, packing: Packing, state: RNNState | None = None
) -> tuple[Tensor, RNNState]:
    """Return what the network returns for a batch, with the state by layer and direction.

    Args:
        rnn: Of any number of layers and directions, with ``batch_first``.
        tokens: Packed, ``(N, E)``.
        packing: Where they stand.
        state: Of each row before its first token, in the order of the packing, ``(L, D, B, H)``; zero by default.

    Returns:
        The top layer's outputs, packed likewise, ``(N, D * H)``, and the state after each row's last token, in the
        order of the packing.

    Raises:
        ValueError: If the state has another shape.
    """
    rows, _ = packing.shape
    expected = (rnn.num_layers, 1 + rnn.bidirectional, rows, rnn.hidden_size)
    for part in state or ():
        if part is not None and part.shape != expected:
            raise ValueError(f"the state is {tuple(part.shape)}, and must be (L, D, B, H) = {expected}")
    if not is_ours(rnn, tokens, packing):
        return by_pytorch(rnn, tokens, packing, state)
    if state is None:
        zero = next(rnn.parameters()).new_zeros(expected)
        state = RNNState(zero, zero if rnn.mode == "LSTM" else None)
    return run_tokens(rnn, tokens, packing.sizes, state)


def is_ours(rnn: nn.RNNBase, tokens: Tensor, packing: Packing) -> bool:
    """Say whether we are faster than PyTorch, and can take its place."""
    if rnn.mode == "LSTM" and packing.places is None:
        return False
    hooked = rnn._forward_pre_hooks or rnn._forward_hooks  # noqa: SLF001 - as those of pruning, which set its weights
    return tokens.is_cpu and torch.is_grad_enabled() and rnn.bias and not rnn.proj_size and not hooked


def by_pytorch(
    rnn: nn.GRU | nn.LSTM, tokens: Tensor, packing: Packing, state: RNNState | None
) -> tuple[Tensor, RNNState]:
    """Return what `run` returns, by the network itself."""
    full = packing.places is None
    outputs, after = rnn(packing.pad(tokens) if full else packing.sequence(tokens), state and state.to_torch())
    return packing.pack(outputs) if full else outputs.data, RNNState.from_torch(after, 1 + rnn.bidirectional)


def run_tokens(rnn: nn.RNNBase, tokens: Tensor, sizes: Sequence[int], state: RNNState) -> tuple[Tensor, RNNState]:
    """Run all layers and directions on a CPU.

    Args:
        rnn: Its parameters.
        tokens: Packed as in `seq2seq.nn.fast.layers`, ``(N, E)``.
        sizes: Rows at each step.
        state: Before the first step, ``(L, D, B, H)``.
    """
    real = len(tokens)
    if prepared_by_size() and sizes[0] > sizes[-1]:
        tokens = F.pad(tokens, (0, 0, 0, spare(real)))
    orders = [None, mirrored(sizes, len(tokens))] if rnn.bidirectional else [None]  # from the first token, the last one
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
    return tokens[:real], RNNState.stack(layers)


def run_direction(mode: str, tensors: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Run a direction of a layer: see `GRULayer.forward` and `LSTMLayer.forward`.

    Under autocast, products are taken in its precision; the state stays as it is, or a sum over many steps would stop
    to grow where it can no longer tell two neighbours apart.
    """
    layer = GRULayer if mode == "GRU" else LSTMLayer
    inputs, *state, w, u, w_bias, u_bias = tensors
    if torch.is_autocast_enabled("cpu") and u.dtype != torch.float64:
        state = [part.to(u.dtype) for part in state]  # a bridge hands it over in lower precision
        inputs, w, u = (part.to(torch.get_autocast_dtype("cpu")) for part in (inputs, w, u))
    with torch.autocast("cpu", enabled=False):
        return layer.apply(inputs, *state, w, u, w_bias, u_bias, sizes)


def prepared_by_size() -> bool:
    """Say whether a CPU prepares a product for each new size, which can take longer than the product itself.

    So does oneDNN, which takes those of lower precision, and it keeps about a thousand.
    """
    if torch.is_autocast_enabled("cpu"):
        return True
    try:
        return torch.get_float32_matmul_precision() == "medium"
    except RuntimeError:  # the program set it by torch.backends, where each library has a precision of its own
        return torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # pyright: ignore[reportAttributeAccessIssue]


def spare(tokens: int) -> int:
    """Return how many tokens to add, an eighth at most, so that packed batches come in few sizes: eight an octave.

    Example:
        >>> [count + spare(count) for count in (15, 16, 17, 100, 129, 143)]
        [15, 16, 18, 104, 144, 144]
    """
    return -tokens % 2 ** max(0, tokens.bit_length() - 4)


def mirrored(sizes: Sequence[int], count: int) -> Tensor:
    """Return, for each packed token, which token stands where it does when its row is read from the end, ``(N)``.

    Args:
        sizes: Rows at each step.
        count: Tokens in all, N; those of no row stay in their place.

    Example:
        >>> mirrored([2, 2, 1], 6).tolist()  # a row of three, tokens 0, 2 and 4, and one of two, tokens 1 and 3
        [4, 3, 2, 1, 0, 5]
    """
    rows_at = torch.tensor(sizes)
    lengths = (rows_at.unsqueeze(1) > torch.arange(sizes[0])).sum(0)
    starts = rows_at.cumsum(0) - rows_at
    steps = torch.arange(len(sizes)).repeat_interleave(rows_at)
    rows = torch.arange(len(steps)) - starts[steps]
    return torch.cat([starts[lengths[rows] - 1 - steps] + rows, torch.arange(len(rows), count)])


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
