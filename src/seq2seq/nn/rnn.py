"""Recurrent layers over padded batches.

Only this module packs padded batches, which keeps padding out of the recurrence, and only this module chooses between
PyTorch's layers and those of `seq2seq.nn.fast`, which compute the same results from the same parameters.
"""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.nn import fast as fast_layers
from seq2seq.nn.state import RNNState

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
"""Registry of recurrent layers: config name to class."""


def make_rnn(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    fast: bool = False,
) -> nn.GRU | nn.LSTM:
    """Make an ``nn.GRU`` or ``nn.LSTM`` with ``batch_first``; if ``fast``, the subclass in `seq2seq.nn.fast`.

    Raises:
        ValueError: If ``cell`` is neither ``gru`` nor ``lstm``.
    """
    if cell not in CELLS:
        raise ValueError(f"cell={cell} must be one of {', '.join(CELLS)}")
    kinds = fast_layers.CELLS if fast else CELLS  # the fast ones differ from PyTorch's in training on a CPU only
    return kinds[cell](
        input_size,
        hidden_size,
        num_layers,
        batch_first=True,
        bidirectional=bidirectional,
        dropout=dropout if num_layers > 1 else 0.0,
    )


def make_dropout(probability: float, *, fast: bool) -> nn.Dropout:
    """Make a dropout layer; ``fast`` as in `make_rnn`."""
    return fast_layers.Dropout(probability) if fast else nn.Dropout(probability)


def run_rnn(
    rnn: nn.GRU | nn.LSTM, inputs: Tensor, lengths: Tensor | None = None, state: RNNState | None = None
) -> tuple[Tensor, RNNState]:
    """Run a recurrent network over a right-padded batch.

    Args:
        rnn: Network with any number of layers and directions, and with ``batch_first``.
        inputs: One vector per step, ``(B, T, E)``.
        lengths: Number of real steps of each sequence, on the CPU, in any order, ``(B,)``; None without padding.
        state: Initial state; zero by default, ``(L, D, B, H)``.

    Returns:
        The top layer's outputs, zero at padding, ``(B, T, D * H)``, and the state after each sequence's own last step,
        ``(L, D, B, H)``.

    Raises:
        ValueError: If the state has a different shape.
    """
    directions = 1 + rnn.bidirectional
    expected = (rnn.num_layers, directions, inputs.size(0), rnn.hidden_size)
    if state is not None and state.h.shape != expected:
        raise ValueError(f"the state is {tuple(state.h.shape)}, and must be (L, D, B, H) = {expected}")
    initial = None if state is None else state.to_torch()
    if lengths is None:
        outputs, final = rnn(inputs, initial)
    else:
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        packed_outputs, final = rnn(packed, initial)
        outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=inputs.size(1))
    return outputs, RNNState.from_torch(final, directions)
