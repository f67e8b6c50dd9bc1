"""The handoff as measured: it finds what stands where, and names what is wrong."""

import pytest
import torch
from conftest import LUONG
from conftest import make_model as model_of
from torch import nn

from seq2seq.handoff.mistakes import MISTAKES, WrongEncoder
from seq2seq.handoff.verification import EXACT, verify
from seq2seq.nn import Bridge, RNNState, build_model
from seq2seq.nn import fast as fast_layers
from seq2seq.nn.bridge import BRIDGES, StateMap, side_by_side

LENGTHS = torch.tensor([3, 5, 1])
PART = {"cell": "gru", "embedding_size": 5, "hidden_size": 6, "num_layers": 2}


def make_model(layers=2, decoder_layers=2, bidirectional=True, bridge="linear", cells=("gru", "gru"), *, fast=False):
    torch.manual_seed(0)
    encoder = PART | {"num_layers": layers, "bidirectional": bidirectional, "cell": cells[0]}
    decoder = PART | LUONG | {"num_layers": decoder_layers, "cell": cells[1]}
    return build_model(
        source_size=9,
        target_size=9,
        encoder=encoder,
        decoder=decoder,
        bridge=bridge,
        attention="none",
        dropout=0.0,
        fast=fast,
    )


def measured(model=None, **shape):
    return verify(model or make_model(**shape), torch.arange(15).remainder(9).view(3, 5), LENGTHS)


def places(found, part="h"):
    """The step at which each layer and direction of the first row stands, -1 where it stands nowhere."""
    steps, gaps = found.places[part]
    return torch.where(gaps <= EXACT, steps, -1)[:, :, 0].tolist()


def reached(found, to, of):
    return (found.reach[to, of] > 0).int().tolist()


# Where the rows stand, and where they go


def test_the_top_layer_stands_at_the_last_token_and_at_the_first_and_lower_layers_nowhere():
    assert places(measured(layers=3)) == [[-1, -1], [-1, -1], [2, 0]]


def test_a_single_direction_stands_at_the_last_token():
    assert places(measured(bidirectional=False)) == [[-1], [2]]


def test_the_cell_stands_nowhere():
    assert places(measured(cells=("lstm", "gru")), "c") == [[-1, -1], [-1, -1]]


def test_what_reaches_the_decoder_is_what_the_bridge_takes():
    assert reached(measured(layers=3), "h", "h") == [[[0, 0], [1, 1], [0, 0]], [[0, 0], [0, 0], [1, 1]]]
    assert reached(measured(bridge="top"), "h", "h") == [[[0, 0], [1, 1]]] * 2
    for bridge in ("zeros", "learned"):
        assert not any(sizes.any() for sizes in measured(bridge=bridge).reach.values())


def test_the_cell_reaches_the_cell_and_the_hidden_state_the_hidden_state():
    found = measured(cells=("lstm", "lstm"))

    own = [[[1, 1], [0, 0]], [[0, 0], [1, 1]]]
    assert reached(found, "h", "h") == reached(found, "c", "c") == own
    assert not found.reach["h", "c"].any()
    assert not found.reach["c", "h"].any()


def test_from_gru_to_lstm_the_cell_is_reached_by_the_hidden_state():
    assert reached(measured(cells=("gru", "lstm")), "c", "h") == [[[1, 1], [0, 0]], [[0, 0], [1, 1]]]


def test_the_model_is_not_changed():
    model = make_model().train()

    measured(model)

    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.grad is None for parameter in model.parameters())


# What is wrong is named


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_right_handoff_has_no_faults(cell, layers, bidirectional):
    assert measured(layers=layers, bidirectional=bidirectional, cells=(cell, cell)).faults == []


FAULTS = {
    "wrong_first_rows": "layer 1 backward, sequence 0: h_n differs from output[0, 0] by",
    "wrong_joined_view": "a sequence's initial decoder state depends on other sequences of the batch",
    "wrong_halves": "layer 1 forward, sequence 1: h_n differs from output[1, 4] by",
    "wrong_last_output": "layer 1 forward, sequence 0: h_n differs from output[0, 2] by",
    "wrong_unpacked": "layer 0 backward, sequence 2: h_n alone and in the batch differ by",
    "wrong_unmasked": "sequence 0: the mask is not True at its 3 real tokens and False at padding",
    "wrong_cell": "c_n occurs in output, as h_n does: it is not the cell",
    "wrong_across_layers": "a sequence's initial decoder state depends on other sequences of the batch",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_of_the_gallery_is_found(name):
    model = make_model(cells=("lstm", "lstm"))
    model.encoder = WrongEncoder(model.encoder, name)

    faults = measured(model).faults

    assert any(found.startswith(FAULTS[name]) for found in faults), faults


class ReadsPadding(nn.Module):
    """A fork's encoder: at layer 0 backward, the third row of a batch has read its padding."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, source, lengths):
        encoded = self.encoder(source, lengths)
        h = encoded.state.h.clone()
        if len(lengths) > 2:
            h[0, 1, 2] += 1e-6
        return encoded._replace(state=encoded.state._replace(h=h))


def test_a_wrong_encoder_is_reported_by_layer_direction_and_sequence():
    model = make_model()
    model.encoder = ReadsPadding(model.encoder)

    assert measured(model).faults == ["layer 0 backward, sequence 2: h_n alone and in the batch differ by 1e-06"]
    assert not measured(model).compared  # it has no network under the name that ours has


class Rearranged(nn.Module):
    """A fork's encoder that does something to the state on its way out."""

    def __init__(self, encoder, change):
        super().__init__()
        self.embedding, self.rnn, self.encoder, self.change = encoder.embedding, encoder.rnn, encoder, change

    def forward(self, source, lengths):
        encoded = self.encoder(source, lengths)
        return encoded._replace(state=self.change(encoded.state))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda state: state._replace(h=torch.cat([state.h[:1].flip(1), state.h[1:]])),
            "layer 0 forward, sequence 0: h_n is",
        ),
        (lambda state: RNNState(*(part[[1, 0, 2]] for part in state)), "layer 0 forward, sequence 0: h_n is not what"),
        (
            lambda state: state._replace(c=state.c.flip(0, 1)),
            "layer 0 forward, sequence 0: c_n is not what PyTorch returns",
        ),
        (
            lambda state: state._replace(c=2 * state.c),
            "layer 2 backward, sequence 2: c_n is not what PyTorch returns for it",
        ),
    ],
)
def test_states_that_output_does_not_show_are_checked_too(change, fault):
    model = make_model(layers=3, cells=("lstm", "lstm"))
    model.encoder = Rearranged(model.encoder, change)

    assert any(found.startswith(fault) for found in measured(model).faults)


def test_outputs_that_depend_on_the_batch_are_found():
    class Loud(ReadsPadding):
        def forward(self, source, lengths):
            encoded = self.encoder(source, lengths)
            return encoded._replace(outputs=encoded.outputs + 1e-3 * (len(lengths) - 1))

    model = make_model()
    model.encoder = Loud(model.encoder)

    assert "layer 1, sequence 0: output alone and in the batch differs by 0.002" in measured(model).faults


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ((0, 1), "h_n of encoder layer 0 reaches the initial h of decoder layer 0"),  # bottoms aligned
        ((1, 1), "h_n of encoder layer 2 does not reach the initial h of decoder layer 1"),
    ],
)
def test_a_bridge_that_takes_another_layer_is_found(sources, fault):
    model = make_model(layers=3)
    model.bridge.hidden.sources = sources

    assert fault in measured(model).faults


class CopiesHidden(Bridge):
    def forward(self, state):
        handed = super().forward(state)
        return handed._replace(c=handed.h)


def test_a_bridge_that_copies_h_into_c_is_found():
    model = make_model(cells=("lstm", "lstm"))
    model.bridge.__class__ = CopiesHidden

    assert "h_n of encoder layer 0 reaches the initial c of decoder layer 0" in measured(model).faults
    assert "c_n of encoder layer 1 does not reach the initial c of decoder layer 1" in measured(model).faults


def test_the_size_of_a_gradient_is_that_of_the_weights():
    # A mean bridge hands over (forward + backward) / 2: the gradient of one unit's sum is 1/2 at that unit of H = 6.
    model = make_model(bridge="mean")

    sizes = measured(model).reach["h", "h"]

    torch.testing.assert_close(sizes[0, 0], torch.full((2,), 0.5, dtype=torch.float64))


def test_a_mistake_in_the_run_itself_is_measured_where_it_happens():
    # Without packing, the forward direction ends at the last padded step, and nothing but that is wrong with places.
    model = make_model()
    model.encoder = WrongEncoder(model.encoder, "wrong_unpacked")

    assert places(measured(model)) == [[-1, -1], [4, 0]]


def test_output_that_is_handed_over_is_told_from_nothing():
    model = make_model()
    assert not measured(model).of_output

    model.encoder = WrongEncoder(model.encoder, "wrong_last_output")

    assert measured(model).of_output
    assert not measured(model).reach["h", "h"].any()


# A bridge of one's own is checked against what it declares


class ReadsTop(StateMap):
    def forward(self, layers):
        return side_by_side(layers[-1])[:, : self.size].expand(len(self.sources), 1, -1, -1)


class ReadsNothing(StateMap):
    def forward(self, layers):
        return layers.new_ones(len(self.sources), 1, layers.size(2), self.size)


@pytest.mark.parametrize(
    ("kind", "reads", "fault"),
    [
        (ReadsTop, "top", None),
        (ReadsTop, "aligned", "h_n of encoder layer 0 does not reach the initial h of decoder layer 0"),
        (ReadsTop, "nothing", "h_n of encoder layer 1 reaches the initial h of decoder layer 0"),
        (ReadsNothing, "nothing", None),
        (ReadsNothing, "top", "h_n of encoder layer 1 does not reach the initial h of decoder layer 0"),
    ],
)
def test_a_bridge_of_ones_own_must_read_what_it_declares(monkeypatch, kind, reads, fault):
    monkeypatch.setitem(BRIDGES, "own", type("Own", (kind,), {"reads": reads}))

    faults = measured(make_model(bridge="own")).faults

    assert (fault in faults) if fault else (faults == [])


@pytest.mark.parametrize("bridge", ["learned", "zeros"])
@pytest.mark.parametrize("cells", [("gru", "lstm"), ("lstm", "lstm")])
def test_a_bridge_that_reads_nothing_is_right_with_any_cell(bridge, cells):
    assert measured(make_model(bridge=bridge, cells=cells)).faults == []


# Training on a CPU has layers of its own


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_layers_of_training_are_verified_too(monkeypatch, cell):
    kind, run = fast_layers.CELLS[cell], fast_layers.rnn.run
    assert measured(make_model(cells=(cell, cell), fast=True)).faults == []
    assert type(make_model(cells=(cell, cell), fast=True).encoder.rnn) is kind

    def broken(*arguments):
        outputs, final = run(*arguments)
        return outputs, [part.flip(0) for part in final]

    monkeypatch.setattr("seq2seq.nn.fast.rnn.run", broken)

    assert any(
        fault.startswith("in training, h_n differs by ")
        for fault in measured(make_model(cells=(cell, cell), fast=True)).faults
    )


@pytest.mark.parametrize("reads", [False, True])
def test_a_model_that_reads_features_is_verified_with_them(reads):
    model = model_of(encoder={"reads_features": reads}, features_size=7)
    source, lengths, features = (
        torch.tensor([[4, 5, 6], [7, 8, 0]]),
        torch.tensor([3, 2]),
        torch.tensor([[4, 5], [6, 0]]),
    )

    with_features, without = (verify(model, source, lengths, one) for one in (features, None))

    assert with_features.faults == without.faults == []
    assert torch.equal(with_features.reach["h", "h"], without.reach["h", "h"]) is not reads
