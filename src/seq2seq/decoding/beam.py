"""Beam search, over all sequences and hypotheses at once."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, EOS, PAD
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded
from seq2seq.decoding.output import SearchOutput, mask_special_tokens


class _Beams(NamedTuple):
    """The hypotheses of the W sequences that are still decoded: up to K live ones each, and the best finished ones.

    Attributes:
        indices: Which sequences of the batch these are, ``(W,)``.
        tokens: The last token of each live hypothesis, ``(W, K)``.
        history: All its tokens, ``(W, K, max_length)``.
        totals: Its log-probability; minus infinity where there is none, ``(W, K)``.
        finished: The N best finished hypotheses.
        ended: Number of finished hypotheses, ``(W,)``.
    """

    indices: Tensor
    tokens: Tensor
    history: Tensor
    totals: Tensor
    finished: SearchOutput
    ended: Tensor

    def select(self, kept: Tensor) -> "_Beams":
        """Return the beams of the given sequences."""
        indices, tokens, history, totals, finished, ended = self
        finished = SearchOutput(*(part[kept] for part in finished))
        return _Beams(indices[kept], tokens[kept], history[kept], totals[kept], finished, ended[kept])


@dataclass(frozen=True)
class Beam:
    """Keep the most probable hypotheses at every step (Sutskever et al. 2014, section 3.2).

    A finished hypothesis keeps its place in the beam, so fewer live ones remain; a beam of 1 is greedy search. A
    sequence is done when no place is left, or when no live hypothesis can still become one of the ``n_best``:
    log-probabilities only fall, and the divisor of ``max_length`` is the largest.

    Attributes:
        max_length: Maximum number of tokens, without the end; longer hypotheses are cut and compete as they are.
        beam_size: Number of hypotheses of a sequence, K.
        n_best: Number of hypotheses that are returned, N.
        normalisation: Divisor of the log-probabilities of finished hypotheses, so that long ones are not at a
            disadvantage: ``gnmt``, ``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14); ``average``, the
            length; or ``none``.
        alpha: Exponent of ``gnmt``.
        stop_early: Whether sequences leave the batch when they are done, which does not change the result.

    Example:
        >>> Beam(max_length=9, beam_size=5, normalisation="gnmt", alpha=1.0).divisor(7)
        2.0
    """

    max_length: int
    beam_size: int
    n_best: int = 1
    normalisation: str = "none"
    alpha: float = 0.0
    stop_early: bool = True

    @torch.inference_mode()
    def __call__(self, ensemble: Ensemble, encoded: EnsembleEncoded) -> SearchOutput:
        """Search for a batch."""
        beams, done = self._start(encoded), []
        for step in range(self.max_length):
            log_probs, encoded = ensemble.step(beams.tokens.flatten(), encoded)
            beams, parents = self._advance(beams, mask_special_tokens(log_probs), step)
            active = self._active(beams)
            if 2 * int(active.sum()) <= len(active):  # enough for moving the others to pay
                done.append(beams.select(~active))
                beams, parents, kept = beams.select(active), parents[active], active.nonzero().squeeze(1)
                encoded = encoded.select_memory(kept)
                if len(kept) == 0:
                    break
            encoded = encoded.select_states(parents.flatten())
        done.append(beams)
        order = torch.cat([one.indices for one in done]).argsort()
        parts = zip(*(one.finished for one in done), strict=True)
        tokens, log_probs, scores = (torch.cat(part)[order] for part in parts)
        length = int((tokens != PAD).any(0).any(0).sum())
        return SearchOutput(tokens[:, :, :length], log_probs, scores)

    def divisor(self, length: int) -> float:
        """Return the divisor for hypotheses of ``length`` tokens, the end included. It grows with the length."""
        return {"gnmt": ((5 + length) / 6) ** self.alpha, "average": float(length), "none": 1.0}[self.normalisation]

    def _start(self, encoded: EnsembleEncoded) -> _Beams:
        """Start each sequence with one hypothesis, as K would all be the same."""
        batch, device = encoded.mask.size(0), encoded.mask.device
        nothing = torch.full((batch, self.n_best), -torch.inf, dtype=encoded.dtype, device=device)
        no_tokens = torch.full((batch, self.n_best, self.max_length), PAD, device=device)
        return _Beams(
            indices=torch.arange(batch, device=device),
            tokens=torch.full((batch, 1), BOS, device=device),
            history=torch.full((batch, 1, self.max_length), PAD, device=device),
            totals=torch.zeros(batch, 1, dtype=encoded.dtype, device=device),
            finished=SearchOutput(no_tokens, nothing, nothing),
            ended=torch.zeros(batch, dtype=torch.long, device=device),
        )

    def _advance(self, beams: _Beams, log_probs: Tensor, step: int) -> tuple[_Beams, Tensor]:
        """Extend all hypotheses by one token and keep the K best of each sequence.

        Args:
            beams: The beams before this step.
            log_probs: Log-probabilities of the next token of each live hypothesis, ``(W * K, V)``.
            step: Number of the step, from 0; at the last one, unfinished hypotheses are cut.

        Returns:
            The beams, and the hypothesis before this step that each comes from, of all ``W * K``, ``(W, K)``.
        """
        count, width = beams.totals.shape
        candidates = beams.totals.unsqueeze(-1) + log_probs.view(count, width, -1)
        totals, chosen = candidates.flatten(1).topk(min(self.beam_size, candidates[0].numel()))
        parents, tokens = chosen // candidates.size(-1), chosen % candidates.size(-1)
        free = self.beam_size - beams.ended.unsqueeze(1)
        totals = totals.masked_fill(torch.arange(totals.size(1), device=free.device) >= free, -torch.inf)
        ends = (tokens == EOS) & (totals > -torch.inf)
        history = take(beams.history, parents)
        history[:, :, step] = tokens.masked_fill(ends, PAD)
        if step + 1 == self.max_length:
            ends = totals > -torch.inf
        finished = self._finish(beams.finished, ends, history, totals, self.divisor(step + 1))
        totals = totals.masked_fill(ends, -torch.inf)
        first = torch.arange(count, device=parents.device).unsqueeze(1) * width
        beams = _Beams(beams.indices, tokens, history, totals, finished, beams.ended + ends.sum(1))
        return beams, first + parents

    def _finish(
        self, finished: SearchOutput, ends: Tensor, history: Tensor, totals: Tensor, divisor: float
    ) -> SearchOutput:
        """Return the N best of the finished hypotheses and of those that end now, marked in ``ends``, ``(W, K)``."""
        log_probs = totals.masked_fill(~ends, -torch.inf)
        tokens = torch.cat([finished.tokens, history.masked_fill(~ends.unsqueeze(-1), PAD)], dim=1)
        scores, best = torch.cat([finished.scores, log_probs / divisor], dim=1).topk(self.n_best)
        log_probs = torch.cat([finished.log_probs, log_probs], dim=1).gather(1, best)
        return SearchOutput(take(tokens, best), log_probs, scores)

    def _active(self, beams: _Beams) -> Tensor:
        """Return which sequences are not done, ``(W,)``."""
        live = beams.totals.amax(1)
        # Both are negative; the best that can follow is certain tokens up to the maximum length.
        return live / self.divisor(self.max_length) > (beams.finished.scores[:, -1] if self.stop_early else -torch.inf)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Return the given hypotheses of each sequence: ``(W, K, T)`` and ``(W, N)`` to ``(W, N, T)``."""
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.size(-1)))
