"""Sampling: draw tokens from the predicted distribution."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded
from seq2seq.decoding.greedy import generate
from seq2seq.decoding.output import SearchOutput


@dataclass
class Sampling:
    """Draw every token from the distribution that the model predicts.

    Unlike in the other searches, a result depends on the rest of the batch, as all sequences share a generator.

    Attributes:
        max_length: Maximum number of tokens, without the end.
        n_best: Number of hypotheses for each source, in the order in which they are drawn.
        temperature: Divisor of the log-probabilities; below 1, likely tokens become likelier.
        top_k: Draw from the ``top_k`` most probable tokens only; 0 draws from all (Fan et al. 2018).
        top_p: Draw from the smallest set of tokens that has this probability; 1 draws from all (Holtzman et al. 2020).
        seed: Seed of the generator, which is not reset between batches; see `of_batch`.

    Example:
        >>> log_probs = torch.tensor([[0.1, 0.6, 0.3]]).log()
        >>> sorted({int(Sampling(9, top_k=2, seed=seed).draw(log_probs)) for seed in range(50)})
        [1, 2]
    """

    max_length: int
    n_best: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    _generator: torch.Generator | None = field(default=None, init=False, repr=False, compare=False)

    def of_batch(self, number: int) -> Self:
        """Return the search for the batch of that number: what it draws does not depend on the batches before it."""
        return replace(self, seed=self.seed * 1_000_003 + number)  # seed 1, batch 1 must differ from seed 2, batch 0

    @torch.inference_mode()
    def __call__(self, ensemble: Ensemble, encoded: EnsembleEncoded) -> SearchOutput:
        """Draw ``n_best`` hypotheses for each source of a batch."""
        batch, device = encoded.mask.size(0), encoded.mask.device
        encoded = encoded.select(torch.arange(batch, device=device).repeat_interleave(self.n_best))
        tokens, log_probs = generate(ensemble, encoded, self.max_length, self.draw)
        log_probs = log_probs.view(batch, self.n_best)
        return SearchOutput(tokens.view(batch, self.n_best, tokens.size(1)), log_probs, log_probs)

    def draw(self, log_probs: Tensor) -> Tensor:
        """Draw a token for each sequence, ``(B,)``, given log-probabilities ``(B, V)``."""
        if self._generator is None:
            self._generator = torch.Generator(log_probs.device).manual_seed(self.seed)
        best = log_probs.amax(-1, keepdim=True)  # subtracted first, or a low temperature would overflow
        probs = ((log_probs - best) / self.temperature).softmax(-1)
        ordered, tokens = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= self.top_p, 0)
        if self.top_k:
            ordered[:, self.top_k :] = 0
        chosen = torch.multinomial(ordered, 1, generator=self._generator)
        return tokens.gather(-1, chosen).squeeze(-1)
