"""Greedy search: the same as one row at a time, as far as each row's own end."""

import pytest
import torch
from conftest import LUONG

from seq2seq.data import BOS, EOS, PAD, UNK
from seq2seq.nn import build_model
from seq2seq.search import BANNED, greedy, to_lists

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
