"""What `explain_handoff.py` prints, draws and refuses."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import TINY
from matplotlib.colors import to_hex, to_rgba
from matplotlib.patches import FancyArrowPatch, Rectangle

from seq2seq.commands.explain_handoff import explain
from seq2seq.commands.train import train
from seq2seq.errors import UserError
from seq2seq.handoff.mistakes import WrongEncoder
from seq2seq.handoff.picture import LAYER_COLOURS
from seq2seq.model import model_from_config

pytestmark = pytest.mark.pictures


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


def test_a_checkpoint_is_verified_on_a_given_text(compose, tmp_path, tiny_checkpoint, capsys):
    run(compose, tmp_path, f"checkpoint={tiny_checkpoint}", "text=[a b c,'d é']")

    printed = capsys.readouterr().out
    assert "Verified on this batch" in printed
    assert "│ d <unk>" in printed
    assert "Sequence 1: not in the vocabulary, read as <unk>: é" in printed
    assert "Sequence 2 was added to be longer than the others, so that they are padded." in printed


def test_a_checkpoint_is_verified_without_a_text(compose, tmp_path, tiny_checkpoint, capsys):
    run(compose, tmp_path, f"checkpoint={tiny_checkpoint}")

    assert "Verified on this batch" in capsys.readouterr().out


def test_a_wrong_checkpoint_is_named_as_such_everywhere(compose, tmp_path, capsys, caplog):
    train(compose("train", *TINY, "handoff=wrong_halves"), tmp_path / "run")

    assert "handoff=wrong_halves is wrong on purpose; it hands over: for layer l, rows l and L" in caplog.text
    for file in ("config.yaml", "hparams.yaml", "metrics.json"):
        assert "wrong_halves" in (tmp_path / "run" / file).read_text()
    saved = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["handoff"] == "wrong_halves"
    assert "model.encoder.inner.embedding.weight" in saved["state_dict"]

    capsys.readouterr()
    run(compose, tmp_path, f"checkpoint={tmp_path}/run/best.ckpt")

    printed = capsys.readouterr().out
    assert "handoff=wrong_halves, wrong on purpose" in printed
    assert "layer 1 forward, sequence 0: h_n differs from output[0, " in printed


def test_a_handoff_that_is_wrong_by_mistake_ends_with_an_error(compose, tmp_path, monkeypatch, capsys):
    def broken(settings, **sizes):
        model = model_from_config(settings, **sizes)
        model.encoder = WrongEncoder(model.encoder, "wrong_across_layers")
        return model

    monkeypatch.setattr("seq2seq.commands.explain_handoff.model_from_config", broken)

    with pytest.raises(UserError, match=r"wrong in \d+ places; the first: layer 1 forward, sequence 0: h_n differs"):
        run(compose, tmp_path)
    assert "more" in capsys.readouterr().out.splitlines()[-1]  # the list is cut


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["text=abc"], "text=abc needs a trained model: give checkpoint=FILE as well"),
        (
            ["checkpoint=CHECKPOINT", "model=lstm"],
            "model=lstm cannot be given with checkpoint, which defines the model",
        ),
        (["checkpoint=CHECKPOINT", "model.bridge=zeros"], r"model\.bridge=zeros cannot be given with checkpoint"),
        (["checkpoint=CHECKPOINT", "handoff=right"], "handoff=right cannot be given with checkpoint"),
        (["checkpoint=CHECKPOINT", "~model.dropout"], r"~model\.dropout cannot be given with checkpoint"),
        (["checkpoint=CHECKPOINT", "text=[]"], r"text=\[\] must contain at least one text"),
        (["checkpoint=CHECKPOINT", "text=12.10"], r"text=12\.1 is not a string; quote it twice, as in text="),
        (["checkpoint=CHECKPOINT", "text=[a,true]"], r"text=True is not a string; quote it twice"),
        (["checkpoint=CHECKPOINT", "text=''"], "text= has 0 tokens; it must have 1 to 60"),
        (["checkpoint=CHECKPOINT", f"text={'a ' * 61}"], "has 61 tokens; it must have 1 to 60"),
        (["checkpoint=none.ckpt"], r"checkpoint=none\.ckpt cannot be read: No such file"),
        (["handoff=wrong_cell"], r"handoff=wrong_cell needs model\.encoder\.cell=lstm"),
        (["+foo=1"], "foo is unknown; the keys are checkpoint, compact, handoff, model, output, parts, text"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(compose, tmp_path, tiny_checkpoint, overrides, message):
    given = [override.replace("CHECKPOINT", str(tiny_checkpoint)) for override in overrides]

    with pytest.raises(UserError, match=message):
        run(compose, tmp_path, *given)


def test_a_refusal_leaves_no_folder(compose, tmp_path):
    with pytest.raises(UserError, match="handoff=wrong must be one of right, wrong_first_rows"):
        run(compose, tmp_path / "new", "handoff=wrong")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("null", "output=null must be a string"),
        ("''", "output= must name a file"),
        ("7", "output=7 must be a string"),
    ],
)
def test_the_picture_must_have_a_name(compose, name, message):
    with pytest.raises(UserError, match=message):
        explain(compose("explain_handoff", f"output={name}"))


# The picture


def drawn(overrides, compose, monkeypatch, tmp_path):
    """The figure that the script saves: its texts, and the boxes that are filled with a layer's colour."""
    figures = []
    monkeypatch.setattr("seq2seq.commands.explain_handoff.save", lambda figure, *_: figures.append(figure))
    run(compose, tmp_path, *overrides)
    (axes,) = figures[0].axes
    return axes


def arrows_into_the_decoder(axes):
    """From which height, in rows of h_n, to which decoder layer's middle each arrow leads."""
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    ends = [arrow._posA_posB for arrow in arrows]
    right = max(end[0] for _, end in ends)
    return sorted((int(start[1]), round(end[1], 2)) for start, end in ends if end[0] == right)


def test_arrows_lead_from_the_rows_that_reach_a_layer(compose, monkeypatch, tmp_path):
    right = arrows_into_the_decoder(drawn([], compose, monkeypatch, tmp_path))
    wrong = arrows_into_the_decoder(drawn(["handoff=wrong_first_rows"], compose, monkeypatch, tmp_path))

    low, high = sorted({y for _, y in right})
    assert right == [(0, low), (1, low), (2, high), (3, high)]
    assert wrong == [(0, low), (1, high)]


@pytest.mark.parametrize("handoff", ["right", "wrong_unpacked"])
def test_no_arrow_crosses_a_box(compose, monkeypatch, tmp_path, handoff):
    axes = drawn([f"handoff={handoff}"], compose, monkeypatch, tmp_path)

    boxes = [
        patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle) and to_rgba(patch.get_facecolor())[3]
    ]
    paths = [line.get_xydata() for line in axes.lines]
    paths += [np.array(patch._posA_posB) for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(axes.lines) == {"right": 4, "wrong_unpacked": 2}[handoff]  # there, forward ends at the last step
    for start, end in (pair for path in paths for pair in pairwise(path)):
        for x, y in start + np.linspace(0, 1, 200)[:, None] * (end - start):
            assert not any(box.x0 < x < box.x1 - 0.01 and box.y0 < y < box.y1 for box in boxes)


def test_headings_are_whole_phrases(compose, monkeypatch, tmp_path):
    axes = drawn(["model.encoder.cell=lstm"], compose, monkeypatch, tmp_path)

    headings = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert headings == ["encoder (LSTM), one sequence of 3 tokens", "h_n, c_n", "decoder (GRU), initial state"]


@pytest.mark.parametrize(("handoff", "end"), [("right", 2), ("wrong_unpacked", 4)])
def test_the_steps_at_which_the_directions_end_are_filled(compose, monkeypatch, tmp_path, handoff, end):
    axes = drawn([f"handoff={handoff}"], compose, monkeypatch, tmp_path)

    steps = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_width() == 0.92]
    filled = sorted((int(p.get_y()), round(p.get_x())) for p in steps if to_hex(p.get_facecolor()) in LAYER_COLOURS)
    assert filled == [(0, end), (1, 0), (2, end), (3, 0)]  # forward at the end, backward at the first token


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (["handoff=wrong_halves"], "wrong_halves, on purpose; bridge: linear"),
        (
            ["handoff=wrong_last_output"],
            "wrong_last_output, on purpose; bridge: linear, which gets output instead of h_n",
        ),
        (["model.bridge=zeros"], "bridge: zeros, nothing is handed over"),
        (["model.encoder.cell=lstm"], "bridge: linear; c_n is left behind"),
        (["model.decoder.cell=lstm"], "bridge: linear; the cell is made from h_n"),
        (["model.decoder.cell=lstm", "model.bridge=mean"], "bridge: mean; the cell starts at zero"),
    ],
)
def test_the_picture_says_what_is_handed_over(compose, monkeypatch, tmp_path, overrides, label):
    axes = drawn(overrides, compose, monkeypatch, tmp_path)

    assert label in [text.get_text() for text in axes.texts]


def test_a_checkpoint_of_another_version_is_refused(compose, tmp_path, tiny_checkpoint):
    content = torch.load(tiny_checkpoint, weights_only=True) | {"seq2seq_format": 2}
    torch.save(content, tmp_path / "old.ckpt")

    with pytest.raises(UserError, match=r"old\.ckpt has format 2, and this version reads format 1 only"):
        run(compose, tmp_path, f"checkpoint={tmp_path}/old.ckpt")


def test_a_picture_that_cannot_be_written_is_named(compose, tmp_path):
    (tmp_path / "file").write_text("")

    for output in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(UserError, match=f"output={output} cannot be written: "):
            explain(compose("explain_handoff", f"output={output}"))
