"""Search: from an encoded batch to target ids, without the reference.

All searches work on tensors, over all rows and beams at once, and drop rows that are done from the work. Several models
with one target vocabulary search together as an ensemble, by the mean of their probabilities.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.data.vocabulary import BOS, EOS, PAD, UNK
from seq2seq.nn.seq2seq import Encoded, Seq2Seq

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


def encode(models: Sequence[Seq2Seq], source: Tensor, lengths: Tensor) -> list[Encoded]:
    """Encode a padded batch by every model; see `Seq2Seq.encode`."""
    return [model.encode(source, lengths) for model in models]


def step(models: Sequence[Seq2Seq], encoded: Sequence[Encoded], tokens: Tensor) -> tuple[Tensor, list[Encoded]]:
    """Read a token a row, ``(B)``, and return the log-probabilities of the next one, ``(B, V)``, and how to go on."""
    log_probs, after = [], []
    for model, (memory, state) in zip(models, encoded, strict=True):
        output = model.decoder(tokens.unsqueeze(1), memory, state)
        log_probs.append(log_softmax(output.logits[:, -1]))
        after.append(Encoded(memory, output.state))
    return mean(log_probs), after


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities in at least single precision, as half of it could not tell likely symbols apart."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def mean(log_probs: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the models' mean probability."""
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.stack(list(log_probs)).logsumexp(0) - math.log(len(log_probs))


def banned(log_probs: Tensor) -> Tensor:
    """Return log-probabilities ``(B, V)`` with the symbols that are never chosen at minus infinity."""
    log_probs[:, list(BANNED)] = -torch.inf
    return log_probs


def _one_by_one(
    models: Sequence[Seq2Seq], encoded: Sequence[Encoded], max_length: int, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """Let ``choose`` take a symbol of each row of log-probabilities ``(B, V)``, step by step; see `greedy`."""
    mask = encoded[0].memory.mask
    device, batch_size = mask.device, mask.size(0)
    result = torch.full((batch_size, max_length), PAD, device=device)
    rows = torch.arange(batch_size, device=device)  # where the rows still in the work belong
    finished = torch.zeros(batch_size, dtype=torch.bool, device=device)
    tokens = torch.full((batch_size,), BOS, device=device)
    number = 0
    for number in range(max_length):
        log_probs, encoded = step(models, encoded, tokens)
        tokens = choose(banned(log_probs))
        finished |= tokens == EOS
        result[rows, number] = tokens.masked_fill(finished, PAD)
        going = int((~finished).sum())
        if going == 0:
            return result[:, :number]
        if going * 2 <= len(rows):  # finished rows leave the work once they are half of it
            kept = (~finished).nonzero().squeeze(1)
            rows, finished, tokens = rows[kept], finished[kept], tokens[kept]
            encoded = [one.select(kept) for one in encoded]
    return result[:, : number + 1]


@torch.inference_mode()
def greedy(models: Sequence[Seq2Seq], encoded: Sequence[Encoded], max_length: int) -> Tensor:
    """Choose the most probable token at every step.

    A row's result depends on that row alone: it ends at its own end of sequence or after ``max_length`` tokens.

    Args:
        models: Their decoders must be in evaluation mode, or dropout takes part.
        encoded: The source batch, by each model.
        max_length: Most tokens of a row, without the end.

    Returns:
        Token ids without begin and end, padded at the right with ``PAD``, ``(B, T)`` with T of the longest row.
    """
    return _one_by_one(models, encoded, max_length, lambda log_probs: log_probs.argmax(-1))


class Sampling(NamedTuple):
    """How to draw a token.

    Attributes:
        temperature: What log-probabilities are divided by: below 1 the likely becomes likelier.
        top_k: Draw from this many of the most probable symbols only; 0: from all (Fan et al. 2018).
        top_p: Draw from the fewest symbols that have this probability together; 1: from all (Holtzman et al. 2020).

    Example:
        >>> log_probs = torch.tensor([[0.1, 0.6, 0.3]]).log()
        >>> drawn = [int(Sampling(top_k=2)(log_probs, torch.Generator().manual_seed(seed))) for seed in range(50)]
        >>> sorted(set(drawn))
        [1, 2]
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __call__(self, log_probs: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one symbol of each row of ``(B, V)``."""
        best = log_probs.amax(-1, keepdim=True)  # taken off first, or a low temperature would overflow
        probs = ((log_probs - best) / self.temperature).softmax(-1)
        ordered, symbols = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= self.top_p, 0)
        if self.top_k:
            ordered[:, self.top_k :] = 0
        places = torch.multinomial(ordered, 1, generator=generator)
        return symbols.gather(-1, places).squeeze(-1)


@torch.inference_mode()
def sample(
    models: Sequence[Seq2Seq],
    encoded: Sequence[Encoded],
    max_length: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> Tensor:
    """Draw every token from the distribution that the models predict.

    Unlike in the other searches, a row's result depends on the other rows too: they share what is random.

    Args:
        models: As for `greedy`.
        encoded: Likewise.
        max_length: Likewise.
        sampling: From which part of the distribution.
        generator: Its seed decides what is drawn.
    """
    return _one_by_one(models, encoded, max_length, lambda log_probs: sampling(log_probs, generator))


def teacher_forced(models: Sequence[Seq2Seq], encoded: Sequence[Encoded], inputs: Tensor) -> Tensor:
    """Return the log-probabilities of what follows each given token: ``(B, T)`` to ``(B, T, V)``."""
    return mean([log_softmax(model.decoder(inputs, *one).logits) for model, one in zip(models, encoded, strict=True)])


@torch.inference_mode()
def score(models: Sequence[Seq2Seq], encoded: Sequence[Encoded], tokens: Tensor, max_length: int) -> Tensor:
    """Return the log-probability of what a search found, its end included unless it was cut, in nats.

    Args:
        models: As for `greedy`.
        encoded: Likewise.
        tokens: Ids without begin and end, padded with ``PAD``, ``(B, T)``.
        max_length: Of the search; a row of this length was cut.

    Returns:
        ``(B)``.
    """
    lengths = (tokens != PAD).sum(1)
    labels = F.pad(tokens, (0, 1), value=PAD)
    ended = (lengths < max_length).nonzero().squeeze(1)
    labels[ended, lengths[ended]] = EOS
    log_probs = teacher_forced(models, encoded, F.pad(tokens, (1, 0), value=BOS))
    return log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1).masked_fill(labels == PAD, 0).sum(1)


def to_lists(ids: Tensor) -> list[list[int]]:
    """Return the ids of each row of a search's result without its padding."""
    return [[token for token in row if token != PAD] for row in ids.tolist()]
