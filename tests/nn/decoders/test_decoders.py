"""Decoders against the equations of their papers, written out for one row, one token and one cell at a time."""

import pytest
import torch
from conftest import LUONG
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from seq2seq.nn import build_model
from seq2seq.nn.fast.packing import Packing

V, T, H = 9, 4, 6
LENGTHS = torch.tensor([3, 5])
pytestmark = pytest.mark.usefixtures("float64")
KINDS = ["luong", "feeding", "gnmt", "bahdanau"]


def make_model(kind, cell, layers, tied=False):
    torch.manual_seed(0)
    part = {"cell": cell, "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
    decoder = part | LUONG | {"hidden_size": H, "num_layers": layers, "tied": tied}
    decoder |= {"input_feeding": True} if kind == "feeding" else {"kind": kind}
    return build_model(
        source_size=10, target_size=V, encoder=part | {"bidirectional": True}, decoder=decoder, bridge="linear",
        attention="general", num_heads=1, dropout=0.0,
    ).eval()  # fmt: skip


def cells_of(decoder, cell):
    """The decoder's layers as single cells."""
    made = []
    for layer in decoder.layers:
        one = (nn.GRUCell if cell == "gru" else nn.LSTMCell)(layer.input_size, H)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(one, name).data = getattr(layer, f"{name}_l0").data
        made.append(one)
    return made


def by_hand(model, kind, cell, source, length, target):
    """The logits of one row, token by token."""
    decoder = model.decoder
    encoded = model.encoder(source[None, :length], torch.tensor([length]))
    values = encoded.outputs[0]
    initial = model.bridge(encoded.state)
    h, c = list(initial.h[:, 0, 0]), None if initial.c is None else list(initial.c[:, 0, 0])
    cells, fed, logits = cells_of(decoder, cell), torch.zeros(decoder.combine.out_features), []

    def attend(query):
        scores = torch.stack([query @ decoder.attention.key(value) for value in values])
        return sum(weight * value for weight, value in zip(scores.softmax(0), values, strict=True))

    def advance(layer, inputs):
        if c is None:
            h[layer] = cells[layer](inputs, h[layer])
        else:
            h[layer], c[layer] = cells[layer](inputs, (h[layer], c[layer]))
        return h[layer]

    for token in target:
        inputs = decoder.embedding(token)
        context = attend(h[-1]) if kind == "bahdanau" else None
        extra = {"bahdanau": context, "feeding": fed}.get(kind)
        output = advance(0, inputs if extra is None else torch.cat([inputs, extra]))
        if kind == "gnmt":
            context = attend(output)
        for layer in range(1, len(cells)):
            output = advance(layer, torch.cat([output, context]) if kind == "gnmt" else output)
        if context is None:
            context = attend(output)
        fed = torch.tanh(decoder.combine(torch.cat([context, output])))
        logits.append(decoder.predict(fed))
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(
    ("kind", "layers"), [(kind, n) for kind in KINDS for n in (1, 2, 3) if (kind, n) != ("gnmt", 1)]
)
def test_the_decoder_is_what_the_paper_says_row_by_row_and_token_by_token(kind, cell, layers, tied):
    model = make_model(kind, cell, layers, tied)
    source, target = torch.randint(0, 10, (2, 5)), torch.randint(0, V, (2, T))

    logits = model(source, LENGTHS, target).logits

    for row in range(2):
        expected = by_hand(model, kind, cell, source[row], int(LENGTHS[row]), target[row])
        torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-12)


@given(
    kind=st.sampled_from(KINDS),
    cell=st.sampled_from(["gru", "lstm"]),
    lengths=st.lists(st.integers(1, T), min_size=2, max_size=2),
)
def test_with_a_packing_real_tokens_get_the_same_and_padding_takes_no_part(kind, cell, lengths):
    model = make_model(kind, cell, layers=2)
    source, target = torch.randint(0, 10, (2, 5)), torch.randint(0, V, (2, T))
    packing = Packing.of(torch.tensor(lengths), T)
    encoded = model.encode(source, LENGTHS)

    packed = model.decoder(target, *encoded, packing)
    padded = model.decoder(target, *encoded)

    torch.testing.assert_close(packed.logits, packing.pack(padded.logits), rtol=0, atol=1e-12)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(packed.weights[row, :length], padded.weights[row, :length], rtol=0, atol=1e-12)
        alone = model.decoder(target[row : row + 1, :length], *encoded.select(torch.tensor([row])))
        after = packed.state.select(torch.tensor([row]))
        torch.testing.assert_close(tensors(after), tensors(alone.state), rtol=0, atol=1e-12)
    loss, same = (
        F.cross_entropy(logits, packing.pack(target)) for logits in (packed.logits, packing.pack(padded.logits))
    )
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters, retain_graph=True), torch.autograd.grad(same, parameters),
        rtol=0, atol=1e-12,
    )  # fmt: skip


def tensors(state):
    """All that a decoder keeps."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [one for part in state if part is not None for one in tensors(part)]


def test_tied_embeddings_are_one_parameter():
    tied, loose = make_model("luong", "gru", 2, tied=True), make_model("luong", "gru", 2)

    assert tied.decoder.predict.weight is tied.decoder.embedding.weight
    assert loose.decoder.predict.weight is not loose.decoder.embedding.weight


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_drops_in_training_only(kind):
    model = make_model(kind, "gru", 3)
    model.decoder.dropout.p = 0.5
    source, target = torch.randint(0, 10, (2, 5)), torch.randint(0, V, (2, T))

    assert torch.equal(*(model.eval()(source, LENGTHS, target).logits for _ in range(2)))
    assert not torch.equal(*(model.train()(source, LENGTHS, target).logits for _ in range(2)))
