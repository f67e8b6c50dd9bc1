"""The handoff in fifteen minutes: what ``output`` and ``h_n`` are, and what a decoder must start from.

1. What ``nn.GRU`` returns         every number of one sequence
2. The order of ``h_n``            layer by layer, forward before backward; the right view and the wrong ones
3. Padding                         where it is read, and how packing prevents that
4. From encoder to decoder         each decoder layer starts from both directions of its encoder layer
5. Unequal depths                  the top layers are aligned
6. The LSTM's cell                 it goes along; GRU to LSTM and back
7. All of it together              from source tokens to the decoder's first step
8. The gallery of mistakes         what popular mistakes hand over instead

The numbers can be traced by eye because the networks below *count*. Their weights are zero, so their inputs do not
matter; their biases do. The hidden state of a GRU begins at 0, and goes half the way to ``0.16 * d`` with every token,
where ``d = 1, 2, 3, 4`` for layer 0 forward, layer 0 backward, layer 1 forward and layer 1 backward. So it is

    0.08 * d after one token,   0.12 * d after two,   0.14 * d after three,

and 0.56 in ``h_n`` is layer 1 backward after three tokens.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.handoff.mistakes import WrongEncoder
from seq2seq.nn import Bridge, Encoder, RNNState, Seq2Seq, build_decoder
from seq2seq.nn.attention import build_attention

pytestmark = pytest.mark.usefixtures("float64")  # so that numbers which should be equal are

SOURCE = torch.tensor([[5, 7, 6], [8, 0, 0]])  # token ids of a sequence of three and one of one, right-padded
LENGTHS = torch.tensor([3, 1])


def let_it_count(rnn):
    """Set the parameters of a bidirectional ``nn.GRU`` or ``nn.LSTM`` with one hidden unit so that it counts.

    With every token, a GRU goes half the way from where it is to ``0.16 * d``. An LSTM adds ``0.16 * d`` to its cell.
    """
    for parameter in rnn.parameters():
        nn.init.zeros_(parameter)
    for layer in range(rnn.num_layers):
        for direction, suffix in enumerate(["", "_reverse"]):
            d = 2 * layer + direction + 1
            bias = getattr(rnn, f"bias_ih_l{layer}{suffix}").data
            if rnn.mode == "GRU":  # gates: reset, update, new; sigmoid(0) updates by a half, tanh(bias) is 0.16 d
                bias[2] = math.atanh(0.16 * d)
            else:  # gates: input, forget, cell, output; sigmoid(50) is 1
                bias[:] = torch.tensor([50, 50, math.atanh(0.16 * d), 50])
    return rnn


def counting_encoder(cell="gru", layers=2):
    """The encoder of this project around a counting network."""
    encoder = Encoder(
        vocabulary_size=9, embedding_size=4, hidden_size=1, num_layers=layers, cell=cell, bidirectional=True, dropout=0
    )
    let_it_count(encoder.rnn)
    return encoder


def rounded(tensor):
    """A tensor as nested lists, rounded to the digits shown here."""
    return tensor.detach().round(decimals=6).tolist()


def by_layer(state, sequence):
    """What a state, ``(layers, directions, batch, 1)``, holds for one sequence: ``[[forward, backward], ...]``."""
    return rounded(state[:, :, sequence, 0])


# 1. What nn.GRU returns


def counting_gru():
    return let_it_count(nn.GRU(input_size=4, hidden_size=1, num_layers=2, batch_first=True, bidirectional=True))


def test_output_is_the_top_layer_at_every_step_and_h_n_is_every_layer_at_its_last():
    output, h_n = counting_gru()(torch.randn(1, 3, 4))  # one sequence of three tokens

    assert output.shape == (1, 3, 2)  # (batch, steps, directions * hidden)
    # Forward has read one, two, three tokens. Backward begins at the end, so it has read three, two, one.
    assert rounded(output[0]) == [[0.24, 0.56], [0.36, 0.48], [0.42, 0.32]]
    assert h_n.shape == (4, 1, 1)  # (layers * directions, batch, hidden), regardless of batch_first
    assert rounded(h_n[:, 0, 0]) == [
        0.14,  # h_n[0]: layer 0 forward
        0.28,  # h_n[1]: layer 0 backward
        0.42,  # h_n[2]: layer 1 forward, which is in output at the last token
        0.56,  # h_n[3]: layer 1 backward, which is in output at the first token
    ]


# 2. The order of h_n


H_N = torch.tensor([[0, 1], [10, 11], [20, 21], [30, 31], [40, 41], [50, 51]], dtype=torch.float64).unsqueeze(-1)
"""``h_n`` of three layers, two directions and two sequences; 41 is row 4 (layer 2 forward) of sequence 1."""


def test_the_right_view_has_the_layer_as_the_outer_axis_and_the_direction_as_the_inner_one():
    state = H_N.view(3, 2, 2, 1)  # (layers, directions, batch, hidden)

    assert by_layer(state, sequence=0) == [[0, 10], [20, 30], [40, 50]]  # [forward, backward] of layer 0, 1, 2
    assert by_layer(state, sequence=1) == [[1, 11], [21, 31], [41, 51]]
    # RNNState does the same view; its h is the hidden state, and its c the cell of an LSTM.
    assert torch.equal(RNNState.from_torch(H_N, directions=2).h, state)


def test_views_that_fit_and_are_wrong():
    """What the layers of sequence 0 get; right is [0, 10], [20, 30], [40, 50]."""
    rows = H_N[:3]  # h_n[:num_layers], as widely copied tutorials have it
    assert rounded(rows[:, 0, 0]) == [0, 10, 20]  # layer 1 backward and layer 2 are lost
    halves = H_N.view(2, 3, 2, 1)  # read as (directions, layers, batch, hidden)
    assert by_layer(halves.transpose(0, 1), sequence=0) == [[0, 30], [10, 40], [20, 50]]  # two layers each
    joined = H_N.view(3, 2, 2)  # read as (layers, batch, directions * hidden)
    assert rounded(joined[:, 0]) == [[0, 1], [20, 21], [40, 41]]  # forward of both sequences
    across = H_N.view(2, 3, 2)  # read as (batch, layers, directions * hidden)
    assert rounded(across[0]) == [[0, 1], [10, 11], [20, 21]]  # the first three rows, of both sequences


# 3. Padding
#
# Sequences of a batch are padded to the length of the longest. A network cannot tell padding from tokens: the forward
# direction reads it last, and the backward direction first. Packing lists the real tokens only, step by step, so that
# forward ends at each sequence's own last token, and backward begins there.

VECTORS = torch.randn(2, 3, 4, dtype=torch.float64)  # three tokens, and one token with two steps of padding


def test_without_packing_padding_is_read():
    output, h_n = counting_gru()(VECTORS)

    assert rounded(h_n[:, 1, 0]) == rounded(h_n[:, 0, 0]) == [0.14, 0.28, 0.42, 0.56]  # both have counted three
    assert rounded(output[1, 0]) == [0.24, 0.56]  # at its only token, backward has read the padding already


def test_a_packed_sequence_ends_and_begins_at_its_own_last_token():
    packed = pack_padded_sequence(VECTORS, LENGTHS, batch_first=True, enforce_sorted=False)  # lengths in any order
    packed_output, h_n = counting_gru()(packed)
    output, _ = pad_packed_sequence(packed_output, batch_first=True)

    assert packed.batch_sizes.tolist() == [2, 1, 1]  # sequences that have a token at each step: four of six vectors
    assert rounded(h_n[:, 0, 0]) == [0.14, 0.28, 0.42, 0.56]  # three tokens
    assert rounded(h_n[:, 1, 0]) == [0.08, 0.16, 0.24, 0.32]  # one token
    assert rounded(output[1]) == [[0.24, 0.32], [0.00, 0.00], [0.00, 0.00]]  # zeros are filled in where padding was


def test_the_encoder_packs():
    encoded = counting_encoder()(SOURCE, LENGTHS)

    assert by_layer(encoded.state.h, sequence=0) == [[0.14, 0.28], [0.42, 0.56]]
    assert by_layer(encoded.state.h, sequence=1) == [[0.08, 0.16], [0.24, 0.32]]
    assert encoded.mask.tolist() == [[True, True, True], [True, False, False]]


def test_the_top_layer_is_in_output_forward_at_the_last_token_and_backward_at_the_first():
    encoded = counting_encoder()(SOURCE, LENGTHS)
    forward, backward = encoded.outputs[..., 0], encoded.outputs[..., 1]  # with H units, [..., :H] and [..., H:]

    at_last_token = forward[[0, 1], LENGTHS - 1]
    assert rounded(at_last_token) == rounded(encoded.state.h[-1, 0, :, 0]) == [0.42, 0.24]
    assert rounded(backward[:, 0]) == rounded(encoded.state.h[-1, 1, :, 0]) == [0.56, 0.32]
    assert rounded(backward[0, 2]) == 0.32  # at its last token, the backward direction has read that token only


# 4. From encoder to decoder
#
# A bridge makes the initial state of a decoder layer from both directions of an encoder layer:
#     concat   side by side          linear   side by side, then a linear layer and tanh
#     mean     averaged              top      as linear, from the top layer for all decoder layers


def initial_state(bridge, decoder_layers, cell="gru", decoder_cell="gru"):
    """What a bridge makes of `H_N`, and of an LSTM's cells ``-H_N``: ``(decoder layers, one direction, batch, H')``."""
    state = RNNState.from_torch((H_N, -H_N) if cell == "lstm" else H_N, directions=2)
    size = {"concat": 2, "mean": 1}.get(bridge, 4)  # of the decoder, H'
    encoder = counting_encoder(cell, layers=3)
    torch.manual_seed(0)  # of the bridges with weights
    return Bridge(bridge, encoder=encoder, num_layers=decoder_layers, hidden_size=size, cell=decoder_cell)(state)


def test_each_decoder_layer_starts_from_both_directions_of_its_encoder_layer():
    initial = initial_state("concat", decoder_layers=3)

    assert initial.h.shape == (3, 1, 2, 2)  # (layers, one direction, batch, hidden)
    assert rounded(initial.h[:, 0, 0]) == [[0, 10], [20, 30], [40, 50]]
    assert rounded(initial.h[:, 0, 1]) == [[1, 11], [21, 31], [41, 51]]


def test_the_mean_bridge_averages_both_directions():
    assert rounded(initial_state("mean", decoder_layers=3).h[:, 0, 0]) == [[5], [25], [45]]


# 5. Unequal depths
#
# The top decoder layer starts from the top encoder layer, the one below from the one below, and so on. A deeper decoder
# starts its remaining lower layers from encoder layer 0. (`top` starts all from the top one.)


@pytest.mark.parametrize(
    ("decoder_layers", "start"),
    [(1, [[40, 50]]), (2, [[20, 30], [40, 50]]), (5, [[0, 10], [0, 10], [0, 10], [20, 30], [40, 50]])],
)
def test_the_top_layers_are_aligned(decoder_layers, start):
    assert rounded(initial_state("concat", decoder_layers).h[:, 0, 0]) == start


# 6. The LSTM's cell


def test_the_cell_counts_every_token_and_output_holds_the_hidden_state_only():
    encoded = counting_encoder("lstm")(SOURCE, LENGTHS)

    assert by_layer(encoded.state.c, sequence=0) == [[0.48, 0.96], [1.44, 1.92]]  # 0.16 * d * three tokens
    assert by_layer(encoded.state.c, sequence=1) == [[0.16, 0.32], [0.48, 0.64]]  # one token
    assert rounded(encoded.state.h) == rounded(encoded.state.c.tanh())
    assert rounded(encoded.outputs[0, 2, 0]) == rounded(encoded.state.h[1, 0, 0, 0])  # layer 1 forward: tanh(1.44)


def test_an_lstm_hands_its_cell_over_like_its_hidden_state():
    initial = initial_state("concat", 2, "lstm", "lstm")

    assert rounded(initial.h[:, 0, 0]) == [[20, 30], [40, 50]]
    assert rounded(initial.c[:, 0, 0]) == [[-20, -30], [-40, -50]]


@pytest.mark.parametrize(("bridge", "made"), [("linear", True), ("top", True), ("concat", False), ("mean", False)])
def test_from_gru_to_lstm_a_bridge_with_weights_makes_a_cell_and_others_start_it_at_zero(bridge, made):
    initial = initial_state(bridge, 2, "gru", "lstm")

    assert initial.c.shape == initial.h.shape
    assert bool(initial.c.any()) is made
    assert not torch.equal(initial.c, initial.h)  # made from h with weights of its own, or zero


def test_from_lstm_to_gru_the_cell_is_dropped():
    initial = initial_state("concat", 2, "lstm", "gru")

    assert rounded(initial.h[:, 0, 0]) == [[20, 30], [40, 50]]
    assert initial.c is None


# 7. All of it together


def test_from_source_tokens_to_the_first_step_of_the_decoder():
    encoder = counting_encoder()
    decoder = build_decoder(
        kind="luong", vocabulary_size=2, embedding_size=3, hidden_size=2, num_layers=2, cell="gru", dropout=0,
        attention=build_attention("none", query_size=2, value_size=2),  # so that nothing but the state arrives
    )  # fmt: skip
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)  # a GRU of zeros goes half the way to 0 with every token
    # The logits are W tanh(V output), as no context is beside output; with identities for W and V: tanh(output).
    nn.init.eye_(decoder.attentional_layer.weight)  # V
    nn.init.eye_(decoder.output_layer.weight)  # W
    model = Seq2Seq(encoder, Bridge("concat", encoder=encoder, num_layers=2, hidden_size=2, cell="gru"), decoder)

    start = model.encode(SOURCE, LENGTHS)
    logits, after = model.step(torch.tensor([1, 1]), start)  # any token would do

    # start.state is the decoder's state; its rnn is what the bridge made.
    assert start.state.rnn.h.shape == (2, 1, 2, 2)  # (layers, one direction, batch, hidden of the decoder)
    # Decoder layer 0 starts from layer 0 [forward, backward], and decoder layer 1 from layer 1.
    assert rounded(start.state.rnn.h[:, 0, 0]) == [[0.14, 0.28], [0.42, 0.56]]  # the sequence of three tokens
    assert rounded(start.state.rnn.h[:, 0, 1]) == [[0.08, 0.16], [0.24, 0.32]]  # the sequence of one
    assert rounded(after.state.rnn.h[:, 0, 0]) == [[0.07, 0.14], [0.21, 0.28]]
    assert rounded(after.state.rnn.h[:, 0, 1]) == [[0.04, 0.08], [0.12, 0.16]]
    assert rounded(logits) == rounded(torch.tensor([[0.21, 0.28], [0.12, 0.16]]).tanh())


# 8. The gallery of mistakes
#
# Right is, as above,       [[0.14, 0.28], [0.42, 0.56]] for the sequence of three tokens
#                      and  [[0.08, 0.16], [0.24, 0.32]] for the sequence of one.
# What a mistake hands over is reshaped to (layers, directions, batch, hidden), so no shape check notices.


@pytest.mark.parametrize(
    ("name", "three_tokens", "one_token"),
    [
        # h_n[:num_layers]; each row twice, to fill the place of both directions. The top layer is lost.
        ("wrong_first_rows", [[0.14, 0.14], [0.28, 0.28]], [[0.08, 0.08], [0.16, 0.16]]),
        # h_n.view(directions, layers, ...), or chunk(2): rows 0 and 2 for layer 0, rows 1 and 3 for layer 1.
        ("wrong_halves", [[0.14, 0.42], [0.28, 0.56]], [[0.08, 0.24], [0.16, 0.32]]),
        # h_n.view(layers, batch, 2 * hidden): forward of both for one sequence, backward of both for the other.
        ("wrong_joined_view", [[0.14, 0.08], [0.42, 0.24]], [[0.28, 0.16], [0.56, 0.32]]),
        # h_n.view(batch, layers, 2 * hidden): one sequence gets layer 0 of both, the other layer 1 of both.
        ("wrong_across_layers", [[0.14, 0.08], [0.28, 0.16]], [[0.42, 0.24], [0.56, 0.32]]),
        # output[:, -1] of packed input, for both layers: backward has read one token; padding is zero.
        ("wrong_last_output", [[0.42, 0.32], [0.42, 0.32]], [[0.00, 0.00], [0.00, 0.00]]),
        # Without pack_padded_sequence, two steps of padding are read as tokens.
        ("wrong_unpacked", [[0.14, 0.28], [0.42, 0.56]], [[0.14, 0.28], [0.42, 0.56]]),
    ],
)
def test_what_a_mistake_hands_over(name, three_tokens, one_token):
    handed = WrongEncoder(counting_encoder(), name)(SOURCE, LENGTHS).state.h

    assert by_layer(handed, sequence=0) == three_tokens
    assert by_layer(handed, sequence=1) == one_token


def test_wrong_cell_hands_the_hidden_state_over_as_the_cell():
    handed = WrongEncoder(counting_encoder("lstm"), "wrong_cell")(SOURCE, LENGTHS).state

    assert torch.equal(handed.c, handed.h)


# Next: test_handoff_claims.py (what people say about h_n, claim by claim) and test_handoff_properties.py (the same for
# networks and batches of any shape).
