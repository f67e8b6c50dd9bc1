"""Attention: weights sum to one, are zero on padding, and are what the papers say."""

import pytest
import torch

from seq2seq.errors import UserError
from seq2seq.nn.attention import ATTENTIONS, build_attention

LENGTHS = torch.tensor([3, 5, 1, 4])
B, S, T, QUERY, VALUE = 4, 5, 6, 8, 8  # dot needs equal sizes
KINDS = ["general", "dot", "additive", "multihead"]
pytestmark = pytest.mark.usefixtures("float64")


def make(kind):
    torch.manual_seed(0)
    attention = build_attention(kind, query_size=QUERY, value_size=VALUE, num_heads=2)
    values, queries = torch.randn(B, S, VALUE), torch.randn(B, T, QUERY)
    mask = torch.arange(S) < LENGTHS.unsqueeze(1)
    return attention, queries, attention.remember(values, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one_and_are_zero_on_padding(kind):
    attention, queries, memory = make(kind)

    contexts, weights = attention(queries, memory)

    assert contexts.shape == (B, T, VALUE)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert not weights.masked_select(~memory.mask.unsqueeze(1)).any()
    assert weights.masked_select(memory.mask.unsqueeze(1)).gt(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind):
    attention, queries, memory = make(kind)
    torch.manual_seed(2)
    outputs = torch.randn(B, S, VALUE)
    loud = outputs.masked_fill(~memory.mask.unsqueeze(-1), 1e6)

    contexts, _ = attention(queries, attention.remember(outputs, memory.mask))
    with_noise, _ = attention(queries, attention.remember(loud, memory.mask))

    assert torch.equal(contexts, with_noise)


@pytest.mark.parametrize("kind", ["general", "dot", "additive"])
def test_scores_are_those_of_the_paper_one_pair_at_a_time(kind):
    attention, queries, memory = make(kind)
    row, step = 1, 2  # a row without padding
    query = queries[row, step]
    score = {
        "dot": lambda value: query @ value,
        "general": lambda value: query @ attention.key.weight @ value,
        "additive": lambda value: (
            attention.score.weight[0]
            @ torch.tanh(attention.query.weight @ query + attention.key.weight @ value + attention.key.bias)
        ),
    }[kind]
    expected = torch.stack([score(value) for value in memory.values[row]]).softmax(0)

    contexts, weights = attention(queries, memory)

    torch.testing.assert_close(weights[row, step], expected)
    torch.testing.assert_close(contexts[row, step], expected @ memory.values[row])


def test_multihead_agrees_with_pytorchs_own():
    # nn.MultiheadAttention has the same parts under other names: a second implementation.
    attention, queries, _ = make("multihead")
    torch.manual_seed(2)
    outputs, mask = torch.randn(B, S, VALUE), torch.arange(S) < LENGTHS.unsqueeze(1)
    theirs = torch.nn.MultiheadAttention(QUERY, 2, bias=False, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]).data
    theirs.out_proj.weight.data = attention.join.weight.data

    contexts, weights = attention(queries, attention.remember(outputs, mask))

    expected, expected_weights = theirs(queries, outputs, outputs, key_padding_mask=~mask)
    torch.testing.assert_close(contexts, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(
        UserError, match=r"model\.num_heads=3 must divide model\.decoder\.hidden_size=8, with model\.att"
    ):
        build_attention("multihead", query_size=8, value_size=14, num_heads=3)

    with pytest.raises(UserError, match=r"model\.num_heads=0 must be a whole number of at least 1"):
        build_attention("multihead", query_size=8, value_size=14, num_heads=0)


def test_none_has_no_weights_and_an_empty_context():
    attention, queries, memory = make("none")

    contexts, weights = attention(queries, memory)

    assert weights is None
    assert contexts.shape == (B, T, 0)


def test_dot_refuses_sizes_that_differ():
    with pytest.raises(UserError, match=r"model\.decoder\.hidden_size=6 .* model\.attention=dot, .* 14; use general"):
        build_attention("dot", query_size=6, value_size=14, num_heads=1)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=f"model.attention=generl must be one of {', '.join(ATTENTIONS)}"):
        build_attention("generl", query_size=6, value_size=14, num_heads=1)
