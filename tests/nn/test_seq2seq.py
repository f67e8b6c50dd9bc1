"""Encoder, bridge and decoder joined: any split of the target gives the same, and what does not fit is refused."""

import pytest
import torch
from conftest import KINDS, make_model, tensors_of
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.nn.attention import ATTENTIONS
from seq2seq.nn.bridge import BRIDGES

LENGTHS = torch.tensor([3, 5, 1, 4])
FEATURES = torch.tensor([[4, 5, 6], [5, 0, 0], [0, 0, 0], [6, 4, 0]])  # three, one, none and two of them
B, S, T, V = 4, 5, 6, 9
CELLS = ["gru", "lstm"]
pytestmark = pytest.mark.usefixtures("float64")


def build(**changes):
    """A model that reads features."""
    return make_model(features_size=7, **changes)


def make_batch():
    torch.manual_seed(1)
    return torch.randint(0, 10, (B, S)), torch.randint(0, V, (B, T))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@given(cuts=st.sets(st.integers(1, T - 1)), layers=st.integers(1, 3), tied=st.booleans(), fast=st.booleans())
@settings(max_examples=10)
def test_any_split_of_the_target_gives_the_same_as_all_tokens_at_once(kind, cell, attention, cuts, layers, tied, fast):
    layers += kind == "gnmt"  # which has at least two
    decoder = KINDS[kind] | {"num_layers": layers, "tied": tied}
    model, (source, target) = build(cell=cell, attention=attention, decoder=decoder, fast=fast), make_batch()
    memory, state = model.encode(source, LENGTHS, FEATURES)
    at_once = model(source, LENGTHS, target, FEATURES)

    pieces = []
    for piece in target.tensor_split(sorted(cuts), dim=1):
        pieces.append(model.decoder(piece, memory, state))
        state = pieces[-1].state

    assert at_once.logits.shape == (B, T, V)
    torch.testing.assert_close(torch.cat([p.logits for p in pieces], 1), at_once.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(tensors_of(state), tensors_of(at_once.state), rtol=0, atol=1e-12)
    if at_once.weights is not None:
        torch.testing.assert_close(torch.cat([p.weights for p in pieces], 1), at_once.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_step_after_another_gives_the_logits_of_teacher_forcing(kind, cell, attention):
    model, (source, target) = build(cell=cell, attention=attention, decoder=KINDS[kind]), make_batch()
    expected = model(source, LENGTHS, target, FEATURES).logits

    encoded = model.encode(source, LENGTHS, FEATURES)
    for step, tokens in enumerate(target.unbind(1)):
        logits, encoded = model.step(tokens, encoded)
        torch.testing.assert_close(logits, expected[:, step], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bridge", ["linear", "concat", "top", "learned", "zeros"])
@pytest.mark.parametrize("decoder_cell", CELLS)
@pytest.mark.parametrize("encoder_cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_alone_gives_the_logits_that_it_gives_in_a_batch(kind, encoder_cell, decoder_cell, bridge):
    decoder = KINDS[kind] | {"cell": decoder_cell}
    model = build(bridge=bridge, encoder={"cell": encoder_cell}, decoder=decoder)
    source, target = make_batch()
    together = model(source, LENGTHS, target, FEATURES)

    for index, (length, count) in enumerate(zip(LENGTHS.tolist(), (FEATURES > 0).sum(1).tolist(), strict=True)):
        one = slice(index, index + 1)
        alone = model(source[one, :length], LENGTHS[one], target[one], FEATURES[one, :count])
        torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=0, atol=1e-12)
        seen = [*range(length), *range(S, S + count)]  # tokens, and features behind the padded source
        torch.testing.assert_close(together.weights[index][:, seen], alone.weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_an_encoded_batch_can_be_selected(kind, attention):
    model = build(cell="lstm", attention=attention, decoder=KINDS[kind])
    source, target = make_batch()
    indices = torch.tensor([2, 0, 0])
    expected = model(source, LENGTHS, target, FEATURES).logits[indices]

    selected = model.encode(source, LENGTHS, FEATURES).select(indices)

    torch.testing.assert_close(model.decoder(target[indices], *selected).logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_can_be_selected_after_any_token(kind, attention):
    model = build(cell="lstm", attention=attention, decoder=KINDS[kind])
    source, target = make_batch()
    indices = torch.tensor([3, 1])
    expected = model(source, LENGTHS, target, FEATURES).logits[indices, 1]

    _, encoded = model.step(target[:, 0], model.encode(source, LENGTHS, FEATURES))
    logits, _ = model.step(target[indices, 1], encoded.select(indices))

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
@given(hypotheses=st.integers(1, 4), steps=st.integers(1, T))
@settings(max_examples=10)
def test_hypotheses_that_share_the_memory_of_their_source_attend_as_if_each_had_its_own(
    kind, attention, hypotheses, steps
):
    model = build(attention=attention, decoder=KINDS[kind])
    memory, state = model.encode(make_batch()[0], LENGTHS, FEATURES)
    targets = torch.randint(0, V, (B * hypotheses, steps))
    of_source = torch.arange(B).repeat_interleave(hypotheses)  # those of a source stand side by side
    state = state.select(of_source)

    shared = model.decoder(targets, memory, state)
    expanded = model.decoder(targets, memory.select(of_source), state)

    torch.testing.assert_close(shared.logits, expanded.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(tensors_of(shared.state), tensors_of(expanded.state), rtol=0, atol=1e-12)
    if attention != "none":
        torch.testing.assert_close(shared.weights, expanded.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_in_half_precision(kind, cell, fast, bridge):
    torch.set_default_dtype(torch.float32)
    model = build(cell=cell, bridge=bridge, decoder=KINDS[kind], fast=fast)
    source, target = make_batch()

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(source, LENGTHS, target, FEATURES).logits

    torch.testing.assert_close(logits.float(), model(source, LENGTHS, target, FEATURES).logits, rtol=0, atol=0.05)
    logits.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_of_the_target_is_not_seen(kind):
    model, (source, target) = build(decoder=KINDS[kind]), make_batch()
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V

    one, other = model(source, LENGTHS, target, FEATURES), model(source, LENGTHS, changed, FEATURES)

    assert torch.equal(one.logits[:, :3], other.logits[:, :3])
    assert not torch.isclose(one.logits[:, 3:], other.logits[:, 3:]).all(dim=-1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_without_attention_the_source_reaches_the_decoder_by_its_state(kind):
    # With attention off, the handed-over state is all that is left of the source.
    model, (source, target) = build(attention="none", decoder=KINDS[kind]), make_batch()

    one, other = model(source, LENGTHS, target, FEATURES), model((source + 1) % 10, LENGTHS, target, FEATURES)

    assert not torch.isclose(one.logits, other.logits).all(dim=-1).any()


# What does not fit is refused, by the names of our arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bridge": "concat", "decoder": {"hidden_size": 128}},
         r"model\.decoder\.hidden_size=128 does not fit model\.bridge=concat, "
         r"which needs 2 x model\.encoder\.hidden_size=7 = 14; "
         r"use model\.bridge=linear\|top\|learned\|zeros or model\.decoder\.hidden_size=14"),
        ({"bridge": "mean", "decoder": {"hidden_size": 14}},
         r"model\.decoder\.hidden_size=14 does not fit model\.bridge=mean, "
         r"which needs 1 x model\.encoder\.hidden_size=7 = 7; "
         r"use model\.bridge=linear\|concat\|top\|learned\|zeros or model\.decoder\.hidden_size=7"),
        ({"bridge": "liner"}, r"model\.bridge=liner must be one of linear, concat, mean, top, learned, zeros(, .*)?"),
        ({"encoder": {"cell": "rnn"}}, r"cell=rnn must be one of gru, lstm"),
        ({"decoder": {"cell": "GRU"}}, r"cell=GRU must be one of gru, lstm"),
        ({"attention": "dots"}, r"model\.attention=dots must be one of general, dot, additive, multihead, none(, .*)?"),
        ({"attention": "dot", "decoder": {"hidden_size": 6}},
         r"model\.decoder\.hidden_size=6 does not fit model\.attention=dot, "
         r"which needs the size of the encoder's outputs, 14; "
         r"use general, additive or 14"),
        ({"attention": {"name": "multihead", "num_heads": 3}},
         r"model\.attention\.num_heads=3 must be a whole number that divides model\.decoder\.hidden_size=14"),
        ({"decoder": {"kind": "loung"}}, r"model\.decoder\.kind=loung must be one of luong, gnmt, bahdanau(, .*)?"),
        ({"decoder": {"kind": "gnmt", "input_feeding": True}},
         r"model\.decoder\.input_feeding=true does not fit model\.decoder\.kind=gnmt; use luong or false"),
        ({"decoder": {"kind": "gnmt", "num_layers": 1}},
         r"model\.decoder\.num_layers=1 does not fit model\.decoder\.kind=gnmt, which needs at least 2; "
         r"use more layers, or another decoder, such as luong"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_argument_and_value(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_model(**changes)
