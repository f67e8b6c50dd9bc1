"""The encoder: source tokens to one vector per token, and a final state for every layer and direction."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.nn.rnn import make_dropout, make_rnn, run_rnn
from seq2seq.nn.state import RNNState


class EncoderOutput(NamedTuple):
    """What the encoder returns for a batch.

    Attributes:
        outputs: The **top** layer at every step, forward in ``[..., :H]`` and backward in ``[..., H:]``; zero at
            padding, ``(B, S, D * H)``.
        state: **Every** layer and direction at its own last step: the last real token of a sequence for the forward
            direction, the first token for the backward one, ``(L, D, B, H)``.
        mask: True at real tokens, ``(B, S)``.
    """

    outputs: Tensor
    state: RNNState
    mask: Tensor


class Encoder(nn.Module):
    """A GRU or LSTM over the embedded source (Cho et al. 2014; bidirectional as in Bahdanau et al. 2015, section 3.2).

    Padding never enters the recurrence, so a sequence gives the same result alone and at any position in any batch.

    Args:
        vocabulary_size: Number of source symbols, V.
        embedding_size: Embedding size, E.
        hidden_size: Hidden size of one direction, H.
        num_layers: Number of layers, L.
        cell: ``gru`` or ``lstm``.
        bidirectional: Whether a second direction reads the source backward.
        dropout: Dropout probability after the embedding and between layers.
        fast: Whether training on a CPU may use `seq2seq.nn.fast`.

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
        fast: bool = False,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.directions = 2 if bidirectional else 1
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.dropout = make_dropout(dropout, fast=fast)
        self.rnn = make_rnn(
            cell, embedding_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout, fast=fast
        )

    @property
    def output_size(self) -> int:
        """Size of one output vector, D * H."""
        return self.directions * self.hidden_size

    def forward(self, source: Tensor, lengths: Tensor, added: Tensor | None = None) -> EncoderOutput:
        """Encode a padded batch of token ids.

        Args:
            source: Token ids, right-padded, ``(B, S)``.
            lengths: Number of real tokens of each sequence, on the CPU, in any order, ``(B,)``.
            added: What features add to each embedded token, ``(B, 1, E)``, if the encoder reads them.

        Raises:
            ValueError: If a length is below 1 or above ``S``.
        """
        steps = source.size(1)
        if int(lengths.min()) < 1 or int(lengths.max()) > steps:
            raise ValueError(f"lengths must lie between 1 and S={steps}, got {lengths.tolist()}")
        mask = torch.arange(steps) < lengths.unsqueeze(1)  # (B, S)
        embedded = self.dropout(self.embedding(source))  # (B, S, E)
        if added is not None:
            embedded = embedded + added
        outputs, state = run_rnn(self.rnn, embedded, lengths)
        return EncoderOutput(outputs, state, mask.to(source.device))
