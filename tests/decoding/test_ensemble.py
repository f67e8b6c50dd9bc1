"""An ensemble is called like one model, and predicts by the mean of the probabilities of its models."""

import pytest
import torch
from conftest import KINDS, make_model, tensors_of

from seq2seq.decoding import Ensemble

B, S, T, V, K = 4, 5, 6, 9, 3
LENGTHS = torch.tensor([3, 5, 1, 4])
pytestmark = pytest.mark.usefixtures("float64")


def make_batch():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(0, V, (B, T))


def make_three():
    """Models of several cells, decoders, attentions and sizes."""
    return [
        make_model(seed=1),
        make_model(seed=2, cell="lstm", decoder=KINDS["bahdanau"] | {"hidden_size": 12}, attention="additive"),
        make_model(seed=3, decoder=KINDS["luong with input feeding"], attention="none", encoder={"hidden_size": 6}),
    ]


def test_an_ensemble_of_one_is_its_model():
    model, (source, target) = make_model(), make_batch()
    expected = model(source, LENGTHS, target)

    log_probs, weights = Ensemble([model])(source, LENGTHS, target)

    assert torch.equal(log_probs, expected.logits.log_softmax(-1))
    assert torch.equal(weights, expected.weights)


def test_an_ensemble_of_two_equal_models_is_the_model():
    model, batch = make_model(), make_batch()

    one, two = (Ensemble(models)(batch[0], LENGTHS, batch[1]) for models in ([model], [model, model]))

    torch.testing.assert_close(two, one, rtol=0, atol=1e-12)


def test_probabilities_are_averaged():
    models, (source, target) = make_three(), make_batch()
    probs = [model(source, LENGTHS, target).logits.softmax(-1) for model in models]

    log_probs, _ = Ensemble(models)(source, LENGTHS, target)

    torch.testing.assert_close(log_probs.exp(), sum(probs) / 3, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, T))


def test_attention_weights_are_averaged_over_the_models_that_have_attention():
    models, (source, target) = make_three(), make_batch()
    with_attention = [model(source, LENGTHS, target).weights for model in models[:2]]

    _, weights = Ensemble(models)(source, LENGTHS, target)

    torch.testing.assert_close(weights, sum(with_attention) / 2, rtol=0, atol=1e-12)


def test_there_are_no_weights_if_no_model_has_attention():
    source, target = make_batch()

    _, weights = Ensemble([make_model(seed=seed, attention="none") for seed in (1, 2)])(source, LENGTHS, target)

    assert weights is None


def test_decoding_an_encoded_batch_is_teacher_forcing():
    ensemble, (source, target) = Ensemble(make_three()), make_batch()

    decoded = ensemble.decode(target, ensemble.encode(source, LENGTHS))

    torch.testing.assert_close(decoded, ensemble(source, LENGTHS, target), rtol=0, atol=1e-12)


def test_one_step_after_another_gives_the_log_probabilities_of_teacher_forcing():
    ensemble, (source, target) = Ensemble(make_three()), make_batch()
    expected, _ = ensemble(source, LENGTHS, target)

    encoded = ensemble.encode(source, LENGTHS)
    for step, tokens in enumerate(target.unbind(1)):
        log_probs, encoded = ensemble.step(tokens, encoded)
        torch.testing.assert_close(log_probs, expected[:, step], rtol=0, atol=1e-12)


def test_the_mask_of_an_encoded_batch_is_true_at_real_tokens():
    encoded = Ensemble(make_three()).encode(make_batch()[0], LENGTHS)

    assert torch.equal(encoded.mask, torch.arange(S) < LENGTHS.unsqueeze(1))


def test_sequences_of_an_encoded_batch_can_be_selected_for_all_models():
    ensemble, (source, target) = Ensemble(make_three()), make_batch()
    indices = torch.tensor([2, 0, 0])
    expected, _ = ensemble(source, LENGTHS, target)

    log_probs, _ = ensemble.decode(target[indices], ensemble.encode(source, LENGTHS).select(indices))

    torch.testing.assert_close(log_probs, expected[indices], rtol=0, atol=1e-12)


def test_memory_and_states_can_be_selected_separately():
    encoded = Ensemble(make_three()).encode(make_batch()[0], LENGTHS)
    indices = torch.tensor([3, 1])
    both = encoded.select(indices)

    memory, states = encoded.select_memory(indices), encoded.select_states(indices)

    for before, expected, one, other in zip(encoded.members, both.members, memory.members, states.members, strict=True):
        for part, whole in ((one.memory, expected.memory), (one.state, before.state),
                            (other.memory, before.memory), (other.state, expected.state)):  # fmt: skip
            assert all(torch.equal(*pair) for pair in zip(tensors_of(part), tensors_of(whole), strict=True))


def test_hypotheses_that_share_the_memory_of_their_source_predict_as_if_each_had_its_own():
    ensemble, source = Ensemble(make_three()), make_batch()[0]
    encoded, tokens = ensemble.encode(source, LENGTHS), torch.randint(0, V, (2, B * K))
    of_source = torch.arange(B).repeat_interleave(K)

    shared, expanded = encoded.select_states(of_source), encoded.select(of_source)

    for step in tokens:
        log_probs, shared = ensemble.step(step, shared)
        expected, expanded = ensemble.step(step, expanded)
        torch.testing.assert_close(log_probs, expected, rtol=0, atol=1e-12)


def test_log_probabilities_are_at_least_in_single_precision():
    source, target = make_batch()
    ensemble = Ensemble([make_model().bfloat16()])
    encoded = ensemble.encode(source, LENGTHS)

    log_probs, _ = ensemble.decode(target, encoded)
    of_a_step, _ = ensemble.step(target[:, 0], encoded)

    assert log_probs.dtype == of_a_step.dtype == encoded.dtype == torch.float32
    assert Ensemble([make_model()]).encode(source, LENGTHS).dtype == torch.float64
