"""Features: what they add, in numbers that can be followed by eye, and that they are a set."""

from typing import Any

import pytest
import torch
from conftest import KINDS, make_model
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.data import PAD
from seq2seq.nn import EncoderOutput, RNNState
from seq2seq.nn.attention import ATTENTIONS
from seq2seq.nn.bridge import BRIDGES
from seq2seq.nn.features import NONE, Features

SOURCE, LENGTHS = torch.tensor([[4, 5, 6], [7, 8, 0]]), torch.tensor([3, 2])
TARGET = torch.tensor([[1, 4], [1, 5]])
FEATURES = torch.tensor([[4, 5], [6, NONE]])
pytestmark = pytest.mark.usefixtures("float64")


def test_what_features_add_is_the_sum_of_their_vectors_mapped():
    sizes: dict[str, Any] = {"embedding_size": 2, "num_layers": 2, "hidden_size": 1, "value_size": 1, "encoder_size": 1}
    features: Any = Features(vocabulary_size=7, **sizes)
    with torch.no_grad():
        features.embedding.weight[4:] = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 7.0]])
        features.input_map.weight[:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # swaps the units
        features.state_maps.weight[:] = torch.tensor([[10.0, 0.0], [0.0, 100.0]])  # a row for each decoder layer
        features.value_map.weight[:] = torch.tensor([[1.0, 1.0]])
        features.encoder_map.weight[:] = torch.tensor([[1.0, -1.0]])

    vectors = features(torch.tensor([[4, 5], [6, NONE], [NONE, NONE]]))

    assert vectors.values.tolist() == [[[1], [2]], [[12], [0]], [[0], [0]]]  # of each feature alone
    assert vectors.mask.tolist() == [[True, True], [True, False], [False, False]]
    # The sums are (1, 2), (5, 7) and nothing.
    assert vectors.to_encoder.tolist() == [[[-1]], [[-2]], [[0]]]
    assert vectors.to_inputs.tolist() == [[[2, 1]], [[7, 5]], [[0, 0]]]
    assert vectors.to_state[:, 0, :, 0].tolist() == [[10, 50, 0], [200, 700, 0]]
    state = RNNState(torch.ones(2, 1, 3, 1), torch.ones(2, 1, 3, 1))
    assert vectors.added_to(state).h[:, 0, :, 0].tolist() == [[11, 51, 1], [201, 701, 1]]
    assert vectors.added_to(state).c is state.c
    encoded = EncoderOutput(torch.full((3, 1, 1), 9.0), state, torch.ones(3, 1, dtype=torch.bool))
    assert vectors.beside(encoded).outputs[0, :, 0].tolist() == [9, 1, 2]
    assert vectors.beside(encoded).mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert vectors.beside(encoded).state is state


def test_the_id_of_no_feature_is_that_of_padding():
    assert NONE == PAD


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_they_are_added_to_what_the_bridge_hands_over(bridge, cell):
    model: Any = make_model(cell=cell, bridge=bridge, features_size=7)
    handed = model.bridge(model.encoder(SOURCE, LENGTHS).state)

    _, state = model.encode(SOURCE, LENGTHS, FEATURES)

    torch.testing.assert_close(state.rnn.h, handed.h + model.features(FEATURES).to_state, rtol=0, atol=1e-12)
    assert cell == "gru" or torch.equal(state.rnn.c, handed.c)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_without_any_the_model_is_the_one_that_reads_none(kind, attention):
    model, plain = (make_model(decoder=KINDS[kind], attention=attention, features_size=size) for size in (7, 0))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("features.")}
    plain.load_state_dict(weights)

    expected = plain(SOURCE, LENGTHS, TARGET).logits

    for nothing in (None, FEATURES[:, :0], torch.full((2, 3), NONE)):
        assert torch.equal(model(SOURCE, LENGTHS, TARGET, nothing).logits, expected)
    assert not torch.isclose(model(SOURCE, LENGTHS, TARGET, FEATURES).logits, expected).any()


def test_a_model_that_reads_features_begins_with_the_weights_of_one_that_does_not():
    model, plain = (make_model(features_size=size).state_dict() for size in (7, 0))

    assert all(torch.equal(model[name], value) for name, value in plain.items())


@given(order=st.permutations([4, 5, 6, NONE, NONE]))
def test_order_and_padding_mean_nothing(order):
    model = make_model(features_size=7)
    one = slice(0, 1)
    expected = model(SOURCE[one], LENGTHS[one], TARGET[one], torch.tensor([[4, 5, 6]])).logits

    logits = model(SOURCE[one], LENGTHS[one], TARGET[one], torch.tensor([order])).logits

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_reads_them(kind):
    # Two sources that differ in their features only, from the same state: what remains are the inputs.
    model = make_model(decoder=KINDS[kind], features_size=7)
    with torch.no_grad():
        model.features.state_maps.weight.zero_()
        model.features.value_map.weight.zero_()
    twice, steps = SOURCE[:1].repeat(2, 1), torch.tensor([[1, 4, 5]] * 2)

    logits = model(twice, LENGTHS[[0, 0]], steps, FEATURES).logits

    assert not torch.isclose(logits[0], logits[1]).all(-1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_attention_looks_at_each_and_not_at_padding(kind):
    model = make_model(decoder=KINDS[kind], features_size=7)

    weights = model(SOURCE, LENGTHS, TARGET, FEATURES).weights

    assert weights.shape == (2, 2, 3 + 2)  # source and features
    seen = torch.tensor([[True, True, True, True, True], [True, True, False, True, False]])
    assert torch.equal(weights > 0, seen.unsqueeze(1).expand(-1, 2, -1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2))


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_encoder_reads_them_only_if_it_is_told_to(cell, reads):
    model = make_model(cell=cell, encoder={"reads_features": reads}, features_size=7)

    with_features, _ = model.run_encoder(SOURCE, LENGTHS, FEATURES)
    without, _ = model.run_encoder(SOURCE, LENGTHS)

    assert torch.equal(with_features.state.h, without.state.h) is not reads
    assert torch.equal(with_features.outputs, without.outputs) is not reads
    alone, _ = model.run_encoder(SOURCE[1:, :2], LENGTHS[1:], FEATURES[1:, :1])
    torch.testing.assert_close(with_features.state.h[:, :, 1:], alone.state.h, rtol=0, atol=1e-12)
    assert not with_features.outputs[1, 2:].any()  # padding stays padding


def test_an_encoder_that_reads_features_needs_some():
    with pytest.raises(
        ValueError, match=r"model\.encoder\.reads_features=true needs features; give data\.features_column"
    ):
        make_model(encoder={"reads_features": True})


def test_a_model_without_features_refuses_them():
    with pytest.raises(ValueError, match="the model was built without features, and is given some"):
        make_model()(SOURCE, LENGTHS, TARGET, FEATURES)
