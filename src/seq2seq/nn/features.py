"""Features: what a sequence has in addition to its tokens, such as ``N``, ``ACC`` and ``PL`` of a word form.

No recurrent layer reads them one after another, as the order in which they are written must not matter. Each has an
embedding. With every decoder and bridge, they are used in three ways:

- attention, if there is any, treats each of them as a token: their values follow the encoder's outputs;
- their sum is added to every input of the decoder, so that each step knows all of them;
- their sum is added to the decoder's initial state, after the bridge: ``h_n`` and what the bridge makes of it stay as
  they are.

Optionally (``model.encoder.reads_features``), the encoder adds their sum to every input, too, which suits a language.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.state import RNNState

STD = 0.1
"""Standard deviation of the initial embeddings. Features that never occurred together combine better if these are small
and have no dropout: docs/results.md has the figures."""

NONE = 0
"""The id of no feature: that of padding, to which sets of different sizes are padded."""


class FeatureVectors(NamedTuple):
    """What the features of a batch, up to F of a sequence, contribute.

    Attributes:
        values: What is attended to, ``(B, F, D * H)``.
        mask: True where there is a feature, ``(B, F)``.
        to_inputs: What is added to each embedded input of the decoder, ``(B, 1, E')``.
        to_state: What is added to the hidden state of each of its layers, ``(L', 1, B, H')``.
        to_encoder: What is added to each embedded input of the encoder, ``(B, 1, E)``; None if it reads no features.
    """

    values: Tensor
    mask: Tensor
    to_inputs: Tensor
    to_state: Tensor
    to_encoder: Tensor | None

    def added_to(self, state: RNNState) -> RNNState:
        """Return the decoder's initial state, ``(L', 1, B, H')``, with the features; an LSTM's cell stays as it is."""
        return state._replace(h=state.h + self.to_state)

    def beside(self, encoded: EncoderOutput) -> EncoderOutput:
        """Return the encoder's outputs and mask, followed by those of the features; the state is the same."""
        outputs, mask = torch.cat([encoded.outputs, self.values], dim=1), torch.cat([encoded.mask, self.mask], dim=1)
        return encoded._replace(outputs=outputs, mask=mask)


class Features(nn.Module):
    """The embeddings of features, and what is made of them.

    Args:
        vocabulary_size: Number of features, the special symbols included, V.
        embedding_size: Embedding size of the decoder, E', which is that of the features, too.
        num_layers: Number of layers of the decoder, L'.
        hidden_size: Hidden size of the decoder, H'.
        value_size: Size of the encoder's outputs, D * H.
        encoder_size: Embedding size of the encoder, E; None if the encoder reads no features.

    Example:
        >>> features = Features(vocabulary_size=9, embedding_size=8, num_layers=2, hidden_size=7, value_size=10,
        ...                     encoder_size=None)
        >>> vectors = features(torch.tensor([[4, 5, 6], [6, 4, 5], [4, NONE, NONE]]))
        >>> vectors.values.shape, vectors.to_inputs.shape, vectors.to_state.shape
        (torch.Size([3, 3, 10]), torch.Size([3, 1, 8]), torch.Size([2, 1, 3, 7]))
        >>> torch.allclose(vectors.to_inputs[0], vectors.to_inputs[1])  # in another order
        True
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        embedding_size: int,
        num_layers: int,
        hidden_size: int,
        value_size: int,
        encoder_size: int | None,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=NONE)  # zero, so it adds nothing
        self.embedding.weight.data.mul_(STD)
        self.value_map = nn.Linear(embedding_size, value_size, bias=False)
        self.input_map = nn.Linear(embedding_size, embedding_size, bias=False)
        self.state_maps = nn.Linear(embedding_size, num_layers * hidden_size, bias=False)
        self.encoder_map = None if encoder_size is None else nn.Linear(embedding_size, encoder_size, bias=False)

    def forward(self, features: Tensor) -> FeatureVectors:
        """Return what the features of each sequence contribute, given ids, right-padded, ``(B, F)``; F may be 0."""
        embedded = self.embedding(features)  # (B, F, E')
        summed = embedded.sum(1)  # (B, E')
        to_state = self.state_maps(summed).unflatten(-1, (1, self.num_layers, -1)).permute(2, 1, 0, 3)
        return FeatureVectors(
            values=self.value_map(embedded),
            mask=features != NONE,
            to_inputs=self.input_map(summed).unsqueeze(1),
            to_state=to_state,
            to_encoder=None if self.encoder_map is None else self.encoder_map(summed).unsqueeze(1),
        )
