"""Search: from an encoded batch to target ids, without the reference."""

from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, EOS, PAD, UNK
from seq2seq.nn.model import Encoded, Seq2Seq

BANNED = (PAD, BOS, UNK)
"""Symbols that no text is written with; a search never chooses them."""


class Alignment(NamedTuple):
    """Where the decoder looked.

    Attributes:
        source: Source tokens, S of them.
        target: Predicted tokens and, unless the prediction was cut, the end; T of them.
        weights: Attention, ``(T, S)``.
    """

    source: list[str]
    target: list[str]
    weights: Tensor


@torch.inference_mode()
def greedy(model: Seq2Seq, encoded: Encoded, max_length: int) -> Tensor:
    """Choose the most probable token at every step.

    A row's result depends on that row alone: it ends at its own end of sequence or after ``max_length`` tokens, and
    finished rows leave the work once they are half of it.

    Args:
        model: The decoder must be in evaluation mode, or dropout takes part.
        encoded: The source batch.
        max_length: Most tokens of a row, without the end.

    Returns:
        Token ids without begin and end, padded at the right with ``PAD``, ``(B, T)`` with T of the longest row.
    """
    device = encoded.memory.mask.device
    batch_size = encoded.memory.mask.size(0)
    result = torch.full((batch_size, max_length), PAD, device=device)
    rows = torch.arange(batch_size, device=device)  # where the rows still in the work belong
    finished = torch.zeros(batch_size, dtype=torch.bool, device=device)
    tokens = torch.full((batch_size, 1), BOS, device=device)
    memory, state = encoded
    step = 0
    for step in range(max_length):
        output = model.decoder(tokens, memory, state)
        state = output.state
        logits = output.logits[:, -1]
        logits[:, list(BANNED)] = -torch.inf
        chosen = logits.argmax(-1)
        finished |= chosen == EOS
        result[rows, step] = chosen.masked_fill(finished, PAD)
        tokens = chosen.unsqueeze(1)
        going = int((~finished).sum())
        if going == 0:
            return result[:, :step]
        if going * 2 <= len(rows):
            kept = (~finished).nonzero().squeeze(1)
            rows, finished, tokens = rows[kept], finished[kept], tokens[kept]
            memory, state = Encoded(memory, state).select(kept)
    return result[:, : step + 1]


def to_lists(ids: Tensor) -> list[list[int]]:
    """Return the ids of each row of a search's result without its padding."""
    return [[token for token in row if token != PAD] for row in ids.tolist()]
