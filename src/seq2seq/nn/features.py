"""Features: what a sequence comes with beside its tokens, such as ``N``, ``ACC`` and ``PL`` of a word form.

They are a set, so no recurrent layer reads them: the order in which they are written must not matter. Each has an
embedding, and their sum is mapped to what it adds to

- every input of the decoder, whatever the decoder, so that each step knows them;
- the decoder's initial state, after the bridge: ``h_n`` and what the bridge makes of it stay as they are.
"""

from typing import NamedTuple

from torch import Tensor, nn

from seq2seq.nn.state import RNNState

NONE = 0
"""The id that stands for no feature, and pads sets of different sizes: that of padding."""


class FeatureVectors(NamedTuple):
    """What the features of a batch add.

    Attributes:
        to_inputs: To each embedded input of the decoder, ``(B, 1, E')``.
        to_state: To the hidden state of each of its layers, ``(L', 1, B, H')``.
    """

    to_inputs: Tensor
    to_state: Tensor

    def added_to(self, state: RNNState) -> RNNState:
        """Return the decoder's initial state, ``(L', 1, B, H')``, with the features; an LSTM's cell stays as it is."""
        return state._replace(h=state.h + self.to_state)


class Features(nn.Module):
    """The sum of the features' embeddings, mapped to what a decoder reads of it.

    Args:
        vocabulary_size: Number of features, the special symbols included, V.
        embedding_size: Embedding size of the decoder, E'.
        num_layers: Number of layers of the decoder, L'.
        hidden_size: Hidden size of the decoder, H'.
        dropout: Dropout probability after the embedding.

    Example:
        >>> import torch
        >>> features = Features(vocabulary_size=9, embedding_size=8, num_layers=2, hidden_size=7, dropout=0.0)
        >>> vectors = features(torch.tensor([[4, 5, 6], [6, 4, 5], [4, NONE, NONE]]))
        >>> vectors.to_inputs.shape, vectors.to_state.shape
        (torch.Size([3, 1, 8]), torch.Size([2, 1, 3, 7]))
        >>> torch.allclose(vectors.to_inputs[0], vectors.to_inputs[1])  # in another order
        True
    """

    def __init__(
        self, *, vocabulary_size: int, embedding_size: int, num_layers: int, hidden_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=NONE)  # which adds nothing
        self.dropout = nn.Dropout(dropout)
        self.input_map = nn.Linear(embedding_size, embedding_size, bias=False)
        self.state_maps = nn.Linear(embedding_size, num_layers * hidden_size, bias=False)
        self.num_layers = num_layers

    def forward(self, features: Tensor) -> FeatureVectors:
        """Return what the features of each sequence add, given their ids, right-padded, ``(B, F)``; F may be 0."""
        summed = self.dropout(self.embedding(features)).sum(1)  # (B, E')
        to_state = self.state_maps(summed).unflatten(-1, (1, self.num_layers, -1)).permute(2, 1, 0, 3)
        return FeatureVectors(self.input_map(summed).unsqueeze(1), to_state)
