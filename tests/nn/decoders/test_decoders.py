"""Decoders against the equations of their papers, written out for one sequence, one token and one cell at a time."""

import pytest
import torch
from conftest import KINDS, make_model
from torch import nn

B, S, T, V = 2, 5, 4, 9
LENGTHS = torch.tensor([3, 5])
OF_PAPERS = ("luong", "luong with input feeding", "gnmt", "bahdanau")
pytestmark = pytest.mark.usefixtures("float64")


def make(kind, cell="gru", layers=2, tied=False):
    return make_model(cell=cell, decoder=KINDS[kind] | {"num_layers": layers, "tied": tied})


def make_batch():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(0, V, (B, T))


def cells_of(decoder):
    """The decoder's layers as single cells."""
    made = []
    for layer in decoder.layers:
        one = (nn.GRUCell if layer.mode == "GRU" else nn.LSTMCell)(layer.input_size, layer.hidden_size)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(one, name).data = getattr(layer, f"{name}_l0").data
        made.append(one)
    return made


def by_hand(model, kind, source, length, target):
    """The logits of one sequence and its weights, token by token."""
    decoder = model.decoder
    encoded = model.encoder(source[None, :length], torch.tensor([length]))
    values = encoded.outputs[0]
    initial = model.bridge(encoded.state)
    h, c = list(initial.h[:, 0, 0]), None if initial.c is None else list(initial.c[:, 0, 0])
    cells, fed = cells_of(decoder), torch.zeros(decoder.attentional_layer.out_features)
    all_logits, all_weights = [], []

    def attend(query):
        weights = torch.stack([query @ decoder.attention.key(value) for value in values]).softmax(0)
        all_weights.append(weights)
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    def advance(layer, inputs):
        if c is None:
            h[layer] = cells[layer](inputs, h[layer])
        else:
            h[layer], c[layer] = cells[layer](inputs, (h[layer], c[layer]))
        return h[layer]

    for token in target:
        inputs = decoder.embedding(token)
        context = attend(h[-1]) if kind == "bahdanau" else None
        extra = {"bahdanau": context, "luong with input feeding": fed}.get(kind)
        output = advance(0, inputs if extra is None else torch.cat([inputs, extra]))
        if kind == "gnmt":
            context = attend(output)
        for layer in range(1, len(cells)):
            output = advance(layer, torch.cat([output, context]) if kind == "gnmt" else output)
        if context is None:
            context = attend(output)
        fed = torch.tanh(decoder.attentional_layer(torch.cat([context, output])))
        all_logits.append(decoder.output_layer(fed))
    return torch.stack(all_logits), torch.stack(all_weights)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(
    ("kind", "layers"), [(kind, n) for kind in OF_PAPERS for n in (1, 2, 3) if (kind, n) != ("gnmt", 1)]
)
def test_the_decoder_is_what_the_paper_says_one_sequence_and_one_token_at_a_time(kind, cell, layers, tied):
    model, (source, target) = make(kind, cell, layers, tied), make_batch()

    output = model(source, LENGTHS, target)

    for index, length in enumerate(LENGTHS.tolist()):
        logits, weights = by_hand(model, kind, source[index], length, target[index])
        torch.testing.assert_close(output.logits[index], logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(output.weights[index, :, :length], weights, rtol=0, atol=1e-12)


def test_tied_embeddings_are_one_parameter():
    tied, untied = make("luong", tied=True), make("luong")

    assert tied.decoder.output_layer.weight is tied.decoder.embedding.weight
    assert untied.decoder.output_layer.weight is not untied.decoder.embedding.weight


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_dropped_in_training_only(kind):
    model, (source, target) = make(kind, layers=3), make_batch()
    model.decoder.dropout.p = 0.5

    assert torch.equal(*(model.eval()(source, LENGTHS, target).logits for _ in range(2)))
    assert not torch.equal(*(model.train()(source, LENGTHS, target).logits for _ in range(2)))


@pytest.mark.parametrize(
    ("kind", "upper"), [("luong", 14), ("luong with input feeding", 14), ("gnmt", 28), ("bahdanau", 14)]
)
def test_units_are_dropped_from_embeddings_between_layers_and_before_the_output_layer(kind, upper):
    model, seen = make(kind, layers=3), []
    model.decoder.dropout.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel()))

    model(make_batch()[0], LENGTHS, make_batch()[1])

    assert sum(seen) == B * T * (11 + 2 * upper + 14)  # with gnmt, an upper layer also reads the context
