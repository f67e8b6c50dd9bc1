"""The gallery's own rules; what each mistake hands over is in `test_handoff.py`."""

import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.handoff.mistakes import MISTAKES, WrongEncoder
from seq2seq.nn import Encoder
from seq2seq.nn.attention import build_attention

SOURCE, LENGTHS = torch.tensor([[5, 7, 6], [8, 0, 0]]), torch.tensor([3, 1])


def make_encoder(cell="gru", layers=2, directions=2):
    return Encoder(
        vocabulary_size=9, embedding_size=8, hidden_size=7, num_layers=layers, cell=cell,
        bidirectional=directions == 2, dropout=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_what_it_is_and_where_it_was_seen(name):
    mistake = MISTAKES[name]

    assert name.startswith("wrong_")
    assert all((mistake.code, mistake.seen, mistake.effect))


@pytest.mark.parametrize(
    ("name", "cell", "layers", "directions", "needs"),
    [
        ("wrong_first_rows", "gru", 2, 1, r"model\.encoder\.bidirectional=true: "),
        ("wrong_joined_view", "gru", 2, 1, r"model\.encoder\.bidirectional=true: "),
        ("wrong_halves", "gru", 1, 2, r"bidirectional=true and model\.encoder\.num_layers=2 or more: "),
        ("wrong_cell", "gru", 2, 2, r"model\.encoder\.cell=lstm: "),
        ("wrong_across_layers", "lstm", 1, 1, r"bidirectional=true or model\.encoder\.num_layers=2 or more: "),
    ],
)
def test_a_mistake_that_this_encoder_cannot_make_is_refused(name, cell, layers, directions, needs):
    with pytest.raises(UserError, match=rf"handoff={name} needs .*{needs}otherwise there is nothing to get wrong"):
        WrongEncoder(make_encoder(cell, layers, directions), name)


@pytest.mark.parametrize(
    ("name", "layers", "directions"),
    [("wrong_first_rows", 2, 1), ("wrong_joined_view", 2, 1), ("wrong_halves", 1, 2), ("wrong_across_layers", 1, 1)],
)
def test_the_refusals_are_right_as_such_an_encoder_would_hand_over_the_same_state(name, layers, directions):
    encoder = make_encoder("gru", layers, directions)

    handed = MISTAKES[name].apply(encoder, SOURCE, LENGTHS)

    assert torch.equal(handed.state.h, encoder(SOURCE, LENGTHS).state.h)


def test_an_unknown_mistake_is_refused():
    with pytest.raises(UserError, match="handoff=wrong_rows must be one of right, wrong_first_rows, "):
        WrongEncoder(make_encoder(), "wrong_rows")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_keeps_every_shape(name):
    encoder = make_encoder("lstm")
    right, wrong = encoder(SOURCE, LENGTHS), WrongEncoder(encoder, name)(SOURCE, LENGTHS)

    def shapes(encoded):
        return [tensor.shape for tensor in (encoded.outputs, *encoded.state, encoded.mask)]

    assert shapes(wrong) == shapes(right)


def test_wrong_unmasked_attends_to_padding():
    attention = build_attention("general", query_size=6, value_size=14)
    encoder, queries = make_encoder(), torch.randn(2, 3, 6)

    def weights(encoded):
        return attention(queries, attention.init_memory(encoded.outputs, encoded.mask))[1]  # (batch, queries, steps)

    assert not weights(encoder(SOURCE, LENGTHS))[1, :, 1:].any()
    assert (weights(WrongEncoder(encoder, "wrong_unmasked")(SOURCE, LENGTHS))[1, :, 1:] > 0).all()
