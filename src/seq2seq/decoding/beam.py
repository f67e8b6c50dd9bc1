"""Beam search, over all rows and beams at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seq2seq.data.vocabulary import BOS, EOS, PAD
from seq2seq.decoding.greedy import banned, step
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.seq2seq import Encoded, Seq2Seq

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

    Example:
        >>> LengthNormalisation("gnmt", alpha=1.0)(torch.tensor([1, 7]))
        tensor([1., 2.])
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


class _Beams(NamedTuple):
    """The K hypotheses of each of the W rows that are still in the work, and what those rows have ended.

    Attributes:
        rows: Where they belong in the batch, ``(W)``.
        tokens: The last token of each, ``(W, K)``.
        history: All tokens, ``(W, K, max_length)``.
        totals: Log-probabilities; minus infinity at places that are not in use, ``(W, K)``.
        pool: Of the same rows.
    """

    rows: Tensor
    tokens: Tensor
    history: Tensor
    totals: Tensor
    pool: _Pool

    @classmethod
    def start(cls, rows: Tensor, beam_size: int, max_length: int, dtype: torch.dtype) -> "_Beams":
        """Begin every row with one hypothesis, as all would be the same at first."""
        count, device = len(rows), rows.device
        totals = torch.full((count, beam_size), -torch.inf, dtype=dtype, device=device)
        totals[:, 0] = 0
        pool = _Pool(
            torch.full((count, beam_size + 1, max_length), PAD, device=device),
            torch.full((count, beam_size + 1), -torch.inf, dtype=dtype, device=device),
            torch.full((count, beam_size + 1), -torch.inf, dtype=dtype, device=device),
            torch.zeros(count, dtype=torch.long, device=device),
        )
        history = torch.full((count, beam_size, max_length), PAD, device=device)
        return cls(rows, torch.full_like(totals, BOS, dtype=torch.long), history, totals, pool)

    def grow(self, log_probs: Tensor, number: int, divisor: Tensor) -> tuple["_Beams", Tensor]:
        """Take a step: of all hypotheses that are one token longer, keep the K best of each row.

        Args:
            log_probs: Of the next token, ``(W * K, V)``.
            number: Of the step, from 0 on; what goes on after the last one is cut, and joins the ended.
            divisor: Of the log-probabilities of what ends now.

        Returns:
            The beams, and which of the ``W * K`` hypotheses before each has grown from, ``(W, K)``.
        """
        count, beam_size, max_length = self.history.shape
        candidates = self.totals.unsqueeze(-1) + log_probs.view(count, beam_size, -1)
        totals, chosen = candidates.flatten(1).topk(beam_size)
        parents, tokens = chosen // candidates.size(-1), chosen % candidates.size(-1)
        free = beam_size - self.pool.taken.unsqueeze(1)
        totals = totals.masked_fill(torch.arange(beam_size, device=free.device) >= free, -torch.inf)
        ends = (tokens == EOS) & (totals > -torch.inf)
        history = self.history.gather(1, parents.unsqueeze(-1).expand_as(self.history))
        pool = self.pool.add(ends, history, totals, totals / divisor)
        totals = totals.masked_fill(ends, -torch.inf)
        history[:, :, number] = tokens.masked_fill(totals == -torch.inf, PAD)
        if number + 1 == max_length:
            pool = pool.add(totals > -torch.inf, history, totals, totals / divisor)
            totals = torch.full_like(totals, -torch.inf)
        grown_from = torch.arange(count, device=parents.device).unsqueeze(1) * beam_size + parents
        return _Beams(self.rows, tokens, history, totals, pool), grown_from

    def select(self, kept: Tensor) -> "_Beams":
        """Return the beams of some rows, ``(W')``."""
        rows, tokens, history, totals = (part[kept] for part in self[:-1])
        return _Beams(rows, tokens, history, totals, _Pool(*(part[kept] for part in self.pool)))


def looking_back(encoded: Sequence[Encoded], beams: _Beams, live: Tensor) -> list[Encoded]:
    """Let those of the ``W * K`` hypotheses that ``live``, ``(n)``, names look back at the memory of their rows.

    Only `pad` and `pack` of the packing are used: its rows are those of the batch, its steps their hypotheses.
    """
    hypotheses = Packing([len(live)], (beams.tokens.size(0), beams.tokens.size(1)), live)
    return [one._replace(memory=one.memory._replace(hypotheses=hypotheses)) for one in encoded]


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
    rows = torch.arange(mask.size(0), device=mask.device)
    precision = torch.promote_types(encoded[0].memory.values.dtype, torch.float32)  # that of the log-probabilities
    beams = _Beams.start(rows, beam_size, max_length, precision)
    found = beams.pool.best(n_best)
    longest = normalisation(torch.tensor(max_length, device=mask.device))
    live = rows * beam_size  # which of the W * K hypotheses go on: at first one of each row
    for number in range(max_length):
        log_probs, encoded = step(models, looking_back(encoded, beams, live), beams.tokens.flatten()[live])
        everywhere = log_probs.new_full((beams.tokens.numel(), log_probs.size(1)), -torch.inf)
        divisor = normalisation(torch.tensor(number + 1, device=mask.device)).to(precision)
        beams, grown_from = beams.grow(everywhere.index_copy(0, live, banned(log_probs)), number, divisor)
        going = (beams.totals > -torch.inf).any(1)
        if stop_early:
            going &= beams.totals.amax(1) / longest > beams.pool.scores.topk(n_best).values[:, -1]
        place = torch.empty(beams.tokens.numel(), dtype=torch.long, device=mask.device)
        place[live] = torch.arange(len(live), device=mask.device)  # of a hypothesis in the states
        kept = going.nonzero().squeeze(1)
        if 2 * len(kept) <= len(going):  # enough to be worth moving the others
            for whole, part in zip(found, beams.pool.best(n_best), strict=True):  # before rows leave
                whole[beams.rows] = part
            if len(kept) == 0:
                break
            beams, grown_from, going = beams.select(kept), grown_from[kept], going[kept]
            encoded = [one._replace(memory=one.memory.select(kept)) for one in encoded]
        live = ((beams.totals > -torch.inf) & going.unsqueeze(1)).flatten().nonzero().squeeze(1)
        parents = place[grown_from.flatten()[live]]
        encoded = [one._replace(state=one.state.select(parents)) for one in encoded]
    steps = int((found.tokens != PAD).any(0).any(0).sum())
    return found._replace(tokens=found.tokens[:, :, :steps])
