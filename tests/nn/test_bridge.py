"""What a bridge computes; which layer and direction goes where is in tests/test_handoff.py."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2seq.nn import Bridge, Encoder, RNNState

B, L, H, DECODER_LAYERS, DECODER_SIZE = 4, 3, 7, 2, 6
pytestmark = pytest.mark.usefixtures("float64")


def make_bridge(name, cell="lstm", decoder_size=DECODER_SIZE, decoder_cell="lstm"):
    torch.manual_seed(0)
    encoder = Encoder(
        vocabulary_size=9, embedding_size=8, hidden_size=H, num_layers=L, cell=cell, bidirectional=True, dropout=0.0
    )
    return Bridge(name, encoder=encoder, num_layers=DECODER_LAYERS, hidden_size=decoder_size, cell=decoder_cell)


def make_state(cell="lstm"):
    torch.manual_seed(1)
    return RNNState(torch.randn(L, 2, B, H), torch.randn(L, 2, B, H) if cell == "lstm" else None)


def mapped(linear, layer):
    return F.linear(torch.cat([layer[0], layer[1]], dim=-1), linear.weight, linear.bias).tanh()


@pytest.mark.parametrize("part", ["h", "c"])
def test_a_linear_bridge_is_the_tanh_of_a_linear_map_of_both_directions_of_each_layer(part):
    bridge, state = make_bridge("linear"), make_state()
    maps = {"h": bridge.hidden, "c": bridge.cell}[part].maps

    handed = getattr(bridge(state), part)

    for layer, source in enumerate((1, 2)):
        torch.testing.assert_close(handed[layer, 0], mapped(maps[layer], getattr(state, part)[source]))


@pytest.mark.parametrize("part", ["h", "c"])
def test_a_top_bridge_is_the_tanh_of_one_linear_map_of_the_top_layer(part):
    bridge, state = make_bridge("top"), make_state()
    linear = {"h": bridge.hidden, "c": bridge.cell}[part].map

    handed = getattr(bridge(state), part)

    for layer in range(DECODER_LAYERS):
        torch.testing.assert_close(handed[layer, 0], mapped(linear, getattr(state, part)[2]))


@pytest.mark.parametrize("name", ["linear", "top"])
def test_a_cell_that_is_made_of_the_hidden_state_has_its_own_weights(name):
    bridge, state = make_bridge(name, cell="gru"), make_state("gru")

    expected = make_bridge(name)  # with the same weights, and told that c is h
    expected.load_state_dict(bridge.state_dict())

    torch.testing.assert_close(bridge(state).c, expected(RNNState(state.h, state.h)).c)
    assert not torch.isclose(bridge(state).c, bridge(state).h).any()


def test_a_learned_bridge_gives_every_sequence_the_vector_of_the_layer():
    bridge = make_bridge("learned")
    for parameter in bridge.parameters():
        nn.init.normal_(parameter)

    handed = bridge(make_state())

    starts = (state_map.get_parameter("start") for state_map in (bridge.hidden, bridge.cell))
    for part, start in zip((handed.h, handed.c), starts, strict=True):
        assert torch.equal(part, start.expand(DECODER_LAYERS, 1, B, DECODER_SIZE))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "concat",
            6,
            r"model\.decoder\.hidden_size=6 does not fit model\.bridge=concat, "
            r"which needs 2 x model\.encoder\.hidden_size=7 = 14; ",
        ),
        (
            "mean",
            14,
            r"model\.decoder\.hidden_size=14 does not fit model\.bridge=mean, "
            r"which needs 1 x model\.encoder\.hidden_size=7 = 7; ",
        ),
        ("tops", 6, r"model\.bridge=tops must be one of linear, concat, mean, top, learned, zeros(, .*)?$"),
    ],
)
def test_a_bridge_that_does_not_fit_is_refused(name, size, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_bridge(name, decoder_size=size)


@pytest.mark.parametrize("name", ["learned", "zeros"])
@pytest.mark.parametrize(("cell", "decoder_cell"), [("gru", "lstm"), ("lstm", "gru"), ("gru", "gru"), ("lstm", "lstm")])
def test_learned_and_zeros_hand_nothing_over_and_start_any_cell(name, cell, decoder_cell):
    bridge = make_bridge(name, cell, decoder_cell=decoder_cell)
    ones = torch.ones(L, 2, B, H)

    one, other = bridge(make_state(cell)), bridge(RNNState(ones, ones if cell == "lstm" else None))

    assert one.h.shape == (DECODER_LAYERS, 1, B, DECODER_SIZE)
    assert torch.equal(one.h, other.h)
    assert (one.c is None) if decoder_cell == "gru" else torch.equal(one.c, other.c)


def test_only_learned_has_parameters_to_start_from():
    assert len(list(make_bridge("zeros").parameters())) == 0
    assert [parameter.shape for parameter in make_bridge("learned").parameters()] == [(DECODER_LAYERS, 1, 1, 6)] * 2


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("linear", DECODER_SIZE, "is made from its hidden state"), ("concat", 2 * H, "starts at zero")],
)
def test_the_log_says_how_a_gru_starts_an_lstm(name, size, message, caplog):
    with caplog.at_level("INFO"):
        make_bridge(name, "gru", size)

    assert message in caplog.text


def test_the_log_says_that_a_cell_is_dropped(caplog):
    with caplog.at_level("INFO"):
        make_bridge("linear", "lstm", decoder_cell="gru")

    assert "the LSTM encoder's is dropped" in caplog.text
