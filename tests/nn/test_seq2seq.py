"""Encoder, bridge and decoder joined: one law for any number of steps, and refusals that name the keys."""

import pytest
import torch
from conftest import LUONG
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.errors import UserError
from seq2seq.nn import build_model
from seq2seq.nn.attention import ATTENTIONS

LENGTHS = torch.tensor([3, 5, 1, 4])
B, S, T, V = 4, 5, 6, 9
CELLS = ["gru", "lstm"]
KINDS = {
    "luong": {"kind": "luong"},
    "luong with input feeding": {"kind": "luong", "input_feeding": True},
    "gnmt": {"kind": "gnmt"},
    "bahdanau": {"kind": "bahdanau"},
}
pytestmark = pytest.mark.usefixtures("float64")


def model_settings(**changes):
    part = {"cell": "gru", "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
    return {
        "encoder": part | {"bidirectional": True},
        "decoder": part | LUONG | {"hidden_size": 14},
        "bridge": "linear",
        "attention": "general",
        "num_heads": 2,
        "dropout": 0.0,
    } | changes


def make_model(**changes):
    torch.manual_seed(0)
    return build_model(source_size=10, target_size=V, **model_settings(**changes)).eval()


def numbers(state):
    """All tensors of a state, whatever it is."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for part in state if part is not None for tensor in numbers(part)]


def make_batch():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(0, V, (B, T))


def with_cells(encoder, decoder):
    base = model_settings()
    return {"encoder": base["encoder"] | {"cell": encoder}, "decoder": base["decoder"] | {"cell": decoder}}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@given(cuts=st.sets(st.integers(1, T - 1)), layers=st.integers(1, 3), tied=st.booleans())
@settings(max_examples=25)
def test_teacher_forcing_equals_decoding_in_any_split(kind, cell, attention, cuts, layers, tied):
    cells = with_cells(cell, cell)
    layers += kind == "gnmt"  # which has at least two
    decoder = cells["decoder"] | KINDS[kind] | {"num_layers": layers, "tied": tied}
    model = make_model(attention=attention, encoder=cells["encoder"], decoder=decoder)
    source, target = make_batch()
    memory, state = model.encode(source, LENGTHS)
    at_once = model.decoder(target, memory, state)

    pieces = []
    for piece in target.tensor_split(sorted(cuts), dim=1):
        pieces.append(model.decoder(piece, memory, state))
        state = pieces[-1].state

    torch.testing.assert_close(torch.cat([p.logits for p in pieces], 1), at_once.logits, rtol=0, atol=1e-12)
    for part, expected in zip(numbers(state), numbers(at_once.state), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)
    if at_once.weights is not None:
        torch.testing.assert_close(torch.cat([p.weights for p in pieces], 1), at_once.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bridge", ["linear", "concat", "top", "learned", "zeros"])
@pytest.mark.parametrize("decoder", CELLS)
@pytest.mark.parametrize("encoder", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_gives_the_logits_that_it_gives_in_a_batch(kind, encoder, decoder, bridge):
    cells = with_cells(encoder, decoder)
    model = make_model(bridge=bridge, encoder=cells["encoder"], decoder=cells["decoder"] | KINDS[kind])
    source, target = make_batch()
    together = model(source, LENGTHS, target)

    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(source[row : row + 1, :length], LENGTHS[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(together.weights[row, :, :length], alone.weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_an_encoded_batch_can_be_selected(kind):
    cells = with_cells("lstm", "lstm")
    model = make_model(encoder=cells["encoder"], decoder=cells["decoder"] | KINDS[kind])
    source, target = make_batch()
    rows = torch.tensor([2, 0, 0])
    expected = model(source, LENGTHS, target).logits[rows]

    memory, state = model.encode(source, LENGTHS).select(rows)

    torch.testing.assert_close(model.decoder(target[rows], memory, state).logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bridge", ["linear", "concat", "mean", "learned", "zeros"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_in_half_precision(kind, cell, bridge):
    torch.set_default_dtype(torch.float32)
    cells = with_cells(cell, cell)
    size = {"hidden_size": 7 if bridge == "mean" else 14}
    model = make_model(bridge=bridge, encoder=cells["encoder"], decoder=cells["decoder"] | KINDS[kind] | size)
    source, target = make_batch()

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(source, LENGTHS, target).logits

    torch.testing.assert_close(logits.float(), model(source, LENGTHS, target).logits, rtol=0, atol=0.05)
    logits.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_of_the_target_is_not_seen(kind):
    model, (source, target) = make_model(decoder=model_settings()["decoder"] | KINDS[kind]), make_batch()
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V

    one, other = model(source, LENGTHS, target), model(source, LENGTHS, changed)

    assert torch.equal(one.logits[:, :3], other.logits[:, :3])
    assert not torch.isclose(one.logits[:, 3:], other.logits[:, 3:]).all(dim=-1).any()


def test_the_source_reaches_the_decoder_without_attention():
    # With attention off, the handed-over state is all that is left of the source.
    model, (source, target) = make_model(attention="none"), make_batch()
    other_source = (source + 1) % 10

    assert not torch.allclose(model(source, LENGTHS, target).logits, model(other_source, LENGTHS, target).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bridge": "concat", "decoder": {"hidden_size": 128}},
         r"model\.decoder\.hidden_size=128 does not fit model\.bridge=concat, which needs 2 x model\.encoder\."
         r"hidden_size=7 = 14; use model\.bridge=linear\|top\|learned\|zeros or model\.decoder\.hidden_size=14"),
        ({"bridge": "mean", "decoder": {"hidden_size": 14}},
         r"model\.bridge=mean, which needs 1 x .*=7 = 7; use model\.bridge=linear\|concat\|top\|learned\|zeros"),
        ({"bridge": "liner"}, r"model\.bridge=liner must be one of linear, concat, mean, top, learned, zeros"),
        ({"encoder": {"cell": "rnn"}}, r"model\.encoder\.cell=rnn must be one of gru, lstm"),
        ({"decoder": {"cell": "GRU"}}, r"model\.decoder\.cell=GRU must be one of gru, lstm"),
        ({"encoder": {"num_layers": 0}}, r"model\.encoder\.num_layers=0 must be a whole number of at least 1"),
        ({"decoder": {"num_layers": "two"}}, r"model\.decoder\.num_layers=two must be a whole number"),
        ({"encoder": {"hidden_size": 7.5}}, r"model\.encoder\.hidden_size=7\.5 must be a whole number"),
        ({"decoder": {"hidden_size": True}}, r"model\.decoder\.hidden_size=True must be a whole number"),
        ({"encoder": {"embedding_size": -1}}, r"model\.encoder\.embedding_size=-1 must be a whole number"),
        ({"decoder": {"embedding_size": None}}, r"model\.decoder\.embedding_size=None must be a whole number"),
        ({"encoder": {"bidirectional": 2}}, r"model\.encoder\.bidirectional=2 must be true or false"),
        ({"dropout": 1}, r"model\.dropout=1 must be a number of at least 0 and below 1"),
        ({"encoder": {"layers": 3}}, r"model\.encoder\.layers is unknown; the keys of model\.encoder are bi"),
        ({"encoder": None}, r"model\.encoder=None must hold the keys bidirectional, cell, "),
        ({"attention": "dots"}, r"model\.attention=dots must be one of general, dot, additive, multihead, none"),
        ({"decoder": {"kind": "loung"}}, r"model\.decoder\.kind=loung must be one of luong, gnmt, bahdanau"),
        ({"decoder": {"tied": 1}}, r"model\.decoder\.tied=1 must be true or false"),
        ({"decoder": {"input_feeding": 0}}, r"model\.decoder\.input_feeding=0 must be true or false"),
        ({"decoder": {"kind": "gnmt", "input_feeding": True}},
         r"model\.decoder\.input_feeding=true does not fit model\.decoder\.kind=gnmt; use luong or false"),
        ({"decoder": {"kind": "gnmt", "num_layers": 1}},
         r"model\.decoder\.num_layers=1 does not fit model\.decoder\.kind=gnmt, .*; use luong, which it would be"),
        ({"attention": "multihead", "num_heads": 3}, r"model\.num_heads=3 must divide model\.decoder\.hidden_size=14"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_by_key_and_value(changes, message):
    merged = model_settings()
    for key, value in changes.items():
        merged[key] = merged[key] | value if isinstance(value, dict) else value

    with pytest.raises(UserError, match=message):
        build_model(source_size=10, target_size=V, **merged)


def test_a_missing_key_is_named():
    decoder = model_settings()["decoder"]
    del decoder["cell"]

    with pytest.raises(UserError, match=r"model\.decoder\.cell is missing"):
        make_model(decoder=decoder)
