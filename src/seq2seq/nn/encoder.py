"""The encoder: source tokens to one vector a token, and a final state for every layer and direction."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.errors import check_choice, check_count, check_flag, check_number
from seq2seq.nn.fast.dropout import Dropout
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.fast.rnn import run
from seq2seq.nn.state import RNNS, RNNState


class EncoderOutput(NamedTuple):
    """What the encoder knows of a batch.

    Attributes:
        outputs: The **top** layer at every step, forward in ``[..., :H]`` and backward in ``[..., H:]``; zero at
            padding, ``(B, S, D * H)``.
        state: **Every** layer and direction at its own last step: a row's last real token for the forward direction,
            its first token for the backward one, ``(L, D, B, H)``.
        mask: True at real tokens, ``(B, S)``.
    """

    outputs: Tensor
    state: RNNState
    mask: Tensor


class Encoder(nn.Module):
    """A GRU or LSTM over the embedded source (Cho et al. 2014; bidirectional as in Bahdanau et al. 2015, section 3.2).

    Padding never enters the recurrence, so a row alone gives the same result as that row in any batch, at any place.

    Args:
        vocabulary_size: Number of source symbols, V.
        embedding_size: E.
        hidden_size: Units of one direction, H.
        num_layers: L.
        cell: ``gru`` or ``lstm``.
        bidirectional: Whether a second network reads the source from its end.
        dropout: Probability of dropping a unit of the embedding and between layers.

    Raises:
        UserError: If a value is not allowed.

    Example:
        >>> import torch
        >>> encoder = Encoder(vocabulary_size=9, embedding_size=8, hidden_size=7, num_layers=3, cell="lstm",
        ...                   bidirectional=True, dropout=0.0)
        >>> encoded = encoder(torch.ones(4, 5, dtype=torch.long), torch.tensor([5, 2, 1, 4]))
        >>> encoded.outputs.shape, encoded.state.h.shape
        (torch.Size([4, 5, 14]), torch.Size([3, 2, 4, 7]))
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        cell: str,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.cell = check_choice("model.encoder.cell", cell, RNNS)
        self.num_layers = check_count("model.encoder.num_layers", num_layers)
        self.hidden_size = check_count("model.encoder.hidden_size", hidden_size)
        self.directions = 2 if check_flag("model.encoder.bidirectional", bidirectional) else 1
        check_count("model.encoder.embedding_size", embedding_size)
        dropout = check_number("model.dropout", dropout, 0, 1)
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.dropout = Dropout(dropout)
        self.rnn = RNNS[cell](
            embedding_size,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    @property
    def output_size(self) -> int:
        """Size of one output vector, D * H."""
        return self.directions * self.hidden_size

    def forward(self, source: Tensor, lengths: Tensor) -> EncoderOutput:
        """Encode a padded batch of token ids.

        Args:
            source: Token ids, right-padded, ``(B, S)``.
            lengths: Number of real tokens in each row, on the CPU, in any order, ``(B,)``.

        Raises:
            ValueError: If a length is below 1 or above ``S``.
        """
        steps = source.size(1)
        if int(lengths.min()) < 1 or int(lengths.max()) > steps:
            raise ValueError(f"lengths must lie between 1 and S={steps}, got {lengths.tolist()}")
        mask = torch.arange(steps) < lengths.unsqueeze(1)  # (B, S)
        packing = Packing.of(lengths, steps, source.device)
        # Ids are packed, not vectors: padding is never looked up, and less is copied.
        outputs, state = run(self.rnn, self.dropout(self.embedding(packing.pack(source))), packing)
        return EncoderOutput(packing.pad(outputs), packing.unsort(state), mask.to(source.device))
