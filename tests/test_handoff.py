"""The handoff: what ``output`` and ``h_n`` are, and what the decoder must get of them. Read this one first.

1. The order inside ``h_n``            layers outside, directions inside
2. Where the final states stand        forward at a row's last real token, backward at its first
3. Padding and row order               change nothing
4. A second implementation             a plain loop over cells, row by row, agrees
5. From encoder to decoder             every decoder layer starts from its encoder layer; the LSTM's cell goes along

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

from seq2seq.nn import Bridge, Encoder, LuongDecoder, RNNState

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
    with pytest.raises(ValueError, match="h_n has 3 rows, which is no multiple of 2 directions"):
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

    assert torch.equal(differs.all(dim=1).all(dim=0), LENGTHS < S)


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

    # layer 1 (numbers in 1000s), both directions (100s) side by side, row 3 (10s), seven units
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


def test_from_lstm_to_gru_the_cell_is_left_behind_and_the_log_says_so(caplog):
    with caplog.at_level("INFO"):
        bridge = make_bridge("linear", 2, 2, 2, "lstm", "gru")

    assert bridge(readable_state(2, 2, "lstm")).c is None
    assert "the LSTM encoder's is left behind" in caplog.text


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
    decoder = LuongDecoder(
        vocabulary_size=V, embedding_size=E, hidden_size=6, num_layers=layers, cell=cell, memory_size=H,
        attention="none", dropout=0.0,
    )  # fmt: skip
    encoder = make_encoder(cell, 1, 1)
    memory = decoder.remember(encoder(random_source(), LENGTHS))
    state = RNNState(torch.rand(layers, 1, B, 6), torch.rand(layers, 1, B, 6) if cell == "lstm" else None)
    token = torch.tensor([1, 2, 3, 4])

    after = decoder(token.unsqueeze(1), memory, state).state

    step = decoder.embedding(token)
    for layer in range(layers):
        one = (nn.GRUCell if cell == "gru" else nn.LSTMCell)(step.size(1), 6)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(one, name).data = getattr(decoder.rnn, f"{name}_l{layer}").data
        h, c = state.h[layer, 0], state.c[layer, 0] if cell == "lstm" else None
        step, c = (one(step, h), None) if c is None else one(step, (h, c))
        torch.testing.assert_close(after.h[layer, 0], step)
        if c is not None:
            torch.testing.assert_close(after.c[layer, 0], c)
