"""The encoder's limits; what it computes is in `test_handoff.py`."""

import pytest
import torch

from seq2seq.nn import Encoder

B, S, E, H, V = 4, 5, 8, 7, 9


def make_encoder(**changes):
    settings = {"num_layers": 2, "cell": "gru", "bidirectional": True, "dropout": 0.0} | changes
    return Encoder(vocabulary_size=V, embedding_size=E, hidden_size=H, **settings)


@pytest.mark.parametrize("length", [0, S + 1])
def test_a_length_that_no_sequence_can_have_is_refused(length):
    lengths = torch.tensor([3, length, 1, 4])

    with pytest.raises(ValueError, match=rf"between 1 and S=5, got \[3, {length}, 1, 4\]"):
        make_encoder()(torch.zeros(B, S, dtype=torch.long), lengths)


@pytest.mark.parametrize("lengths", [[3, 5, 1, 4], [3, 2, 1, 3]])
def test_outputs_and_mask_are_as_long_as_the_source_even_if_every_sequence_is_padded(lengths):
    encoded = make_encoder()(torch.zeros(B, S + 2, dtype=torch.long), torch.tensor(lengths))

    assert encoded.outputs.shape == (B, S + 2, 2 * H)
    assert encoded.mask.shape == (B, S + 2)
    assert encoded.mask.sum(dim=1).tolist() == lengths
    assert not encoded.outputs[~encoded.mask].any()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_output_size_is_that_of_all_directions(bidirectional):
    encoder = make_encoder(bidirectional=bidirectional)

    encoded = encoder(torch.zeros(B, S, dtype=torch.long), torch.full((B,), S))

    assert encoded.outputs.size(-1) == encoder.output_size == (1 + bidirectional) * H
