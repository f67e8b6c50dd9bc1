"""Exports: they compute what the model computes, at any batch size and length, without PyTorch."""

import functools
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import KINDS, combinations, make_model
from spoiled import spoiled

from seq2seq.data import Tokenizers, build_tokenizer
from seq2seq.decoding import Beam, Ensemble, Greedy
from seq2seq.errors import UserError
from seq2seq.export import graphs
from seq2seq.export.backend import OnnxModel
from seq2seq.export.files import Export
from seq2seq.export.parity import differences
from seq2seq.handoff.mistakes import MISTAKES, WrongEncoder
from seq2seq.model import TrainedModel
from seq2seq.nn import attention, bridge

SIX = {
    "gru, luong, general, linear": {"encoder": {"num_layers": 3}},
    "lstm, bahdanau, additive, top": {"cell": "lstm", "kind": "bahdanau", "attention": "additive", "bridge": "top"},
    "gru, input feeding, multihead, concat, tied": {
        "kind": "luong with input feeding", "attention": "multihead", "bridge": "concat", "decoder": {"tied": True},
        "features_size": 7},
    "lstm, gnmt, dot, learned, one direction": {
        "cell": "lstm", "kind": "gnmt", "attention": "dot", "bridge": "learned",
        "encoder": {"bidirectional": False, "reads_features": True}, "hidden": 7, "features_size": 7},
    "gru, luong, no attention, mean, one layer": {
        "attention": "none", "bridge": "mean", "hidden": 7, "encoder": {"num_layers": 1}},
    "gru to lstm, bahdanau, no attention, zeros": {
        "kind": "bahdanau", "attention": "none", "bridge": "zeros", "decoder": {"cell": "lstm"}},
}  # fmt: skip
"""Every cell, decoder, attention, bridge and number of directions at least once."""


def build(*, kind="luong", hidden=14, decoder=None, **changes):
    """A model with large weights, so that a wrong one shows."""
    return make_model(scale=3.0, decoder=KINDS[kind] | {"hidden_size": hidden} | (decoder or {}), **changes)


def export_model(model):
    return Export(*graphs.make_graphs(model, {"handoff": "right"}), {})


@functools.cache
def exported(name):
    """One of the six."""
    return export_model(build(**SIX[name]))


@pytest.fixture
def batch():
    """Sizes that the exporter has not seen: five sequences of one to nine tokens."""
    torch.manual_seed(1)
    features = torch.tensor([[4, 5, 6, 4], [0, 0, 0, 0], [5, 0, 0, 0], [6, 4, 0, 0], [3, 5, 6, 0]])
    return torch.randint(4, 10, (5, 9)), torch.tensor([3, 9, 1, 8, 5]), torch.randint(4, 9, (5, 6)), features


def run_by_hand(export, source, lengths, targets, features):
    """Feed both graphs step by step, as a reader in another language would: encoder outputs, logits and weights."""
    encoder, step = (onnxruntime.InferenceSession(graph) for graph in (export.encoder, export.step))
    given = {"source": source.numpy(), "lengths": lengths.numpy(), "features": features.numpy()}
    encoded = dict(
        zip(
            [one.name for one in encoder.get_outputs()],
            encoder.run(None, {one.name: given[one.name] for one in encoder.get_inputs()}),
            strict=True,
        )
    )
    inputs, logits, weights = dict(encoded), [], []
    for tokens in targets.numpy().T:
        inputs["tokens"] = np.ascontiguousarray(tokens[:, None])
        feed = {one.name: inputs[one.name] for one in step.get_inputs()}
        outputs = dict(zip([one.name for one in step.get_outputs()], step.run(None, feed), strict=True))
        logits.append(outputs["logits"])
        weights.append(outputs.get("weights"))
        inputs |= {name.removeprefix("next_"): part for name, part in outputs.items()}
    weights = None if weights[0] is None else torch.from_numpy(np.concatenate(weights, axis=1))
    return encoded, torch.from_numpy(np.concatenate(logits, axis=1)), weights


def assert_same(model, export, batch):
    with torch.inference_mode():
        source, lengths, targets, features = batch
        encoded, logits, weights = run_by_hand(export, *batch)
        features = features if model.features else None
        state = model.run_encoder(source, lengths, features)[0].state
        right = model(source, lengths, targets, features)
        for name, part in (("h_n", state.h), ("c_n", state.c)):
            if part is not None:  # row by row, as PyTorch numbers them
                torch.testing.assert_close(torch.from_numpy(encoded[name]), part.flatten(0, 1), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits, right.logits, rtol=0, atol=1e-5)
        assert (weights is None) == (right.weights is None)
        if weights is not None:
            torch.testing.assert_close(weights, right.weights, rtol=0, atol=1e-5)
            assert torch.equal(weights == 0, right.weights == 0)  # exactly nothing for the padding
        ours, theirs = Ensemble([model]), Ensemble([OnnxModel(export)])
        for search in (Greedy(12), Beam(12, beam_size=4, n_best=3, normalisation="gnmt", alpha=0.6)):
            found, expected = (search(one, one.encode(source, lengths, features)) for one in (theirs, ours))
            assert torch.equal(found.tokens, expected.tokens)
            torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*list(SIX)[:1], *combinations(list(SIX)[1:])])
def test_an_export_gives_the_same_states_logits_weights_and_predictions(name, batch):
    assert_same(build(**SIX[name]), exported(name), batch)


ENDS = itertools.cycle(itertools.product(bridge.BRIDGES, [True, False]))
EVERY = [(*parts, *next(ENDS)) for parts in itertools.product(["gru", "lstm"], KINDS, attention.ATTENTIONS)]
"""Every cell, decoder and attention, with bridges and directions in turn."""


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "kind", "attends", "hands_over", "bidirectional"), EVERY)
def test_every_part_can_be_exported(cell, kind, attends, hands_over, bidirectional, batch):
    wide = bidirectional and (attends == "dot" or hands_over == "concat")
    if wide and hands_over == "mean":  # which needs the other size
        hands_over = "top"
    changes = {"attention": attends, "bridge": hands_over, "hidden": 16 if wide else 8}
    encoder = {"hidden_size": 8, "bidirectional": bidirectional}
    model = build(cell=cell, kind=kind, encoder=encoder, features_size=7, **changes)

    assert_same(model, export_model(model), batch)


def compare(model, export, sizes=(10, 9)):
    tokenizers = Tokenizers(*(build_tokenizer("spaces", symbols=[*map(str, range(4, size))]) for size in sizes))
    return differences(*(TrainedModel(one, tokenizers, 9, {}) for one in (model, OnnxModel(export))))


def test_an_export_reads_features(batch):
    model = make_model(encoder={"reads_features": True}, features_size=7)
    export = export_model(model)

    assert_same(model, export, batch)
    assert max(compare(model, export, (10, 9, 7)).values()) < 1e-5


@pytest.mark.parametrize("name", list(SIX)[:2])
def test_the_comparison_sees_a_wrong_operator(name):
    model = build(**SIX[name])
    right = exported(name)

    def compared(export):
        return compare(model, export)

    assert set(compared(right)) == {"logits", "attention", "h_n"} | ({"c_n"} if "lstm" in name else set())
    assert max(compared(right).values()) < 1e-5
    assert compared(right._replace(encoder=spoiled(right.encoder)))["h_n"] > 0.01
    graph = onnx.load_from_string(right.step)
    bias = next(one for one in graph.graph.initializer if one.dims == [9])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(9, np.nan, np.float32), bias.name))
    assert compared(right._replace(step=graph.SerializeToString()))["logits"] == np.inf


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_exported_as_it_is(name, batch):
    model = build(cell="lstm")
    model.encoder = WrongEncoder(model.encoder, name)

    assert_same(model, export_model(model), batch)


def test_a_part_that_cannot_be_exported_is_named_in_one_line():
    model = make_model()
    attend = model.decoder.attention.forward
    model.decoder.attention.forward = lambda queries, memory: attend(queries + len(memory.mask), memory)

    with pytest.raises(
        UserError, match=r"^PyTorch's exporter cannot translate a part of this model, .*: .*2.*shows where$"
    ):
        export_model(model)
