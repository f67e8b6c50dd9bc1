"""The handoff in fifteen minutes: what ``output`` and ``h_n`` are, and what a decoder must start from.

1. What ``nn.GRU`` returns         every number of one sequence
2. The order of ``h_n``            layer by layer, forward before backward; the right view and the wrong ones
3. Padding                         where it is read, and how packing prevents that
4. From encoder to decoder         each decoder layer starts from both directions of its encoder layer
5. Unequal depths                  the top layers are aligned
6. The LSTM's cell                 it goes along; GRU to LSTM and back
7. All of it together              from source tokens to the decoder's first step
8. The gallery of mistakes         what popular mistakes hand over instead

The numbers can be traced by eye because the networks below *count*: their weights are zero, so their inputs do not
matter, and their biases let each row of ``h_n`` count the tokens that it has read. With ``d = 1, 2, 3, 4`` for layer 0
forward, layer 0 backward, layer 1 forward and layer 1 backward, a GRU's hidden state is

    0.08 * d after one token,   0.12 * d after two,   0.14 * d after three.

So 0.56 in ``h_n`` is layer 1 backward after three tokens. After one token or three, no two rows have the same number.

Next: ``test_handoff_claims.py`` (what people say about ``h_n``, claim by claim) and ``test_handoff_properties.py`` (the
same for networks and batches of any shape).
"""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq.handoff.mistakes import MISTAKES, WrongEncoder
from seq2seq.nn import Bridge, Encoder, RNNState, Seq2Seq, build_decoder
from seq2seq.nn.attention import build_attention

pytestmark = pytest.mark.usefixtures("float64")

LENGTHS = torch.tensor([3, 1])
SOURCE = torch.tensor([[5, 7, 6], [8, 0, 0]])  # token ids of a sequence of three and one of one, right-padded
ON = 50.0  # sigmoid(50) is 1 in float64


def let_it_count(rnn):
    """Set the parameters of an ``nn.GRU`` or ``nn.LSTM`` with one hidden unit so that it counts as described above.

    With every token, a GRU goes half the way from where it is to ``0.16 * d``. An LSTM adds ``0.16 * d`` to its cell.
    """
    for parameter in rnn.parameters():
        nn.init.zeros_(parameter)
    for layer in range(rnn.num_layers):
        for direction, suffix in enumerate(["", "_reverse"] if rnn.bidirectional else [""]):
            d = 2 * layer + direction + 1
            bias = getattr(rnn, f"bias_ih_l{layer}{suffix}").data
            if rnn.mode == "GRU":  # gates: reset, update, new
                bias[2] = math.atanh(0.16 * d)
            else:  # gates: input, forget, cell, output
                bias[:] = torch.tensor([ON, ON, math.atanh(0.16 * d), ON])
    return rnn


def counting_encoder(cell="gru", layers=2):
    """The encoder of this project around a counting network; its ``rnn`` is an ``nn.GRU`` or ``nn.LSTM``."""
    encoder = Encoder(
        vocabulary_size=9, embedding_size=4, hidden_size=1, num_layers=layers, cell=cell, bidirectional=True, dropout=0
    )
    let_it_count(encoder.rnn)
    return encoder


def shown(tensor):
    """A tensor as nested lists, rounded to the digits shown here."""
    return tensor.detach().round(decimals=6).tolist()


def by_layer(state, sequence):
    """What a state holds for one sequence: ``[[forward, backward], ...]``, layer 0 first."""
    return shown(state[:, :, sequence, 0])


# 1. What nn.GRU returns


def counting_gru(layers=2):
    return let_it_count(nn.GRU(input_size=4, hidden_size=1, num_layers=layers, batch_first=True, bidirectional=True))


def test_output_is_the_top_layer_at_every_step_and_h_n_is_every_layer_at_its_last():
    output, h_n = counting_gru(layers=2)(torch.randn(1, 3, 4))  # one sequence of three tokens

    assert output.shape == (1, 3, 2)  # (batch, steps, directions * hidden)
    assert shown(output[0]) == [[0.24, 0.56], [0.36, 0.48], [0.42, 0.32]]  # forward has read 1, 2, 3 tokens,
    assert h_n.shape == (4, 1, 1)  # (layers * directions, batch, hidden)                  and backward 3, 2, 1
    assert shown(h_n[:, 0, 0]) == [
        0.14,  # h_n[0]: layer 0 forward
        0.28,  # h_n[1]: layer 0 backward
        0.42,  # h_n[2]: layer 1 forward, which is in output at the last token
        0.56,  # h_n[3]: layer 1 backward, which is in output at the first token
    ]


# 2. The order of h_n


H_N = torch.tensor([[0, 1], [10, 11], [20, 21], [30, 31], [40, 41], [50, 51.0]]).unsqueeze(-1)
"""``h_n`` of three layers, two directions and two sequences; 41 is row 4 (layer 2 forward) of sequence 1."""


def test_the_right_view_has_the_layer_as_the_outer_axis_and_the_direction_as_the_inner_one():
    state = H_N.view(3, 2, 2, 1)  # (layers, directions, batch, hidden)

    assert by_layer(state, sequence=0) == [[0, 10], [20, 30], [40, 50]]  # [forward, backward] of layer 0, 1, 2
    assert by_layer(state, sequence=1) == [[1, 11], [21, 31], [41, 51]]
    assert torch.equal(RNNState.from_torch(H_N, directions=2).h, state)  # as everywhere in this project


def test_views_that_fit_and_are_wrong():
    rows = H_N[:3]  # h_n[:num_layers], as widely copied tutorials have it: layer 0 for two layers, and no layer 2
    assert shown(rows[:, 0, 0]) == [0, 10, 20]
    halves = H_N.view(2, 3, 2, 1)  # (directions, layers, ...): two layers are mixed
    assert shown(halves[:, :, 0, 0].T) == [[0, 30], [10, 40], [20, 50]]
    joined = H_N.view(3, 2, 2)  # (layers, batch, 2 * hidden): the other sequence in place of the other direction
    assert shown(joined[:, 0]) == [[0, 1], [20, 21], [40, 41]]
    across = H_N.view(2, 3, 2)  # (batch, layers, 2 * hidden): other layers of other sequences, too
    assert shown(across[0]) == [[0, 1], [10, 11], [20, 21]]


@pytest.mark.parametrize("with_cell", [False, True])
def test_a_state_goes_back_to_pytorch_as_it_came(with_cell):
    h_n = torch.arange(6 * 4 * 5.0).view(6, 4, 5)  # three layers, two directions, four sequences, five units
    c_n = -h_n

    back = RNNState.from_torch((h_n, c_n) if with_cell else h_n, directions=2).to_torch()

    assert torch.equal(back[0] if with_cell else back, h_n)
    assert not with_cell or torch.equal(back[1], c_n)


# 3. Padding
#
# Sequences of a batch are padded to the length of the longest. A network cannot tell padding from tokens: the forward
# direction reads it last, and the backward direction first. Packing lists the real tokens only, step by step, so that
# every sequence ends at its own last token, and begins there in the backward direction.

VECTORS = torch.randn(
    2, 3, 4, dtype=torch.float64
)  # a sequence of three tokens, and one of one token with two steps of padding


def test_without_packing_padding_is_read():
    output, h_n = counting_gru()(VECTORS)

    assert shown(h_n[:, 1, 0]) == shown(h_n[:, 0, 0]) == [0.14, 0.28, 0.42, 0.56]  # both have counted three
    assert shown(output[1, 0]) == [0.24, 0.56]  # at its only token, backward has read the padding already


def test_a_packed_sequence_ends_at_its_own_last_token():
    packed = pack_padded_sequence(VECTORS, LENGTHS, batch_first=True, enforce_sorted=False)
    packed_output, h_n = counting_gru()(packed)
    output, _ = pad_packed_sequence(packed_output, batch_first=True)

    assert packed.batch_sizes.tolist() == [2, 1, 1]  # two tokens at the first step, then one: four of six vectors
    assert shown(h_n[:, 0, 0]) == [0.14, 0.28, 0.42, 0.56]  # three tokens
    assert shown(h_n[:, 1, 0]) == [0.08, 0.16, 0.24, 0.32]  # one token
    assert shown(output[1]) == [[0.24, 0.32], [0.00, 0.00], [0.00, 0.00]]  # at padding, output is zero


def test_the_encoder_packs():
    encoded = counting_encoder()(SOURCE, LENGTHS)

    assert by_layer(encoded.state.h, sequence=0) == [[0.14, 0.28], [0.42, 0.56]]
    assert by_layer(encoded.state.h, sequence=1) == [[0.08, 0.16], [0.24, 0.32]]
    assert encoded.mask.tolist() == [[True, True, True], [True, False, False]]


def test_the_top_layer_is_in_output_forward_at_the_last_token_and_backward_at_the_first():
    encoded = counting_encoder()(SOURCE, LENGTHS)
    forward, backward = encoded.outputs[..., 0], encoded.outputs[..., 1]  # in general, [..., :H] and [..., H:]

    assert shown(forward[[0, 1], LENGTHS - 1]) == shown(encoded.state.h[-1, 0, :, 0]) == [0.42, 0.24]
    assert shown(backward[:, 0]) == shown(encoded.state.h[-1, 1, :, 0]) == [0.56, 0.32]
    assert shown(backward[0, 2]) == 0.32  # at its last token, the backward direction has read that token only


def random_encoder(cell="gru", layers=2, hidden_size=5):
    torch.manual_seed(0)
    return Encoder(
        vocabulary_size=9, embedding_size=4, hidden_size=hidden_size, num_layers=layers, cell=cell, bidirectional=True,
        dropout=0,
    )  # fmt: skip


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_sequence_in_a_batch_gives_what_it_gives_alone(cell):
    encoder, source, lengths = random_encoder(cell), torch.randint(0, 9, (4, 6)), torch.tensor([3, 6, 1, 4])
    together = encoder(source, lengths)

    for b, length in enumerate(lengths.tolist()):
        alone = encoder(source[b : b + 1, :length], lengths[b : b + 1])
        torch.testing.assert_close(together.outputs[b, :length], alone.outputs[0], rtol=0, atol=1e-12)
        for part, expected in zip(together.state, alone.state, strict=True):
            assert expected is None or torch.allclose(part[:, :, b], expected[:, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_what_is_in_the_padding_does_not_matter(cell):
    encoder = random_encoder(cell)

    zeros, others = encoder(SOURCE, LENGTHS), encoder(torch.tensor([[5, 7, 6], [8, 3, 4]]), LENGTHS)

    assert torch.equal(zeros.outputs, others.outputs)
    assert all(torch.equal(*parts) for parts in zip(zeros.state, others.state, strict=True) if parts[0] is not None)
    assert not zeros.outputs[1, 1:].any()  # at padding, outputs are zero


# 4. From encoder to decoder
#
# A bridge makes the initial state of a decoder layer from both directions of an encoder layer:
#     concat   side by side          linear   side by side, then a linear layer and tanh
#     mean     averaged              top      as linear, from the top layer for all decoder layers


def labelled_state(layers, directions=2, cell="gru"):
    """A state of four sequences and five units in which each number says where it is.

    1130 is layer 0, forward, sequence 3, unit 0; 2204 is layer 1, backward, sequence 0, unit 4. Cells are negative.
    """
    sizes = (layers, directions, 4, 5)
    layer, direction, sequence, unit = torch.meshgrid(*map(torch.arange, sizes), indexing="ij")
    h = (1000 * (layer + 1) + 100 * (direction + 1) + 10 * sequence + unit).double()
    return RNNState(h, -h if cell == "lstm" else None)


def make_bridge(name, layers, decoder_layers, cell="gru", decoder_cell="gru"):
    size = {"concat": 10, "mean": 5}.get(name, 6)  # of the decoder; the encoder has five units in each direction
    encoder = random_encoder(cell, layers)
    return Bridge(name, encoder=encoder, num_layers=decoder_layers, hidden_size=size, cell=decoder_cell)


def test_each_decoder_layer_starts_from_both_directions_of_its_encoder_layer():
    initial = make_bridge("concat", layers=2, decoder_layers=2)(labelled_state(layers=2))

    assert initial.h.shape == (2, 1, 4, 10)  # (layers, one direction, batch, hidden)
    assert initial.h[0, 0, 3].tolist() == [1130, 1131, 1132, 1133, 1134, 1230, 1231, 1232, 1233, 1234]
    assert initial.h[1, 0, 0].tolist() == [2100, 2101, 2102, 2103, 2104, 2200, 2201, 2202, 2203, 2204]


def test_the_mean_bridge_averages_both_directions():
    initial = make_bridge("mean", layers=2, decoder_layers=2)(labelled_state(layers=2))

    assert initial.h[1, 0, 2].tolist() == [2170, 2171, 2172, 2173, 2174]  # halfway from 2120 to 2220, and so on


def layers_that_change(bridge, layers, part, encoder_layer):
    """Which decoder layers start from another ``part`` (h or c) if that of one encoder layer changes."""
    state = RNNState(*torch.randn(2, layers, 2, 4, 5))
    other = getattr(state, part).clone()
    other[encoder_layer] += 1
    before, after = (getattr(bridge(one), part) for one in (state, state._replace(**{part: other})))
    return (before != after).flatten(1).any(1).tolist()


@pytest.mark.parametrize("part", ["h", "c"])
@pytest.mark.parametrize("name", ["linear", "concat", "mean"])
def test_nothing_of_another_layer_reaches_a_decoder_layer(name, part):
    bridge = make_bridge(name, 2, 2, "lstm", "lstm")

    assert layers_that_change(bridge, 2, part, encoder_layer=0) == [True, False]
    assert layers_that_change(bridge, 2, part, encoder_layer=1) == [False, True]


# 5. Unequal depths
#
# The top decoder layer starts from the top encoder layer, the one below from the one below, and so on. A deeper decoder
# starts its remaining lower layers from encoder layer 0.


@pytest.mark.parametrize(
    ("layers", "decoder_layers", "starts_from"),
    [(3, 2, [1, 2]), (3, 1, [2]), (2, 3, [0, 0, 1]), (1, 2, [0, 0]), (1, 3, [0, 0, 0]), (3, 3, [0, 1, 2])],
)
def test_the_top_layers_are_aligned(layers, decoder_layers, starts_from):
    initial = make_bridge("concat", layers, decoder_layers)(labelled_state(layers))

    thousands = initial.h[:, 0, 0, 0] // 1000  # the number of the encoder layer, counted from 1
    assert [int(number) - 1 for number in thousands] == starts_from


def test_the_top_bridge_hands_the_top_layer_to_all():
    bridge = make_bridge("top", layers=3, decoder_layers=2)

    assert [layers_that_change(bridge, 3, "h", encoder_layer) for encoder_layer in (0, 1, 2)] == [
        [False, False],
        [False, False],
        [True, True],
    ]


# 6. The LSTM's cell


def test_an_lstm_hands_its_cell_over_like_its_hidden_state():
    initial = make_bridge("concat", 2, 2, "lstm", "lstm")(labelled_state(2, cell="lstm"))

    assert initial.h[1, 0, 0, [0, 5]].tolist() == [2100, 2200]
    assert initial.c[1, 0, 0, [0, 5]].tolist() == [-2100, -2200]


def test_the_cell_counts_every_token_and_is_not_in_output():
    encoded = counting_encoder("lstm")(SOURCE, LENGTHS)

    assert by_layer(encoded.state.c, sequence=0) == [[0.48, 0.96], [1.44, 1.92]]  # 0.16 * d * three tokens
    assert by_layer(encoded.state.c, sequence=1) == [[0.16, 0.32], [0.48, 0.64]]  # one token
    assert shown(encoded.state.h) == shown(encoded.state.c.tanh())
    assert not torch.isin(encoded.state.c, encoded.outputs).any()


@pytest.mark.parametrize(("name", "made"), [("linear", True), ("top", True), ("concat", False), ("mean", False)])
def test_from_gru_to_lstm_a_bridge_with_weights_makes_a_cell_and_others_start_it_at_zero(name, made):
    state = labelled_state(2)

    initial = make_bridge(name, 2, 2, "gru", "lstm")(RNNState(state.h / 3000))

    assert initial.c.shape == initial.h.shape
    assert bool(initial.c.any()) is made
    assert not torch.equal(initial.c, initial.h)  # the weights of the cell are its own


def test_from_lstm_to_gru_the_cell_is_dropped():
    initial = make_bridge("concat", 2, 2, "lstm", "gru")(labelled_state(2, cell="lstm"))

    assert initial.h[1, 0, 0, [0, 5]].tolist() == [2100, 2200]
    assert initial.c is None


# 7. All of it together


def test_from_source_tokens_to_the_first_step_of_the_decoder():
    encoder = counting_encoder()
    decoder = build_decoder(
        kind="luong", vocabulary_size=2, embedding_size=3, hidden_size=2, num_layers=2, cell="gru", dropout=0,
        attention=build_attention("none", query_size=2, value_size=2),  # so that nothing but the state arrives
    )  # fmt: skip
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)  # a GRU of zeros halves its state with every token
    for identity in (decoder.attentional_layer, decoder.output_layer):
        nn.init.eye_(identity.weight)  # so that the logits are tanh of the top layer's output
    model = Seq2Seq(encoder, Bridge("concat", encoder=encoder, num_layers=2, hidden_size=2, cell="gru"), decoder)
    begin = torch.tensor([1, 1])  # any token would do

    encoded = model.encode(SOURCE, LENGTHS)
    logits, after = model.step(begin, encoded)

    # The bridge has been crossed: (layers, one direction, batch, hidden of the decoder).
    assert encoded.state.rnn.h.shape == (2, 1, 2, 2)
    # Decoder layer 0 starts from layer 0 [forward, backward], and decoder layer 1 from layer 1.
    assert shown(encoded.state.rnn.h[:, 0, 0]) == [[0.14, 0.28], [0.42, 0.56]]
    assert shown(encoded.state.rnn.h[:, 0, 1]) == [[0.08, 0.16], [0.24, 0.32]]
    assert shown(after.state.rnn.h[:, 0, 0]) == [[0.07, 0.14], [0.21, 0.28]]
    assert shown(after.state.rnn.h[:, 0, 1]) == [[0.04, 0.08], [0.12, 0.16]]
    assert shown(logits) == shown(torch.tensor([[0.21, 0.28], [0.12, 0.16]]).tanh())


# 8. The gallery of mistakes
#
# Right is, as above,       [[0.14, 0.28], [0.42, 0.56]] for the sequence of three tokens
#                      and  [[0.08, 0.16], [0.24, 0.32]] for the sequence of one.
# All mistakes keep the shape (layers, directions, batch, hidden), so no shape check notices.


@pytest.mark.parametrize(
    ("name", "three_tokens", "one_token"),
    [
        # h_n[:num_layers]: row 0 for both directions of layer 0, row 1 for both of layer 1. The top layer is lost.
        ("wrong_first_rows", [[0.14, 0.14], [0.28, 0.28]], [[0.08, 0.08], [0.16, 0.16]]),
        # h_n.chunk(2), or view(directions, layers, ...): rows 0 and 2 for layer 0, rows 1 and 3 for layer 1. With one
        # layer or one direction, this would be right.
        ("wrong_halves", [[0.14, 0.42], [0.28, 0.56]], [[0.08, 0.24], [0.16, 0.32]]),
        # h_n.view(layers, batch, 2 * hidden): the other sequence instead of the other direction.
        ("wrong_joined_view", [[0.14, 0.08], [0.42, 0.24]], [[0.28, 0.16], [0.56, 0.32]]),
        # h_n.view(batch, layers, 2 * hidden): one sequence gets layer 0 of both, the other layer 1 of both.
        ("wrong_across_layers", [[0.14, 0.08], [0.28, 0.16]], [[0.42, 0.24], [0.56, 0.32]]),
        # output[:, -1] of packed input, for both layers: backward has read one token; padding is zero.
        ("wrong_last_output", [[0.42, 0.32], [0.42, 0.32]], [[0.00, 0.00], [0.00, 0.00]]),
        # Without pack_padded_sequence, two steps of padding are read as tokens: by forward last, by backward first.
        ("wrong_unpacked", [[0.14, 0.28], [0.42, 0.56]], [[0.14, 0.28], [0.42, 0.56]]),
    ],
)
def test_what_a_mistake_hands_over(name, three_tokens, one_token):
    handed = WrongEncoder(counting_encoder(), name)(SOURCE, LENGTHS).state.h

    assert by_layer(handed, sequence=0) == three_tokens
    assert by_layer(handed, sequence=1) == one_token


def test_wrong_cell_hands_the_hidden_state_over_as_the_cell():
    right, wrong = counting_encoder("lstm"), WrongEncoder(counting_encoder("lstm"), "wrong_cell")

    handed = wrong(SOURCE, LENGTHS).state

    assert torch.equal(handed.c, right(SOURCE, LENGTHS).state.h)
    assert not torch.isclose(handed.c, right(SOURCE, LENGTHS).state.c).any()


def test_wrong_unmasked_attends_to_padding():
    attention = build_attention("general", query_size=6, value_size=10)
    encoder, queries = random_encoder(), torch.randn(2, 3, 6)

    def weights(encoded):
        return attention(queries, attention.init_memory(encoded.outputs, encoded.mask))[1]  # (batch, queries, steps)

    assert not weights(encoder(SOURCE, LENGTHS))[1, :, 1:].any()
    assert (weights(WrongEncoder(encoder, "wrong_unmasked")(SOURCE, LENGTHS))[1, :, 1:] > 0).all()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_keeps_every_shape(name):
    encoder = random_encoder("lstm")
    right, wrong = encoder(SOURCE, LENGTHS), WrongEncoder(encoder, name)(SOURCE, LENGTHS)

    def shapes(encoded):
        return [tensor.shape for tensor in (encoded.outputs, *encoded.state, encoded.mask)]

    assert shapes(wrong) == shapes(right)
