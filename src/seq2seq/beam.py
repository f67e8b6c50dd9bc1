"""Beam search, over all rows and beams at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, EOS, PAD
from seq2seq.nn.model import Encoded, Seq2Seq
from seq2seq.search import banned, step

NORMALISATIONS = ("gnmt", "average", "none")


class Found(NamedTuple):
    """What a search has found, N hypotheses for each row, the best first.

    Attributes:
        tokens: Ids without begin and end, padded at the right with ``PAD``, ``(B, N, T)``.
        log_probs: Of each whole hypothesis, its end included unless it was cut, in nats, ``(B, N)``; minus infinity
            where there are fewer than N hypotheses.
        scores: What they are ordered by: the log-probabilities, normalised by length, ``(B, N)``.
    """

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor


class LengthNormalisation(NamedTuple):
    """What log-probabilities are divided by, so that long hypotheses are not at a disadvantage.

    Attributes:
        kind: ``gnmt``, ``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14); ``average``, the length; or
            ``none``.
        alpha: Of ``gnmt``.
    """

    kind: str
    alpha: float = 0.0

    def __call__(self, lengths: Tensor) -> Tensor:
        """Return the divisor of hypotheses of these lengths, in tokens, the end included. It grows with the length."""
        if self.kind == "gnmt":
            return ((5 + lengths) / 6) ** self.alpha
        return lengths.double() if self.kind == "average" else torch.ones_like(lengths, dtype=torch.double)


NOT_NORMALISED = LengthNormalisation("none")


class _Pool(NamedTuple):
    """Hypotheses that have ended, of W rows, in K places and one more for what is thrown away.

    Attributes:
        tokens: ``(W, K + 1, max_length)``.
        log_probs: ``(W, K + 1)``.
        scores: ``(W, K + 1)``.
        taken: Places in use, ``(W)``.
    """

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor
    taken: Tensor

    def add(self, which: Tensor, tokens: Tensor, log_probs: Tensor, scores: Tensor) -> "_Pool":
        """Put those of K hypotheses that ``which``, ``(W, K)``, names into the next places."""
        dump = self.scores.size(1) - 1
        places = torch.where(which, self.taken.unsqueeze(1) + which.cumsum(1) - 1, dump)
        return _Pool(
            self.tokens.scatter(1, places.unsqueeze(-1).expand_as(tokens), tokens),
            self.log_probs.scatter(1, places, log_probs).index_fill(1, places.new_tensor(dump), -torch.inf),
            self.scores.scatter(1, places, scores).index_fill(1, places.new_tensor(dump), -torch.inf),
            self.taken + which.sum(1),
        )

    def best(self, number: int) -> Found:
        """Return the best hypotheses of each row, in order."""
        scores, places = self.scores.topk(number)
        tokens = self.tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, self.tokens.size(-1)))
        return Found(tokens, self.log_probs.gather(1, places), scores)


@torch.inference_mode()
def beam(
    models: Sequence[Seq2Seq],
    encoded: Sequence[Encoded],
    max_length: int,
    *,
    beam_size: int,
    n_best: int,
    normalisation: LengthNormalisation,
    stop_early: bool = True,
) -> Found:
    """Keep the most probable beginnings at every step (Sutskever et al. 2014, section 3.2).

    A hypothesis that ends keeps its place in the beam, which so narrows for the others; a beam of 1 is greedy search.
    A row is done when no place is left, or when no beginning can still reach the ``n_best`` of those that have ended:
    a log-probability only falls, and at best is divided by the divisor of the greatest length.

    Args:
        models: As for `greedy`.
        encoded: Likewise.
        max_length: Likewise; what has not ended by then is cut, and competes as it is.
        beam_size: Hypotheses of a row, K.
        n_best: How many of them are returned, N.
        normalisation: What orders those that have ended.
        stop_early: Whether rows leave when they are done, which does not change the result.
    """
    mask = encoded[0].memory.mask
    device, batch_size = mask.device, mask.size(0)
    places = torch.arange(beam_size, device=device)
    rows = torch.arange(batch_size, device=device)  # where the W rows still in the work belong
    encoded = [one.select(rows.repeat_interleave(beam_size)) for one in encoded]
    tokens = torch.full((batch_size * beam_size,), BOS, device=device)
    history = torch.full((batch_size, beam_size, max_length), PAD, device=device)
    totals = torch.full((batch_size, beam_size), -torch.inf, device=device)
    totals[:, 0] = 0  # all beams would be the same at first
    pool = _Pool(
        torch.full((batch_size, beam_size + 1, max_length), PAD, device=device),
        torch.full((batch_size, beam_size + 1), -torch.inf, device=device),
        torch.full((batch_size, beam_size + 1), -torch.inf, device=device),
        torch.zeros(batch_size, dtype=torch.long, device=device),
    )
    longest = normalisation(torch.tensor(max_length, device=device)).to(totals)
    found = pool.best(n_best)
    for number in range(max_length):
        log_probs, encoded = step(models, encoded, tokens)
        totals = totals.to(log_probs.dtype)
        candidates = totals.unsqueeze(-1) + banned(log_probs).view(len(rows), beam_size, -1)
        totals, chosen = candidates.flatten(1).topk(beam_size)
        parents, symbols = chosen // candidates.size(-1), chosen % candidates.size(-1)
        totals = totals.masked_fill(places >= beam_size - pool.taken.unsqueeze(1), -torch.inf)
        ends = (symbols == EOS) & (totals > -torch.inf)
        history = history.gather(1, parents.unsqueeze(-1).expand_as(history))
        divisor = normalisation(torch.tensor(number + 1, device=device)).to(totals)
        pool = pool.add(ends, history, totals, totals / divisor)
        totals = totals.masked_fill(ends, -torch.inf)
        history[:, :, number] = symbols.masked_fill(totals == -torch.inf, PAD)
        if number + 1 == max_length:  # cut
            pool = pool.add(totals > -torch.inf, history, totals, totals / divisor)
        going = (totals > -torch.inf).any(1) & (number + 1 < max_length)
        if stop_early:
            going &= totals.amax(1) / longest > pool.scores.topk(n_best).values[:, -1]
        count = int(going.sum())
        if count * 2 <= len(rows):  # rows leave, with what they have found
            for whole, part in zip(found, pool.best(n_best), strict=True):
                whole[rows] = part.to(whole.dtype)
        if count == 0:
            break
        order = (torch.arange(len(rows), device=device).unsqueeze(1) * beam_size + parents).flatten()
        tokens = symbols.flatten()
        if count * 2 > len(rows):
            encoded = [one._replace(state=one.state.select(order)) for one in encoded]  # the memory is the row's
            continue
        kept = going.nonzero().squeeze(1)
        order = order.view(-1, beam_size)[kept].flatten()
        encoded = [one.select(order) for one in encoded]
        rows, history, totals, tokens = (
            rows[kept],
            history[kept],
            totals[kept],
            tokens.view(-1, beam_size)[kept].flatten(),
        )
        pool = _Pool(*(part[kept] for part in pool))
    steps = int((found.tokens != PAD).any(0).any(0).sum())
    return found._replace(tokens=found.tokens[:, :, :steps])
