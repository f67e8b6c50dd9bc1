"""Greedy search and sampling: the same as one row at a time, as far as each row's own end."""

import pytest
import torch
from conftest import LUONG

from seq2seq.data import BOS, EOS, PAD, UNK
from seq2seq.decoding.greedy import BANNED, Sampling, greedy, sample, score, to_lists
from seq2seq.nn import build_model

B, S, V = 16, 7, 11
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model():
    torch.manual_seed(5)
    part = {"cell": "lstm", "embedding_size": 8, "hidden_size": 10, "num_layers": 2}
    made = build_model(
        source_size=V, target_size=V, encoder=part | {"bidirectional": True}, decoder=part | LUONG, bridge="linear",
        attention="general", num_heads=1, dropout=0.0,
    )  # fmt: skip
    with torch.no_grad():  # large weights, so that rows differ and end at different steps
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def make_source():
    torch.manual_seed(1)
    return torch.randint(4, V, (B, S)), torch.randint(1, S + 1, (B,))


def one_by_one(model, source, length, max_length):
    """A row alone, with the whole prefix decoded anew at every step."""
    tokens = [BOS]
    while len(tokens) <= max_length:
        logits = model(source[:, :length], torch.tensor([length]), torch.tensor([tokens])).logits[0, -1]
        logits[list(BANNED)] = -torch.inf
        best = int(logits.argmax())
        if best == EOS:
            break
        tokens.append(best)
    return tokens[1:]


@torch.no_grad()
@pytest.mark.parametrize("max_length", [1, 4, 12])
def test_a_batch_gives_what_each_row_gives_alone(model, max_length):
    source, lengths = make_source()

    decoded = to_lists(greedy([model], [model.encode(source, lengths)], max_length))

    alone = [one_by_one(model, source[row : row + 1], int(lengths[row]), max_length) for row in range(B)]
    assert decoded == alone
    assert max_length < 12 or len({len(row) for row in decoded}) > 3  # rows end at many steps, so they left the work


def test_no_row_is_longer_than_the_limit(model):
    decoded = greedy([model], [model.encode(*make_source())], 3)

    assert decoded.shape == (B, 3)


def test_a_row_that_ends_at_once_is_empty(model):
    with torch.no_grad():
        model.decoder.predict.bias[EOS] = 1e3

    assert to_lists(greedy([model], [model.encode(*make_source())], 5)) == [[]] * B


@pytest.mark.parametrize("symbol", [PAD, BOS, UNK])
def test_a_symbol_that_no_text_is_written_with_is_never_chosen(model, symbol):
    with torch.no_grad():
        model.decoder.predict.bias[symbol] = 1e3

    decoded = to_lists(greedy([model], [model.encode(*make_source())], 5))

    assert any(decoded)
    assert all(symbol not in row for row in decoded)


# Sampling


def draw(sampling, probs, count=20_000):
    generator = torch.Generator().manual_seed(0)
    drawn = sampling(torch.tensor(probs).log().expand(count, -1).clone(), generator)
    return drawn.bincount(minlength=len(probs)) / count


PROBS = [0.5, 0.25, 0.15, 0.07, 0.03]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), PROBS),
        (Sampling(temperature=0.5), [prob**2 / 0.3408 for prob in PROBS]),
        (Sampling(top_k=2), [2 / 3, 1 / 3, 0, 0, 0]),
        (Sampling(top_p=0.74), [2 / 3, 1 / 3, 0, 0, 0]),  # the fewest that have 0.74 together
        (Sampling(top_p=0.76), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0, 0]),
        (Sampling(top_k=1), [1, 0, 0, 0, 0]),
        (Sampling(top_p=1e-9), [1, 0, 0, 0, 0]),
    ],
)
def test_frequencies_are_the_probabilities(sampling, expected):
    # Each of up to five frequencies of 20,000 draws lies within 4.5 standard deviations of its probability but for
    # 7 in a million: a false alarm in fewer than 3 of 10,000 choices of the seed, which is fixed here.
    drawn, expected = draw(sampling, PROBS), torch.tensor(expected)

    assert ((drawn - expected).abs() <= 4.5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-12).all()


def test_what_is_drawn_depends_on_the_seed_alone(model):
    def run(seed):
        encoded = [model.encode(*make_source())]
        return to_lists(sample([model], encoded, 6, Sampling(), torch.Generator().manual_seed(seed)))

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert all(set(row).isdisjoint(BANNED) for row in run(1))


def test_drawing_from_the_most_probable_alone_is_greedy_search(model):
    encoded = [model.encode(*make_source())]

    drawn = sample([model], encoded, 6, Sampling(top_k=1), torch.Generator().manual_seed(0))

    assert torch.equal(drawn, greedy([model], encoded, 6))


def test_a_cut_row_is_scored_without_an_end(model):
    source, lengths = make_source()
    encoded = [model.encode(source, lengths)]
    tokens = torch.tensor([[4, 5, PAD], [4, 5, 6]] * 8)

    scores = score([model], encoded, tokens, max_length=3)

    for row, target in enumerate(([4, 5, EOS], [4, 5, 6])):
        inputs = torch.tensor([[BOS, *target[:2]]])
        log_probs = (
            model(source[row : row + 1, : lengths[row]], lengths[row : row + 1], inputs).logits[0].log_softmax(-1)
        )
        torch.testing.assert_close(scores[row], log_probs[torch.arange(3), torch.tensor(target)].sum())
