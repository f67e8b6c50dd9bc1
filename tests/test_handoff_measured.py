"""The handoff as measured for the picture: it finds what stands where, and would find a wrong one."""

import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.explanation import explain
from seq2seq.handoff import measure, reach
from seq2seq.nn import RNNState, build_model

PART = {"cell": "gru", "embedding_size": 5, "hidden_size": 6, "num_layers": 2}


def make_model(layers=2, decoder_layers=2, bidirectional=True, bridge="linear"):
    torch.manual_seed(0)
    encoder = PART | {"num_layers": layers, "bidirectional": bidirectional}
    decoder = PART | {"num_layers": decoder_layers}
    model = build_model(
        source_size=9, target_size=9, encoder=encoder, decoder=decoder, bridge=bridge, attention="none", dropout=0.0
    )
    return model.eval()


def measured(**shape):
    return measure(make_model(**shape), torch.arange(10).remainder(9).view(2, 5), torch.tensor([5, 3]), row=1)


def test_the_top_layer_stands_at_the_last_token_and_at_the_first_and_lower_layers_nowhere():
    assert measured(layers=3).places.tolist() == [[-1, -1], [-1, -1], [2, 0]]


def test_a_single_direction_stands_at_the_last_token():
    assert measured(bidirectional=False).places.tolist() == [[-1], [2]]


def test_arrows_lead_where_the_bridge_leads():
    assert measured(layers=3).reach.int().tolist() == [[[0, 0], [1, 1], [0, 0]], [[0, 0], [0, 0], [1, 1]]]
    assert not measured(bridge="zeros").reach.any()
    assert not measured(bridge="learned").reach.any()


def test_a_handoff_of_the_first_rows_would_be_seen():
    # What tutorials hand over: h_n[:2], so decoder layer 1 starts from layer 0 backward.
    model = make_model()
    model.bridge.forward = lambda state: RNNState(state.h.flatten(0, 1)[:2].unsqueeze(1))

    reached = reach(model, RNNState(torch.rand(2, 2, 4, 6)))

    assert reached.int().tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]]]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=lstm"],
        ["model.encoder.num_layers=1", "model.encoder.bidirectional=false", "model.decoder.num_layers=3"],
        ["model.bridge=zeros"],
    ],
)
def test_a_picture_of_any_shape_is_drawn(compose, tmp_path, overrides):
    output = tmp_path / "new folder" / "x.png"

    explain(compose("explain_handoff", *overrides, f"output='{output}'"))

    assert output.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in output.parent.iterdir()] == ["x.png"]


def test_a_picture_that_cannot_be_written_is_named(compose, tmp_path):
    (tmp_path / "file").write_text("")

    for output in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(UserError, match=f"output={output} cannot be written: "):
            explain(compose("explain_handoff", f"output={output}"))


def test_an_unknown_key_is_refused(compose):
    with pytest.raises(UserError, match="foo is unknown; the keys are model, output"):
        explain(compose("explain_handoff", "+foo=1"))
