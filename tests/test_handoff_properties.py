"""The handoff for networks and batches of any shape: properties, and a second implementation, cell by cell."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from seq2seq.nn import Bridge, Encoder, RNNState, build_decoder
from seq2seq.nn.attention import build_attention

CELLS = ["gru", "lstm"]
pytestmark = pytest.mark.usefixtures("float64")


def make_encoder(cell, layers, directions, hidden_size):
    torch.manual_seed(0)
    return Encoder(
        vocabulary_size=9, embedding_size=8, hidden_size=hidden_size, num_layers=layers, cell=cell,
        bidirectional=directions == 2, dropout=0.0,
    )  # fmt: skip


@st.composite
def encoded_batches(draw):
    """An encoder of any cell, depth, directions and size, and a batch of any lengths and padding."""
    encoder = make_encoder(
        draw(st.sampled_from(CELLS)), draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 5))
    )
    lengths = torch.tensor(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    steps = int(lengths.max()) + draw(st.integers(0, 2))
    torch.manual_seed(draw(st.integers(0, 999)))
    return encoder, torch.randint(0, 9, (len(lengths), steps)), lengths


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def cell_by_cell(encoder, tokens):
    """One sequence, without padding, through a loop over cells: outputs ``(S, D * H)``, h and c ``(L, D, H)``."""
    kind = nn.GRUCell if encoder.cell == "gru" else nn.LSTMCell
    inputs, final_h, final_c = list(encoder.embedding(tokens)), [], []
    for layer in range(encoder.num_layers):
        columns = []
        for suffix in ("", "_reverse")[: encoder.directions]:
            cell = copy_cell(kind, encoder.rnn, f"_l{layer}{suffix}", inputs[0].numel())
            h = c = torch.zeros(encoder.hidden_size)
            column = []
            for step in reversed(inputs) if suffix else inputs:
                h, c = (cell(step, h), c) if encoder.cell == "gru" else cell(step, (h, c))
                column.append(h)
            columns.append(column[::-1] if suffix else column)
            final_h.append(h)
            final_c.append(c)
        inputs = [torch.cat(step) for step in zip(*columns, strict=True)]
    shape = (encoder.num_layers, encoder.directions, encoder.hidden_size)
    return torch.stack(inputs), torch.stack(final_h).view(shape), torch.stack(final_c).view(shape)


def copy_cell(kind, rnn, suffix, input_size):
    """A cell with the parameters of a layer and direction of a network."""
    cell = kind(input_size, rnn.hidden_size)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data = getattr(rnn, f"{name}{suffix}").data
    return cell


@given(encoded_batches())
def test_a_sequence_agrees_with_itself_alone_and_with_a_loop_over_cells(batch):
    encoder, source, lengths = batch
    encoded = encoder(source, lengths)

    for b, length in enumerate(lengths.tolist()):
        alone = encoder(source[b : b + 1, :length], lengths[b : b + 1])
        outputs, h, c = cell_by_cell(encoder, source[b, :length])
        for other_outputs, other_h in ((alone.outputs[0], alone.state.h[:, :, 0]), (outputs, h)):
            assert_same(encoded.outputs[b, :length], other_outputs)
            assert_same(encoded.state.h[:, :, b], other_h)
        if encoder.cell == "lstm":
            assert_same(encoded.state.c[:, :, b], alone.state.c[:, :, 0])
            assert_same(encoded.state.c[:, :, b], c)


@given(encoded_batches())
def test_the_top_layer_is_in_output_at_each_sequences_ends_and_nothing_else_is(batch):
    encoder, source, lengths = batch
    encoded = encoder(source, lengths)
    h, size = encoded.state.h, encoder.hidden_size

    assert torch.equal(h[-1, 0], encoded.outputs[torch.arange(len(lengths)), lengths - 1, :size])
    if encoder.directions == 2:
        assert torch.equal(h[-1, 1], encoded.outputs[:, 0, size:])
    vectors = encoded.outputs.unflatten(-1, (encoder.directions, size)).flatten(1, 2)  # (B, S * D, H)
    for part, occurs_in_layers in ((h, [encoder.num_layers - 1]), (encoded.state.c, [])):
        if part is not None:
            found = (part.unsqueeze(3) == vectors).all(dim=-1).any(dim=-1)  # (L, D, B)
            assert found.flatten(1).any(dim=1).nonzero().flatten().tolist() == occurs_in_layers


@given(encoded_batches(), st.randoms())
def test_the_order_of_the_sequences_does_not_matter(batch, random):
    encoder, source, lengths = batch
    order = random.sample(range(len(lengths)), len(lengths))
    encoded = encoder(source, lengths)

    permuted = encoder(source[order], lengths[order])

    assert_same(permuted.outputs, encoded.outputs[order])
    for part, expected in zip(permuted.state, encoded.state.select(torch.tensor(order)), strict=True):
        if part is not None:
            assert_same(part, expected)


@given(
    st.sampled_from(["concat", "mean", "linear", "top"]), st.sampled_from(CELLS), st.sampled_from(CELLS),
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 2),
)  # fmt: skip
def test_a_bridge_hands_each_decoder_layer_its_own_layer(name, cell, decoder_cell, layers, decoder_layers, directions):
    batch, units = 4, 7
    size = {"concat": directions * units, "mean": units}.get(name, 6)
    encoder = make_encoder(cell, layers, directions, units)
    bridge = Bridge(name, encoder=encoder, num_layers=decoder_layers, hidden_size=size, cell=decoder_cell)
    h = torch.rand(layers, directions, batch, units, requires_grad=True)
    top_aligned = [max(0, layer + layers - decoder_layers) for layer in range(decoder_layers)]
    expected = [layers - 1] * decoder_layers if name == "top" else top_aligned

    initial = bridge(RNNState(h, torch.rand_like(h) if cell == "lstm" else None))

    assert initial.h.shape == (decoder_layers, 1, batch, size)
    assert (initial.c is None) is (decoder_cell == "gru")
    for layer, source in enumerate(expected):
        (gradient,) = torch.autograd.grad(initial.h[layer].sum(), h, retain_graph=True)
        reached = gradient.abs().sum(dim=(2, 3)).nonzero().tolist()  # pairs of layer and direction
        assert reached == [[source, direction] for direction in range(directions)]
        if name == "concat":
            assert torch.equal(initial.h[layer, 0], torch.cat(list(h[source]), dim=-1))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_every_decoder_layer_continues_from_its_own_state(cell, layers):
    torch.manual_seed(2)
    batch, units = 4, 6
    decoder = build_decoder(
        kind="luong", vocabulary_size=9, embedding_size=8, hidden_size=units, num_layers=layers, cell=cell, dropout=0.0,
        attention=build_attention("none", query_size=units, value_size=7),
    )  # fmt: skip
    encoded = make_encoder("gru", 1, 1, 7)(torch.ones(batch, 5, dtype=torch.long), torch.tensor([3, 5, 1, 4]))
    h, c = torch.rand(2, layers, 1, batch, units).unbind()
    token = torch.tensor([1, 2, 3, 4])

    state = RNNState(h, c if cell == "lstm" else None)
    memory = decoder.init_memory(encoded)
    after = decoder(token.unsqueeze(1), memory, decoder.init_state(state, memory)).state.rnn

    step = decoder.embedding(token)
    for layer, rnn in enumerate(decoder.layers):
        if cell == "gru":
            step = copy_cell(nn.GRUCell, rnn, "_l0", step.size(1))(step, h[layer, 0])
        else:
            step, expected_c = copy_cell(nn.LSTMCell, rnn, "_l0", step.size(1))(step, (h[layer, 0], c[layer, 0]))
            assert_same(after.c[layer, 0], expected_c)
        assert_same(after.h[layer, 0], step)
