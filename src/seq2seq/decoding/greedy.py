"""Greedy search, and the loop over tokens that it shares with sampling."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, EOS, PAD
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded
from seq2seq.decoding.output import SearchOutput, mask_special_tokens


@dataclass(frozen=True)
class Greedy:
    """Choose the most probable token at every step.

    A sequence's result depends on that sequence alone: it ends at its own end or after ``max_length`` tokens.
    """

    max_length: int
    n_best = 1  # a hypothesis for each source

    @torch.inference_mode()
    def __call__(self, ensemble: Ensemble, encoded: EnsembleEncoded) -> SearchOutput:
        """Search for a batch."""
        tokens, log_probs = generate(ensemble, encoded, self.max_length, lambda log_probs: log_probs.argmax(-1))
        return SearchOutput(tokens.unsqueeze(1), log_probs.unsqueeze(1), log_probs.unsqueeze(1))


def generate(
    ensemble: Ensemble, encoded: EnsembleEncoded, max_length: int, choose: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Generate at most ``max_length`` tokens, without the end, by an ensemble in evaluation mode.

    ``choose`` takes the log-probabilities of the next token, ``(B', V)``, and returns the tokens, ``(B',)``.

    Returns:
        Ids without begin and end, padded with ``PAD``, ``(B, T)``, and the log-probability of each sequence, ``(B,)``.
    """
    batch, device = encoded.mask.size(0), encoded.mask.device
    result = torch.full((batch, max_length), PAD, device=device)
    totals = torch.zeros(batch, dtype=encoded.dtype, device=device)
    indices = torch.arange(batch, device=device)  # the sequences that are still decoded
    tokens = torch.full((batch,), BOS, device=device)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)
    length = 0
    while length < max_length:
        log_probs, encoded = ensemble.step(tokens, encoded)
        tokens = choose(mask_special_tokens(log_probs))
        chosen = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
        totals[indices] += chosen.masked_fill(finished, 0)
        finished |= tokens == EOS
        result[indices, length] = tokens.masked_fill(finished, PAD)
        active = int((~finished).sum())
        if active == 0:
            break
        length += 1
        if 2 * active <= len(indices):  # finished sequences leave the batch once they are half of it
            kept = (~finished).nonzero().squeeze(1)
            indices, finished, tokens, encoded = indices[kept], finished[kept], tokens[kept], encoded.select(kept)
    return result[:, :length], totals
