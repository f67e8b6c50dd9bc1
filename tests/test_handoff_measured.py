"""The handoff as measured: it finds what stands where, and names what is wrong."""

import pytest
import torch
from conftest import TINY
from torch import nn

from seq2seq.errors import UserError
from seq2seq.explanation import explain
from seq2seq.handoff import MISTAKES, WrongEncoder
from seq2seq.handoff_measured import EXACT, measure
from seq2seq.nn import build_model
from seq2seq.training import train

LENGTHS = torch.tensor([3, 5, 1])
PART = {"cell": "gru", "embedding_size": 5, "hidden_size": 6, "num_layers": 2}


def make_model(layers=2, decoder_layers=2, bidirectional=True, bridge="linear", cells=("gru", "gru")):
    torch.manual_seed(0)
    encoder = PART | {"num_layers": layers, "bidirectional": bidirectional, "cell": cells[0]}
    decoder = PART | {"num_layers": decoder_layers, "cell": cells[1]}
    return build_model(
        source_size=9, target_size=9, encoder=encoder, decoder=decoder, bridge=bridge, attention="none", dropout=0.0
    )


def measured(model=None, **shape):
    return measure(model or make_model(**shape), torch.arange(15).remainder(9).view(3, 5), LENGTHS)


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


def test_the_model_is_left_as_it_is():
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
    "wrong_first_rows": "layer 1 backward, row 0: h_n differs from output[0, 0] by",
    "wrong_joined_view": "a row's initial state in the decoder depends on other rows of the batch",
    "wrong_halves": "layer 1 forward, row 1: h_n differs from output[1, 4] by",
    "wrong_last_output": "layer 1 forward, row 0: h_n differs from output[0, 2] by",
    "wrong_unpacked": "layer 0 backward, row 2: h_n alone and in the batch differ by",
    "wrong_unmasked": "row 0: the mask is not True at its 3 real tokens and False at padding",
    "wrong_cell": "c_n stands in output, as h_n does: it is not the cell",
    "wrong_across_layers": "a row's initial state in the decoder depends on other rows of the batch",
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


def test_a_fork_is_told_layer_direction_and_row():
    model = make_model()
    model.encoder = ReadsPadding(model.encoder)

    assert measured(model).faults == ["layer 0 backward, row 2: h_n alone and in the batch differ by 1e-06"]


# The script


def run(compose, tmp_path, *overrides):
    return explain(compose("explain_handoff", *overrides, f"output={tmp_path}/x.png"), overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=lstm", "model.encoder.num_layers=3", "model.decoder.cell=gru"],
        ["model.encoder.num_layers=1", "model.encoder.bidirectional=false", "model.decoder.num_layers=3"],
        ["model.bridge=zeros"],
        ["handoff=wrong_first_rows"],
    ],
)
def test_a_picture_of_any_shape_is_drawn(compose, tmp_path, overrides):
    output = run(compose, tmp_path / "new folder", *overrides)

    assert output.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in output.parent.iterdir()] == ["x.png"]


def test_the_tables_say_what_stands_where_and_what_reaches_what(compose, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    run(compose, tmp_path, "model=lstm", "model.encoder.num_layers=3", "model.decoder.cell=gru")

    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["h_n[0]", "0", "forward", "h[0, 0]", "nowhere"] in [row[:5] for row in rows]
    assert ["h_n[4]", "2", "forward", "h[2, 0]", "output[b, length - 1, :128], steps 2, 4, 0", "0"] in rows
    assert ["h_n[5]", "2", "backward", "h[2, 1]", "output[b, 0, 128:]", "0"] in rows
    assert ["c_n[5]", "2", "backward", "c[2, 1]", "nowhere"] in [row[:5] for row in rows]
    reaching = [[cell == "·" for cell in row[1:]] for row in rows if row and row[0] == "decoder"]
    assert reaching == [[True] * 4 + [False] * 2, [True] * 2 + [False] * 2 + [True] * 2]  # layer 1, layer 0


def test_a_checkpoint_is_proved_on_the_text_given(compose, tmp_path, tiny_checkpoint, capsys):
    run(compose, tmp_path, f"checkpoint={tiny_checkpoint}", "text=[a b c,'d é']")

    printed = capsys.readouterr().out
    assert "Proved on this batch" in printed
    assert "│ d <unk>" in printed
    assert "row 1: unknown to the checkpoint, and read as <unk>: é" in printed
    assert "row 2 is there to be longer than the others, so that they are padded" in printed


def test_a_checkpoint_is_proved_without_a_text_too(compose, tmp_path, tiny_checkpoint, capsys):
    run(compose, tmp_path, f"checkpoint={tiny_checkpoint}")

    assert "Proved on this batch" in capsys.readouterr().out


def test_a_wrong_checkpoint_is_named_as_such_everywhere(compose, tmp_path, capsys, caplog):
    train(compose("train", *TINY, "handoff=wrong_halves"), tmp_path / "run")

    assert "handoff=wrong_halves is wrong on purpose; it hands over: rows l and L + l" in caplog.text
    for file in ("config.yaml", "hparams.yaml", "metrics.json"):
        assert "wrong_halves" in (tmp_path / "run" / file).read_text()
    saved = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["handoff"] == "wrong_halves"
    assert "model.encoder.wrong.embedding.weight" in saved["state_dict"]

    capsys.readouterr()
    run(compose, tmp_path, f"checkpoint={tmp_path}/run/best.ckpt")

    printed = capsys.readouterr().out
    assert "handoff=wrong_halves, wrong on purpose" in printed
    assert "layer 1 forward, row 0: h_n differs from output[0, " in printed


def test_a_handoff_that_is_wrong_by_mistake_ends_with_an_error(compose, tmp_path, monkeypatch, capsys):
    def broken(**settings):
        model = build_model(**settings)
        model.encoder = WrongEncoder(model.encoder, "wrong_across_layers")
        return model

    monkeypatch.setattr("seq2seq.explanation.build_model", broken)

    with pytest.raises(UserError, match=r"wrong in \d+ ways; the first: layer 1 forward, row 0: h_n differs"):
        run(compose, tmp_path)
    assert "more" in capsys.readouterr().out.splitlines()[-1]  # the list is cut


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["text=abc"], "text=abc needs a trained model: give checkpoint=FILE, too"),
        (["checkpoint=CHECKPOINT", "model=lstm"], "model=lstm cannot be given with checkpoint: it says what the model"),
        (["checkpoint=CHECKPOINT", "model.bridge=zeros"], r"model\.bridge=zeros cannot be given with checkpoint"),
        (["checkpoint=CHECKPOINT", "handoff=right"], "handoff=right cannot be given with checkpoint"),
        (["checkpoint=CHECKPOINT", "text=''"], "text= has 0 tokens; it must have at least 1 and at most 60"),
        (["checkpoint=CHECKPOINT", f"text={'a ' * 61}"], "has 61 tokens; it must have at least 1 and at most 60"),
        (["checkpoint=none.ckpt"], r"checkpoint=none\.ckpt cannot be read: No such file"),
        (["handoff=wrong_cell"], r"handoff=wrong_cell needs model\.encoder\.cell=lstm"),
        (["+foo=1"], "foo is unknown; the keys are checkpoint, handoff, model, output, text"),
    ],
)
def test_what_cannot_be_is_refused(compose, tmp_path, tiny_checkpoint, overrides, message):
    given = [override.replace("CHECKPOINT", str(tiny_checkpoint)) for override in overrides]

    with pytest.raises(UserError, match=message):
        run(compose, tmp_path, *given)


def test_a_checkpoint_of_another_version_is_refused(compose, tmp_path, tiny_checkpoint):
    content = torch.load(tiny_checkpoint, weights_only=True) | {"seq2seq_format": 1}
    torch.save(content, tmp_path / "old.ckpt")

    with pytest.raises(UserError, match=r"old\.ckpt has format 1, and this version reads format 2 only"):
        run(compose, tmp_path, f"checkpoint={tmp_path}/old.ckpt")


def test_a_picture_that_cannot_be_written_is_named(compose, tmp_path):
    (tmp_path / "file").write_text("")

    for output in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(UserError, match=f"output={output} cannot be written: "):
            explain(compose("explain_handoff", f"output={output}"))
