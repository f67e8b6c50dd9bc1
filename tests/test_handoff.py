"""The handoff: what ``output`` and ``h_n`` are, and what the decoder must get of them. Read this one first.

1. The order inside ``h_n``            layers outside, directions inside
2. Where the final states stand        forward at a row's last real token, backward at its first
3. Padding and row order               change nothing
4. A second implementation             a plain loop over cells, row by row, agrees
5. From encoder to decoder             every decoder layer starts from its encoder layer; the LSTM's cell goes along
6. The question, claim by claim        what a widely read forum question and its answers say, and what is so
7. The same for any shape              properties over cells, layers, directions, sizes, lengths and row orders
8. The gallery of mistakes             what each popular mistake hands over instead

The oracle of the first parts is a recurrent network that writes its own address and counts its steps, so that every
number can be traced by eye. All its weights are zero and its biases make

- a GRU's hidden state ``address * (1 - 2^-t)`` after ``t`` steps (its state cannot leave (-1, 1)),
- an LSTM's cell state ``address * t``,

where the address is 0.11 for layer 0 forward, 0.12 for layer 0 backward, 0.21 for layer 1 forward, and so on.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from seq2seq.errors import UserError
from seq2seq.handoff.mistakes import MISTAKES, WrongEncoder
from seq2seq.nn import Bridge, Encoder, RNNState, build_decoder
from seq2seq.nn.attention import build_attention

LENGTHS = torch.tensor([3, 5, 1, 4])  # neither sorted nor equal
B, S, H, E, V = 4, 5, 7, 8, 9
CELLS = ["gru", "lstm"]
SURE = 50.0  # sigmoid(50) is 1 and tanh(50) is 1, to the last bit of a float64

every_shape = pytest.mark.parametrize(
    ("cell", "layers", "directions"),
    [(cell, layers, directions) for cell in CELLS for layers in (1, 2, 3) for directions in (1, 2)],
)
pytestmark = pytest.mark.usefixtures("float64")


def make_encoder(cell="gru", layers=2, directions=2, hidden_size=H):
    torch.manual_seed(0)
    return Encoder(
        vocabulary_size=V,
        embedding_size=E,
        hidden_size=hidden_size,
        num_layers=layers,
        cell=cell,
        bidirectional=directions == 2,
        dropout=0.0,
    )


def address(layer, direction):
    return (10 * (layer + 1) + direction + 1) / 100


def make_counter(cell, layers, directions):
    """An encoder that writes its address and counts its steps."""
    encoder = make_encoder(cell, layers, directions, hidden_size=1)
    with torch.no_grad():
        for parameter in encoder.rnn.parameters():
            parameter.zero_()
        for layer in range(layers):
            for direction in range(directions):
                bias = getattr(encoder.rnn, f"bias_ih_l{layer}{'_reverse' * direction}")
                candidate = math.atanh(address(layer, direction))
                if cell == "gru":  # reset, update, new; update = 1/2, so h = h / 2 + address / 2
                    bias[2] = candidate
                else:  # input, forget, cell, output; the first two are 1, so c = c + address
                    bias[:3] = torch.tensor([SURE, SURE, candidate])
    return encoder


def random_source():
    torch.manual_seed(1)
    return torch.randint(0, V, (B, S))


# 1. The order inside h_n


def test_h_n_goes_through_layers_slowly_and_through_directions_fast():
    counter = make_counter("gru", layers=3, directions=2)
    embedded = torch.zeros(1, 3, E)  # one row of three steps: 1 - 2^-3 = 7/8

    _, h_n = counter.rnn(embedded)

    addresses = torch.tensor([0.11, 0.12, 0.21, 0.22, 0.31, 0.32])
    torch.testing.assert_close(h_n.flatten(), addresses * 7 / 8)


def test_the_copied_slice_takes_the_backward_half_of_layer_0_for_layer_1():
    counter = make_counter("gru", layers=2, directions=2)
    _, h_n = counter.rnn(torch.zeros(1, 3, E))

    wrong = h_n[:2]  # "the first num_layers rows", as widely copied tutorials have it

    torch.testing.assert_close(wrong.flatten(), torch.tensor([0.11, 0.12]) * 7 / 8)  # and layer 1 is dropped


@every_shape
def test_the_state_has_an_axis_for_layers_and_one_for_directions(cell, layers, directions):
    counter = make_counter(cell, layers, directions)

    state = counter(random_source(), LENGTHS).state

    written = state.h if cell == "gru" else state.c
    steps = 1 - 0.5**LENGTHS if cell == "gru" else LENGTHS.double()
    for layer in range(layers):
        for direction in range(directions):
            torch.testing.assert_close(written[layer, direction, :, 0], address(layer, direction) * steps)


@pytest.mark.parametrize("cell", CELLS)
def test_from_torch_and_to_torch_are_inverse(cell):
    packed = torch.arange(6 * B * H, dtype=torch.float64).view(6, B, H)
    given_state = packed if cell == "gru" else (packed, -packed)

    back = RNNState.from_torch(given_state, directions=2).to_torch()

    for part, expected in zip((back,) if cell == "gru" else back, (packed, -packed), strict=False):
        assert torch.equal(part, expected)


def test_a_row_count_that_no_direction_count_divides_is_refused():
    with pytest.raises(ValueError, match="h_n has 3 rows, which is not a multiple of 2 directions"):
        RNNState.from_torch(torch.zeros(3, B, H), directions=2)


# 2. Where the final states stand


@every_shape
def test_the_forward_final_state_stands_at_each_rows_last_real_token(cell, layers, directions):
    encoded = make_encoder(cell, layers, directions)(random_source(), LENGTHS)

    last = encoded.outputs[torch.arange(B), LENGTHS - 1]

    assert torch.equal(encoded.state.h[-1, 0], last[:, :H])


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_backward_final_state_stands_at_each_rows_first_token(cell, layers):
    encoded = make_encoder(cell, layers, directions=2)(random_source(), LENGTHS)

    assert torch.equal(encoded.state.h[-1, 1], encoded.outputs[:, 0, H:])


@pytest.mark.parametrize("cell", CELLS)
def test_the_last_output_is_not_the_backward_final_state(cell):
    # At its last token the backward direction has read that one token only.
    encoded = make_encoder(cell)(random_source(), LENGTHS)
    last = encoded.outputs[torch.arange(B), LENGTHS - 1, H:]

    differs = (encoded.state.h[-1, 1] != last).any(dim=1)

    assert torch.equal(differs, LENGTHS > 1)  # with a single token, first and last are the same


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_output_holds_the_top_layer_only_and_h_n_every_layer(cell, directions):
    encoded = make_encoder(cell, layers=3, directions=directions)(random_source(), LENGTHS)
    in_output = encoded.outputs.unflatten(-1, (directions, H)).flatten(1, 2)  # (B, S * D, H)

    found = (encoded.state.h.unsqueeze(3) == in_output).all(dim=-1).any(dim=-1)  # (L, D, B)

    assert not found[:2].any()
    assert found[2].all()


def test_the_cell_stands_nowhere_in_output():
    encoded = make_encoder("lstm", layers=1)(random_source(), LENGTHS)
    in_output = encoded.outputs.unflatten(-1, (2, H)).flatten(1, 2)

    assert not (encoded.state.c.unsqueeze(3) == in_output).all(dim=-1).any()


# 3. Padding and row order


@every_shape
def test_a_row_alone_gives_what_it_gives_in_a_batch(cell, layers, directions):
    encoder, source = make_encoder(cell, layers, directions), random_source()
    together = encoder(source, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(source[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(together.outputs[row, :length], alone.outputs[0], rtol=0, atol=1e-12)
        for part, expected in zip(together.state, alone.state, strict=True):
            if expected is not None:
                torch.testing.assert_close(part[:, :, row], expected[:, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_what_stands_in_the_padding_is_never_read(cell):
    encoder, source = make_encoder(cell), random_source()
    padding = torch.arange(S) >= LENGTHS.unsqueeze(1)

    one = encoder(source.masked_fill(padding, 0), LENGTHS)
    other = encoder(source.masked_fill(padding, V - 1), LENGTHS)

    assert torch.equal(one.outputs, other.outputs)
    assert torch.equal(one.state.h, other.state.h)
    assert not one.outputs[padding].any()
    assert torch.equal(one.mask, ~padding)


@pytest.mark.parametrize("lengths", [LENGTHS, torch.full((B,), S)])
def test_outputs_are_as_long_as_the_source_even_where_every_row_is_padded(lengths):
    source = torch.cat([random_source(), torch.zeros(B, 2, dtype=torch.long)], dim=1)

    encoded = make_encoder()(source, lengths)

    assert encoded.outputs.shape == (B, S + 2, 2 * H)
    assert not encoded.outputs[:, S:].any()
    assert encoded.mask.sum(dim=1).tolist() == lengths.tolist()


@pytest.mark.parametrize("cell", CELLS)
@given(order=st.permutations(range(B)))
def test_the_order_of_rows_changes_nothing(cell, order):
    encoder, source = make_encoder(cell), random_source()
    straight = encoder(source, LENGTHS)

    mixed = encoder(source[order], LENGTHS[order])

    torch.testing.assert_close(mixed.outputs, straight.outputs[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed.state.h, straight.state.select(torch.tensor(order)).h, rtol=0, atol=1e-12)


def test_without_packing_padding_enters_the_state():
    # What this project avoids: the same row, padded and not packed, has another final state in both directions.
    encoder, source = make_encoder(), random_source()
    unpacked = RNNState.from_torch(encoder.rnn(encoder.embedding(source))[1], directions=2)
    exact = encoder(source, LENGTHS).state

    differs = ((unpacked.h - exact.h).abs() > 1e-9).any(dim=-1)  # (L, D, B)

    assert torch.equal(differs.all(dim=1).all(dim=0), LENGTHS < S)  # every layer and direction of the shorter rows
    assert torch.equal(differs.any(dim=1).any(dim=0), LENGTHS < S)  # and nothing of the longest


@pytest.mark.parametrize("length", [0, S + 1])
def test_a_length_that_no_row_can_have_is_refused(length):
    lengths = torch.tensor([3, length, 1, 4])

    with pytest.raises(ValueError, match=rf"between 1 and S=5, got \[3, {length}, 1, 4\]"):
        make_encoder()(random_source(), lengths)


# 4. A second implementation


def cell_by_cell(encoder, tokens):
    """One row, without padding, through a plain loop over cells: outputs ``(S, D * H)``, h and c ``(L, D, H)``."""
    rnn, kind = encoder.rnn, nn.GRUCell if encoder.cell == "gru" else nn.LSTMCell
    layer_input, final_h, final_c = list(encoder.embedding(tokens)), [], []
    for layer in range(encoder.num_layers):
        columns = []
        for suffix in ("", "_reverse")[: encoder.directions]:
            cell = kind(layer_input[0].numel(), encoder.hidden_size)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(cell, name).data = getattr(rnn, f"{name}_l{layer}{suffix}").data
            h = c = torch.zeros(encoder.hidden_size)
            column = []
            for step in reversed(layer_input) if suffix else layer_input:
                h, c = (cell(step, h), c) if encoder.cell == "gru" else cell(step, (h, c))
                column.append(h)
            columns.append(column[::-1] if suffix else column)
            final_h.append(h)
            final_c.append(c)
        layer_input = [torch.cat(step) for step in zip(*columns, strict=True)]
    shape = (encoder.num_layers, encoder.directions, encoder.hidden_size)
    return torch.stack(layer_input), torch.stack(final_h).view(shape), torch.stack(final_c).view(shape)


@every_shape
def test_the_encoder_agrees_with_a_plain_loop_over_cells(cell, layers, directions):
    encoder, source = make_encoder(cell, layers, directions), random_source()
    encoded = encoder(source, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        outputs, h, c = cell_by_cell(encoder, source[row, :length])
        torch.testing.assert_close(encoded.outputs[row, :length], outputs, rtol=0, atol=1e-12)
        torch.testing.assert_close(encoded.state.h[:, :, row], h, rtol=0, atol=1e-12)
        if cell == "lstm":
            torch.testing.assert_close(encoded.state.c[:, :, row], c, rtol=0, atol=1e-12)


# 5. From encoder to decoder


def readable_state(layers, directions, cell="gru"):
    """A state in which each number says where it stands: layer, direction, row, unit; the cell's are negative."""
    axes = [torch.arange(size, dtype=torch.float64) for size in (layers, directions, B, H)]
    layer, direction, row, unit = torch.meshgrid(*axes, indexing="ij")
    h = 1000 * (layer + 1) + 100 * (direction + 1) + 10 * row + unit
    return RNNState(h, -h if cell == "lstm" else None)


def make_bridge(name, layers, directions, decoder_layers, cell="gru", decoder_cell="gru", hidden_size=None):
    size = {"concat": directions * H, "mean": H}.get(name, hidden_size or 6)
    encoder = make_encoder(cell, layers, directions)
    return Bridge(name, encoder=encoder, num_layers=decoder_layers, hidden_size=size, cell=decoder_cell)


def test_a_two_layer_handoff_traced_by_eye():
    handed = make_bridge("concat", layers=2, directions=2, decoder_layers=2)(readable_state(2, 2))

    # 1130 is layer 0, forward, row 3, unit 0: layers and directions are written from 1, rows and units from 0
    forward, backward = range(1130, 1137), range(1230, 1237)
    assert handed.h[0, 0, 3].tolist() == [*forward, *backward]
    assert handed.h[1, 0, 0].tolist() == [*range(2100, 2107), *range(2200, 2207)]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("layers", "decoder_layers", "sources"),
    [(1, 1, [0]), (2, 2, [0, 1]), (3, 3, [0, 1, 2]), (3, 2, [1, 2]), (3, 1, [2]), (1, 3, [0, 0, 0]), (2, 3, [0, 0, 1])],
)
@pytest.mark.parametrize("cell", CELLS)
def test_every_decoder_layer_starts_from_its_encoder_layer(cell, layers, decoder_layers, sources, directions):
    state = readable_state(layers, directions, cell)

    handed = make_bridge("concat", layers, directions, decoder_layers, cell, cell)(state)

    for layer, source in enumerate(sources):
        for part, given_part in ((handed.h, state.h), (handed.c, state.c)):
            if given_part is not None:
                both = [given_part[source, direction] for direction in range(directions)]
                assert torch.equal(part[layer, 0], torch.cat(both, dim=-1))


def reach(bridge, state, part, given_part):
    """Which layer of the encoder's state reaches which layer of the decoder's, by its gradient: ``(L', L)``."""
    leaf = getattr(state, given_part).clone().div(1e4).requires_grad_()
    handed = getattr(bridge(state._replace(h=state.h / 1e4)._replace(**{given_part: leaf})), part)
    rows = []
    for layer in handed:
        (gradient,) = torch.autograd.grad(layer.sum(), leaf, retain_graph=True, allow_unused=True)
        rows.append(torch.zeros(leaf.size(0)) if gradient is None else gradient.abs().sum(dim=(1, 2, 3)))
    return torch.stack(rows) != 0


@pytest.mark.parametrize("name", ["linear", "concat", "mean"])
@pytest.mark.parametrize("part", ["h", "c"])
def test_nothing_of_another_layer_reaches_a_decoder_layer(name, part):
    bridge = make_bridge(name, 3, 2, 2, "lstm", "lstm")

    reached = reach(bridge, readable_state(3, 2, "lstm"), part, part)

    assert reached.int().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_the_top_bridge_hands_the_top_layer_to_all():
    reached = reach(make_bridge("top", 3, 2, 2), readable_state(3, 2), "h", "h")

    assert reached.int().tolist() == [[0, 0, 1], [0, 0, 1]]


def test_both_directions_reach_the_decoder():
    state = readable_state(1, 2)
    leaf = (state.h / 1e4).requires_grad_()

    make_bridge("linear", 1, 2, 1)(RNNState(leaf)).h.sum().backward()

    assert leaf.grad.abs().sum(dim=(0, 2, 3)).gt(0).tolist() == [True, True]


def test_every_decoder_layer_has_weights_of_its_own():
    bridge = make_bridge("linear", layers=1, directions=2, decoder_layers=2)

    handed = bridge(RNNState(readable_state(1, 2).h / 1e4))  # both decoder layers start from the one encoder layer

    assert not torch.isclose(handed.h[0], handed.h[1]).any()


@pytest.mark.parametrize("name", ["linear", "top"])
def test_the_cell_has_weights_of_its_own(name):
    bridge = make_bridge(name, 2, 2, 2, "lstm", "lstm")
    state = readable_state(2, 2).h / 1e4

    handed = bridge(RNNState(state, state))

    assert not torch.isclose(handed.h, handed.c).any()


@pytest.mark.parametrize(("name", "made"), [("linear", True), ("top", True), ("concat", False), ("mean", False)])
def test_from_gru_to_lstm_weights_make_a_cell_and_other_bridges_start_it_at_zero(name, made, caplog):
    with caplog.at_level("INFO"):
        bridge = make_bridge(name, 2, 2, 2, "gru", "lstm")

    handed = bridge(RNNState(readable_state(2, 2).h / 1e4))

    assert bool(handed.c.any()) is made
    assert ("is made from its hidden state" if made else "starts at zero") in caplog.text


def test_from_lstm_to_gru_the_cell_is_dropped_and_the_log_says_so(caplog):
    with caplog.at_level("INFO"):
        bridge = make_bridge("linear", 2, 2, 2, "lstm", "gru")

    assert bridge(readable_state(2, 2, "lstm")).c is None
    assert "the LSTM encoder's is dropped" in caplog.text


@pytest.mark.parametrize("name", ["learned", "zeros"])
def test_learned_and_zeros_start_any_cell_from_any_other(name):
    to_lstm, to_gru = make_bridge(name, 2, 2, 3, "gru", "lstm"), make_bridge(name, 2, 2, 3, "lstm", "gru")

    assert to_lstm(readable_state(2, 2, "gru")).c.shape == (3, 1, B, 6)
    assert to_gru(readable_state(2, 2, "lstm")).c is None


@pytest.mark.parametrize("name", ["learned", "zeros"])
@pytest.mark.parametrize("cell", CELLS)
def test_learned_and_zeros_hand_nothing_over(name, cell):
    bridge = make_bridge(name, 2, 2, 3, cell, cell)

    ones = torch.ones(2, 2, B, H)

    one, other = bridge(readable_state(2, 2, cell)), bridge(RNNState(ones, ones if cell == "lstm" else None))

    assert one.h.shape == (3, 1, B, 6)
    assert torch.equal(one.h, other.h)
    assert (one.c is None) if cell == "gru" else torch.equal(one.c, other.c)
    assert len(list(bridge.parameters())) == (0 if name == "zeros" else 1 + (cell == "lstm"))


def test_the_mean_bridge_averages_both_directions():
    handed = make_bridge("mean", 2, 2, 2)(readable_state(2, 2))

    assert handed.h[1, 0, 2].tolist() == [2170 + unit for unit in range(H)]  # between 2120 and 2220


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_every_decoder_layer_goes_on_from_its_own_state(cell, layers):
    torch.manual_seed(2)
    decoder = build_decoder(
        kind="luong", input_feeding=False, tied=False, vocabulary_size=V, embedding_size=E, hidden_size=6,
        num_layers=layers, cell=cell, dropout=0.0,
        attention=build_attention("none", query_size=6, value_size=H, num_heads=1),
    )  # fmt: skip
    encoder = make_encoder(cell, 1, 1)
    memory = decoder.init_memory(encoder(random_source(), LENGTHS))
    state = RNNState(torch.rand(layers, 1, B, 6), torch.rand(layers, 1, B, 6) if cell == "lstm" else None)
    token = torch.tensor([1, 2, 3, 4])

    after = decoder(token.unsqueeze(1), memory, state).state

    step = decoder.embedding(token)
    for layer in range(layers):
        one = (nn.GRUCell if cell == "gru" else nn.LSTMCell)(step.size(1), 6)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(one, name).data = getattr(decoder.layers[layer], f"{name}_l0").data
        h, c = state.h[layer, 0], state.c[layer, 0] if cell == "lstm" else None
        step, c = (one(step, h), None) if c is None else one(step, (h, c))
        torch.testing.assert_close(after.h[layer, 0], step)
        if c is not None:
            torch.testing.assert_close(after.c[layer, 0], c)


# 6. The question, claim by claim
#
# A forum question (Q) shows ``output`` and ``h_n`` of a GRU and asks why they differ; three answers (A, B, C) explain.
# Each test cites the claims that it settles. ``output`` is (B, S, D * H) and ``h_n`` (L * D, B, H), as PyTorch returns
# them, batch first. In our words, with our verdict, T true, F false, P true on the condition that is named:
#
#  Q1  F  output and h_n should be the same
#  Q2  F  they are transposes of each other
#  A1  T  with three layers they are not equal
#  A2  T  h_n is read as (layers, directions, batch, hidden), and, with more than one row, in no other order
#  A3  P  h_n is the state at the last step: of a row's own length if the input is packed; backward, "last" is step 0
#  A4  T  output is the last layer at every step
#  A5  T  the directions of output stand side by side, forward first
#  A6  P  with one direction, output[:, -1] is the top layer's h_n: without padding
#  A7  P  with two, output[:, -1, :H] is its forward h_n: without padding
#  A8  F  and output[:, -1, :H] is its backward h_n: it is not, though the answer prints that it is
#  A9  F  output[:, S] is the forward h_n: there is no step S, it is S - 1
#  A10 T  output[:, 0, H:] is the backward h_n
#  A11 T  all this holds for an LSTM too; which also has c_n, of which nothing stands in output
#  B1  T  output has every step of the last layer, which is what attention wants
#  B2  T  h_n has every layer at the last step, which is what a decoder starts from
#  B3  P  h_n is a strict subset of output if and only if there is one layer; with one step it is not a strict one
#  B4  T  the backward direction is a copy that reads in reverse, and ends beside the forward direction's first step
#  B5  T  h_n is returned so that nobody need pick these out of output
#  C1  P  h_n[-1] is output with one layer: the last output, with one direction, whatever the layers
#  C2  T  it is no transpose

CLAIM_SHAPES = [(layers, directions) for layers in (1, 2, 3) for directions in (1, 2)]
claim_shapes = pytest.mark.parametrize(("layers", "directions"), CLAIM_SHAPES)
claim_cells = pytest.mark.parametrize("cell", CELLS)


def run_rnn(layers, directions, cell="gru", lengths=None, steps=S):
    """Run PyTorch's own network on random numbers, packed if lengths are given: it, its input, output, h_n, c_n."""
    torch.manual_seed(4)
    rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](E, H, layers, batch_first=True, bidirectional=directions == 2)
    numbers = torch.randn(B, steps, E)
    if lengths is None:
        output, final = rnn(numbers)
    else:
        packed = nn.utils.rnn.pack_padded_sequence(numbers, lengths, batch_first=True, enforce_sorted=False)
        output, final = rnn(packed)
        output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=steps)
    h_n, c_n = final if cell == "lstm" else (final, None)
    return rnn, numbers, output, h_n, c_n


def stands_in(rows, output, directions):
    """Whether each row of ``h_n`` or ``c_n``, for each row of the batch, stands anywhere in ``output``: (L * D, B)."""
    places = output.unflatten(-1, (directions, -1)).flatten(1, 2)  # (B, S * D, H)
    return (rows.unsqueeze(2) == places).all(dim=-1).any(dim=-1)


@claim_shapes
def test_q1_a1_output_and_h_n_are_not_the_same(layers, directions):
    _, _, output, h_n, _ = run_rnn(layers, directions)

    assert output.shape == (B, S, directions * H)  # the top layer at every step
    assert h_n.shape == (layers * directions, B, H)  # every layer and direction at its last step
    assert not torch.equal(output, h_n)


def test_q2_c2_they_are_no_transpose_of_each_other():
    _, _, output, h_n, _ = run_rnn(layers=2, directions=1, steps=1)  # as in the question: one step, two layers

    assert torch.equal(output[:, 0], h_n[1])  # the top layer is in both,
    assert not stands_in(h_n[:1], output, 1).any()  # and layer 0 is in h_n alone


@claim_shapes
def test_a2_h_n_is_read_by_layer_then_direction_and_only_so(layers, directions):
    _, _, output, h_n, _ = run_rnn(layers, directions)
    right = h_n.view(layers, directions, B, H)

    by_direction = h_n.view(directions, layers, B, H).transpose(0, 1)
    side_by_side = h_n.view(layers, B, directions * H)

    assert torch.equal(right[-1, 0], output[:, -1, :H])
    assert torch.equal(by_direction, right) is (layers == 1 or directions == 1)
    assert torch.equal(side_by_side, right.transpose(1, 2).flatten(2)) is (directions == 1)


@claim_cells
@pytest.mark.parametrize("directions", [1, 2])
def test_a3_last_means_each_rows_own_length_if_and_only_if_the_input_is_packed(cell, directions):
    rnn, numbers, _, packed, _ = run_rnn(2, directions, cell, LENGTHS)
    unpacked = run_rnn(2, directions, cell)[3]

    for row, length in enumerate(LENGTHS.tolist()):
        final = rnn(numbers[row : row + 1, :length])[1]
        alone = final[0] if cell == "lstm" else final
        torch.testing.assert_close(packed[:, row], alone[:, 0], rtol=0, atol=1e-12)
        assert torch.allclose(unpacked[:, row], alone[:, 0], rtol=0, atol=1e-12) is (length == S)


@claim_cells
def test_a4_b1_output_is_the_last_layer_at_each_step(cell):
    rnn, numbers, output, _, _ = run_rnn(2, 2, cell)
    kind = type(rnn)
    lower, upper = (kind(size, H, batch_first=True, bidirectional=True) for size in (E, 2 * H))
    for layer, one in enumerate((lower, upper)):
        for name, parameter in one.named_parameters():
            parameter.data = getattr(rnn, name.replace("_l0", f"_l{layer}")).data

    torch.testing.assert_close(output, upper(lower(numbers)[0])[0], rtol=0, atol=1e-12)


@claim_cells
def test_a5_directions_stand_side_by_side_forward_first(cell):
    rnn, numbers, output, _, _ = run_rnn(1, 2, cell)
    forward = type(rnn)(E, H, batch_first=True)
    for name, parameter in forward.named_parameters():
        parameter.data = getattr(rnn, name).data

    torch.testing.assert_close(output.view(B, S, 2, H)[:, :, 0], forward(numbers)[0], rtol=0, atol=1e-12)


@claim_cells
@claim_shapes
def test_a6_a7_a11_b2_the_forward_final_state_is_the_last_output_without_padding(layers, directions, cell):
    _, _, output, h_n, _ = run_rnn(layers, directions, cell)
    final = h_n.view(layers, directions, B, H)[-1, 0]

    assert torch.equal(output[:, -1, :H], final)

    _, _, output, h_n, _ = run_rnn(layers, directions, cell, LENGTHS)
    final = h_n.view(layers, directions, B, H)[-1, 0]

    assert torch.equal(output[torch.arange(B), LENGTHS - 1, :H], final)  # with padding, at each row's own end
    assert (output[:, -1, :H] == final).all(dim=-1).tolist() == (LENGTHS == S).tolist()


@claim_cells
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a8_a10_the_backward_final_state_is_the_second_half_of_the_first_output(layers, lengths, cell):
    _, _, output, h_n, _ = run_rnn(layers, 2, cell, lengths)
    final = h_n.view(layers, 2, B, H)[-1, 1]

    assert not torch.isclose(output[:, -1, :H], final).all(dim=-1).any()  # A8 is false
    assert torch.equal(output[:, 0, H:], final)  # A10 is true, with or without padding


def test_a9_there_is_no_output_at_index_s():
    _, _, output, h_n, _ = run_rnn(1, 1)

    with pytest.raises(IndexError):
        _ = output[:, S]
    assert torch.equal(output[:, S - 1], h_n[0])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a11_an_lstm_has_a_cell_packed_the_same_way_that_stands_nowhere_in_output(lengths):
    _, _, output, h_n, c_n = run_rnn(2, 2, "lstm", lengths)

    assert c_n.shape == h_n.shape
    assert stands_in(h_n, output, 2).all(dim=-1).tolist() == [False, False, True, True]
    assert not stands_in(c_n, output, 2).any()


@claim_cells
@claim_shapes
def test_b3_every_row_of_h_n_stands_in_output_if_and_only_if_there_is_one_layer(layers, directions, cell):
    _, _, output, h_n, _ = run_rnn(layers, directions, cell, LENGTHS)

    found = stands_in(h_n, output, directions).all(dim=-1).tolist()

    assert found == [False] * (layers - 1) * directions + [True] * directions


def test_b3_with_a_single_step_the_subset_is_not_strict():
    _, _, output, h_n, _ = run_rnn(1, 2, steps=1)

    assert torch.equal(output.flatten(), h_n.transpose(0, 1).flatten())  # the same numbers, no more in one or the other


@claim_cells
def test_b4_the_backward_direction_is_a_copy_that_reads_the_reversed_input(cell):
    rnn, numbers, output, h_n, _ = run_rnn(1, 2, cell)
    copy = type(rnn)(E, H, batch_first=True)
    for name, parameter in copy.named_parameters():
        parameter.data = getattr(rnn, f"{name}_reverse").data

    reverse_output = copy(numbers.flip(1))[0]  # in the copy's own time

    torch.testing.assert_close(output[:, -1, H:], reverse_output[:, 0], rtol=0, atol=1e-12)  # beside the forward end
    torch.testing.assert_close(output[:, 0, H:], reverse_output[:, -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(h_n[1], reverse_output[:, -1], rtol=0, atol=1e-12)


def test_b5_h_n_saves_the_picking_which_goes_wrong_under_padding():
    _, _, output, h_n, _ = run_rnn(1, 2, lengths=LENGTHS)

    picked = torch.cat([output[:, -1, :H], output[:, 0, H:]], dim=-1)  # right without padding, by A6 and A10
    final = torch.cat([h_n[0], h_n[1]], dim=-1)

    assert (picked == final).all(dim=-1).tolist() == (LENGTHS == S).tolist()


@claim_cells
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_c1_h_n_minus_1_is_the_last_output_whatever_the_layers_if_there_is_one_direction(layers, cell):
    _, _, output, h_n, _ = run_rnn(layers, 1, cell)

    assert torch.equal(output[:, -1], h_n[-1])
    assert not torch.isclose(output[:, :-1], h_n[-1].unsqueeze(1)).all(dim=-1).any()  # the last output, not every one

    _, _, output, h_n, _ = run_rnn(layers, 2, cell)

    assert not torch.isclose(output[:, -1, H:], h_n[-1]).all(dim=-1).any()  # with two, h_n[-1] is the backward one


# 7. The same for any shape


@st.composite
def any_shape(draw):
    """An encoder of any cell, depth, directions and size, and a batch of rows of any length and padding."""
    cell, layers, directions = draw(st.sampled_from(CELLS)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    encoder = make_encoder(cell, layers, directions, hidden_size=draw(st.integers(1, 5)))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    steps = int(lengths.max()) + draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 999)))
    return encoder, torch.randint(0, V, (len(lengths), steps)), lengths


@given(any_shape())
def test_the_top_layer_stands_in_output_at_each_rows_ends_and_nothing_else_does(shape):
    encoder, source, lengths = shape
    encoded = encoder(source, lengths)
    h, size = encoded.state.h, encoder.hidden_size

    assert torch.equal(h[-1, 0], encoded.outputs[torch.arange(len(lengths)), lengths - 1, :size])  # A6, A7
    if encoder.directions == 2:
        assert torch.equal(h[-1, 1], encoded.outputs[:, 0, size:])  # A10
    rows = h.flatten(0, 1) if encoded.state.c is None else torch.cat([h, encoded.state.c]).flatten(0, 1)
    found = stands_in(rows, encoded.outputs, encoder.directions).all(dim=-1).view(-1, encoder.directions).any(dim=-1)
    assert found.tolist() == [layer == encoder.num_layers - 1 for layer in range(len(found))]  # B3, A11


@given(any_shape())
def test_any_row_alone_agrees_with_itself_in_the_batch_and_with_a_loop_over_cells(shape):
    encoder, source, lengths = shape
    encoded = encoder(source, lengths)

    for row, length in enumerate(lengths.tolist()):
        alone = encoder(source[row : row + 1, :length], lengths[row : row + 1])
        outputs, h, c = cell_by_cell(encoder, source[row, :length])
        for other_outputs, other_h in ((alone.outputs[0], alone.state.h[:, :, 0]), (outputs, h)):
            torch.testing.assert_close(encoded.outputs[row, :length], other_outputs, rtol=0, atol=1e-12)
            torch.testing.assert_close(encoded.state.h[:, :, row], other_h, rtol=0, atol=1e-12)
        if encoder.cell == "lstm":
            for other_c in (alone.state.c[:, :, 0], c):
                torch.testing.assert_close(encoded.state.c[:, :, row], other_c, rtol=0, atol=1e-12)


@given(any_shape(), st.randoms())
def test_any_order_of_rows_gives_the_same_rows(shape, random):
    encoder, source, lengths = shape
    order = random.sample(range(len(lengths)), len(lengths))
    straight = encoder(source, lengths)

    mixed = encoder(source[order], lengths[order])

    torch.testing.assert_close(mixed.outputs, straight.outputs[order], rtol=0, atol=1e-12)
    expected = straight.state.select(torch.tensor(order))
    for part, other in zip(mixed.state, expected, strict=True):
        if part is not None:
            torch.testing.assert_close(part, other, rtol=0, atol=1e-12)


@given(
    st.sampled_from(CELLS), st.integers(1, 4), st.integers(1, 2), st.lists(st.integers(1, 6), min_size=1, max_size=5)
)
def test_every_layer_and_direction_counts_each_rows_own_steps(cell, layers, directions, lengths):
    counter, lengths = make_counter(cell, layers, directions), torch.tensor(lengths)

    state = counter(torch.zeros(len(lengths), int(lengths.max()), dtype=torch.long), lengths).state

    written = state.h if cell == "gru" else state.c
    steps = 1 - 0.5**lengths if cell == "gru" else lengths.double()
    for layer in range(layers):
        for direction in range(directions):
            torch.testing.assert_close(written[layer, direction, :, 0], address(layer, direction) * steps)


@given(
    st.sampled_from(["concat", "mean", "linear", "top"]), st.sampled_from(CELLS), st.sampled_from(CELLS),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 2),
)  # fmt: skip
def test_any_bridge_hands_each_decoder_layer_its_own(name, cell, decoder_cell, layers, decoder_layers, directions):
    bridge = make_bridge(name, layers, directions, decoder_layers, cell, decoder_cell)
    state = readable_state(layers, directions, cell)

    handed = bridge(state)

    assert handed.h.shape[:3] == (decoder_layers, 1, B)
    assert (handed.c is None) is (decoder_cell == "gru")
    aligned = [
        layers - 1 if name == "top" else max(0, layer + layers - decoder_layers) for layer in range(decoder_layers)
    ]
    reached = reach(bridge, state, "h", "h")
    assert reached.int().argmax(dim=1).tolist() == aligned
    assert reached.sum(dim=1).tolist() == [1] * decoder_layers
    if name == "concat":
        for layer, source in enumerate(aligned):
            assert torch.equal(handed.h[layer, 0], torch.cat(list(state.h[source]), dim=-1))


# 8. The gallery of mistakes
#
# Each is shown on the counter: with an LSTM the cell of layer l and direction d is ``address * length``, so whatever
# stands in the wrong place says whose it is. Addresses are 0.11, 0.12 (layer 0), 0.21, 0.22 (layer 1), and the four
# rows have 3, 5, 1 and 4 tokens. A mistake keeps the shape (layers, directions, batch, hidden), so that every bridge
# takes it; one that has a single row for a layer puts it in the place of both directions.


def mistaken(name, cell="lstm", layers=2, directions=2):
    """What the counter hands over with a mistake."""
    return WrongEncoder(make_counter(cell, layers, directions), name)(random_source(), LENGTHS)


def cells_of(encoded, row):
    """The cells of a row by layer, forward and backward, as ``address`` times a whole number."""
    return [[round(value, 6) for value in layer] for layer in encoded.state.c[:, :, row, 0].tolist()]


def test_the_first_rows_hand_layer_0_backward_to_layer_1_and_drop_the_top():
    handed = mistaken("wrong_first_rows")

    assert cells_of(handed, row=0) == [[0.11 * 3] * 2, [0.12 * 3] * 2]  # right: .11 .12, then .21 .22
    assert cells_of(handed, row=3) == [[0.11 * 4] * 2, [0.12 * 4] * 2]


def test_halves_hand_the_forward_directions_of_both_layers_to_layer_0():
    handed = mistaken("wrong_halves")

    assert cells_of(handed, row=3) == [[0.11 * 4, 0.21 * 4], [0.12 * 4, 0.22 * 4]]


def test_a_joined_view_takes_neighbours_in_the_batch_for_directions():
    handed = mistaken("wrong_joined_view")

    assert cells_of(handed, row=0) == [[0.11 * 3, 0.11 * 5], [0.21 * 3, 0.21 * 5]]  # rows 0 and 1, forward
    assert cells_of(handed, row=3) == [[0.12 * 1, 0.12 * 4], [0.22 * 1, 0.22 * 4]]  # rows 2 and 3, backward


def test_a_view_across_layers_gives_each_row_one_layer_and_direction_of_all_rows():
    handed = mistaken("wrong_across_layers")

    for row, own in enumerate((0.11, 0.12, 0.21, 0.22)):
        expected = [[own * 3, own * 5], [own * 1, own * 4]]
        assert cells_of(handed, row) == [[round(value, 6) for value in layer] for layer in expected]


def test_the_last_output_is_zero_for_shorter_rows_and_has_read_one_token_backward():
    handed = mistaken("wrong_last_output", cell="gru").state.h[..., 0]

    assert not handed[:, :, LENGTHS < S].any()
    expected = torch.tensor([0.21 * (1 - 0.5**5), 0.22 * (1 - 0.5)])  # of the only row of five tokens, to both layers
    torch.testing.assert_close(handed[:, :, 1], expected.expand(2, 2))


def test_without_packing_padding_is_counted():
    handed = mistaken("wrong_unpacked")

    for row in range(B):
        assert cells_of(handed, row) == [[0.11 * S, 0.12 * S], [0.21 * S, 0.22 * S]]
    assert handed.mask.sum(dim=1).tolist() == LENGTHS.tolist()  # attention still knows what is padding


def test_without_a_mask_attention_looks_at_padding():
    torch.manual_seed(0)
    attention, queries = build_attention("general", query_size=6, value_size=2 * H, num_heads=1), torch.randn(B, 3, 6)
    encoder, padding = make_encoder(), torch.arange(S) >= LENGTHS.unsqueeze(1)

    def weights_on_padding(encoded):
        return attention(queries, attention.init_memory(encoded.outputs, encoded.mask))[1].sum(dim=1)[padding]

    assert not weights_on_padding(encoder(random_source(), LENGTHS)).any()
    assert (weights_on_padding(WrongEncoder(encoder, "wrong_unmasked")(random_source(), LENGTHS)) > 0).all()


def test_the_copied_cell_is_the_hidden_state():
    right, handed = make_counter("lstm", 2, 2)(random_source(), LENGTHS), mistaken("wrong_cell")

    assert torch.equal(handed.state.c, right.state.h)
    assert not torch.isclose(handed.state.c, right.state.c).any()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_keeps_every_shape_so_that_only_a_test_can_see_it(name):
    encoder = make_encoder("lstm", layers=2)
    right = encoder(random_source(), LENGTHS)

    wrong = WrongEncoder(encoder, name)(random_source(), LENGTHS)

    for one, other in zip(
        (wrong.outputs, *wrong.state, wrong.mask), (right.outputs, *right.state, right.mask), strict=True
    ):
        assert one.shape == other.shape
    bridge = Bridge("linear", encoder=encoder, num_layers=2, hidden_size=6, cell="lstm")
    same = all(torch.equal(*parts) for parts in zip(bridge(wrong.state), bridge(right.state), strict=True))
    assert same is (name == "wrong_unmasked")  # the only one that leaves the state as it is


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
    encoder = make_encoder(cell, layers, directions)

    with pytest.raises(UserError, match=rf"handoff={name} needs .*{needs}otherwise there is nothing to get wrong"):
        WrongEncoder(encoder, name)

    if name != "wrong_cell":  # and the refusal is right: this encoder would hand over the same with the mistake
        handed = MISTAKES[name].apply(encoder, random_source(), LENGTHS)
        assert torch.equal(handed.state.h, encoder(random_source(), LENGTHS).state.h)


def test_an_unknown_mistake_is_refused():
    with pytest.raises(UserError, match="handoff=wrong_rows must be one of right, wrong_first_rows, "):
        WrongEncoder(make_encoder(), "wrong_rows")
