"""Attention: weights sum to one, are zero at padding, and are what the papers say."""

import pytest
import torch

from seq2seq.nn.attention import ATTENTIONS, build_attention
from seq2seq.nn.normalisers import NORMALISERS, entmax15

LENGTHS = torch.tensor([3, 5, 1, 4])
B, S, T, QUERY, VALUE = 4, 5, 6, 8, 10
KINDS = [kind for kind in ATTENTIONS if kind != "none"]
pytestmark = pytest.mark.usefixtures("float64")


def make(kind, **options):
    """An attention, queries, values and the mask; with ``dot``, queries and values must have one size."""
    torch.manual_seed(0)
    value_size = QUERY if kind == "dot" else VALUE
    attention = build_attention(
        kind, query_size=QUERY, value_size=value_size, **({"num_heads": 2} if kind == "multihead" else {}), **options
    )
    return attention, torch.randn(B, T, QUERY), torch.randn(B, S, value_size), torch.arange(S) < LENGTHS.unsqueeze(1)


def attend(attention, queries, memory):
    """Contexts and weights, also of an attention with a state."""
    start = getattr(attention, "init_state", None)
    return attention(queries, memory, *([start(memory)] if start else []))[:2]


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one_and_are_zero_at_padding(kind, normaliser):
    attention, queries, values, mask = make(kind, normaliser=normaliser)

    contexts, weights = attend(attention, queries, attention.init_memory(values, mask))

    assert contexts.shape == (B, T, attention.context_size)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert not weights.masked_select(~mask.unsqueeze(1)).any()
    if normaliser == "softmax":  # only a sparse one may leave out a token
        assert weights.masked_select(mask.unsqueeze(1)).gt(0).all()


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_values_at_padding_are_never_read(kind, normaliser):
    attention, queries, values, mask = make(kind, normaliser=normaliser)
    large = values.masked_fill(~mask.unsqueeze(-1), 1e6)

    contexts, _ = attend(attention, queries, attention.init_memory(values, mask))
    with_large, _ = attend(attention, queries, attention.init_memory(large, mask))

    assert torch.equal(contexts, with_large)


@pytest.mark.parametrize("kind", ["general", "dot", "additive"])
def test_scores_are_those_of_the_paper_one_pair_at_a_time(kind):
    attention, queries, values, mask = make(kind)
    sequence, step = 1, 2  # a sequence without padding
    query = queries[sequence, step]
    score = {
        "dot": lambda value: query @ value,
        "general": lambda value: query @ attention.key.weight @ value,
        "additive": lambda value: (
            attention.score.weight[0]
            @ torch.tanh(attention.query.weight @ query + attention.key.weight @ value + attention.key.bias)
        ),
    }[kind]
    expected = torch.stack([score(value) for value in values[sequence]]).softmax(0)

    contexts, weights = attention(queries, attention.init_memory(values, mask))

    torch.testing.assert_close(weights[sequence, step], expected)
    torch.testing.assert_close(contexts[sequence, step], expected @ values[sequence])


def test_coverage_is_the_sum_of_the_weights_so_far_and_enters_the_scores():
    attention, queries, values, mask = make("coverage")
    memory, sequence = attention.init_memory(values, mask), 1  # without padding
    before = torch.rand(B, S)

    contexts, weights, after = attention(queries[:, :2], memory, before)

    coverage = before[sequence]
    for step in range(2):
        sums = attention.query(queries[sequence, step]) + attention.key(values[sequence])
        scores = torch.tanh(sums + coverage.outer(attention.coverage.weight[:, 0])) @ attention.score.weight[0]
        torch.testing.assert_close(weights[sequence, step], scores.softmax(0))
        torch.testing.assert_close(contexts[sequence, step], scores.softmax(0) @ values[sequence])
        coverage = coverage + scores.softmax(0)
    torch.testing.assert_close(after[sequence], coverage)


def test_multihead_attention_agrees_with_pytorch():
    # nn.MultiheadAttention has the same parts under other names: a second implementation.
    attention, queries, values, mask = make("multihead")
    theirs = torch.nn.MultiheadAttention(QUERY, 2, bias=False, kdim=VALUE, vdim=VALUE, batch_first=True)
    for ours, name in zip((attention.query, attention.key, attention.value), "qkv", strict=True):
        getattr(theirs, f"{name}_proj_weight").data = ours.weight.data
    theirs.out_proj.weight.data = attention.join.weight.data

    contexts, weights = attention(queries, attention.init_memory(values, mask))

    expected, expected_weights = theirs(queries, values, values, key_padding_mask=~mask)
    torch.testing.assert_close(contexts, expected)
    torch.testing.assert_close(weights, expected_weights)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_the_memory_of_a_sequence_can_be_selected(kind):
    attention, queries, values, mask = make(kind)
    indices = torch.tensor([2, 0, 0, 3, 1])
    memory = attention.init_memory(values, mask)

    selected = memory.select(indices)

    expected, _ = attend(attention, queries, memory)
    contexts, _ = attend(attention, queries[indices], selected)
    torch.testing.assert_close(contexts, expected[indices])
    assert torch.equal(selected.mask, mask[indices])


def test_the_number_of_heads_must_divide_the_size_of_the_queries():
    with pytest.raises(
        ValueError, match=r"^model\.attention\.num_heads=3 must .* divides model\.decoder\.hidden_size=8$"
    ):
        build_attention("multihead", query_size=8, value_size=14, num_heads=3)


def test_without_attention_there_are_no_weights_and_contexts_are_empty():
    attention, queries, values, mask = make("none")

    contexts, weights = attention(queries, attention.init_memory(values, mask))

    assert weights is None
    assert contexts.shape == (B, T, 0)


@pytest.mark.parametrize("kind", ["general", "dot", "additive"])
def test_a_sparse_attention_normalises_the_same_scores(kind):
    attention, queries, values, mask = make(kind)
    sparse, *_ = make(kind, normaliser="entmax15")
    memory = attention.init_memory(values, mask)

    _, weights = attention(queries[:1], memory.select(torch.tensor([1])))  # a sequence without padding
    contexts, sparse_weights = sparse(queries[:1], memory.select(torch.tensor([1])))

    torch.testing.assert_close(sparse_weights, entmax15(weights.log()))  # a constant, the logarithm's, changes nothing
    torch.testing.assert_close(contexts, sparse_weights @ values[1:2])


def test_an_unknown_normaliser_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"model\.attention\.normaliser=max must be one of softmax, entmax15"):
        make("general", normaliser="max")


def test_dot_refuses_sizes_that_differ():
    with pytest.raises(
        ValueError,
        match=r"^model\.decoder\.hidden_size=6 does not fit model\.attention=dot, .*, 14; use general, additive or 14$",
    ):
        build_attention("dot", query_size=6, value_size=14)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=f"^model.attention=generl must be one of {', '.join(ATTENTIONS)}$"):
        build_attention("generl", query_size=6, value_size=14)
