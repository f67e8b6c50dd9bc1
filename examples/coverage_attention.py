"""An attention with a state: additive attention with coverage.

    python scripts/train.py parts=examples/coverage_attention.py model.attention=coverage
    python scripts/predict.py parts=examples/coverage_attention.py checkpoint=outputs/.../best.ckpt

Its state is the sum of its weights so far, so that it knows what has been attended to. Any decoder carries the state
from step to step, any search keeps one for each hypothesis, and it can be exported. See docs/extending.md.
"""

import torch
from torch import Tensor, nn

from seq2seq.nn.attention import ATTENTIONS, AdditiveAttention, Memory


class CoverageAttention(AdditiveAttention):
    """``v tanh(W query + U value + w coverage)`` (See et al. 2017, equation 11), without the coverage loss."""

    def __init__(self, *, query_size: int, value_size: int, normaliser: str = "softmax") -> None:
        super().__init__(query_size=query_size, value_size=value_size, normaliser=normaliser)
        self.coverage = nn.Linear(1, query_size, bias=False)

    def init_state(self, memory: Memory) -> Tensor:
        """Return a coverage of zero, ``(B, S)``."""
        return torch.zeros_like(memory.keys[..., 0])

    def forward(self, queries: Tensor, memory: Memory, coverage: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attend with queries ``(B, T, H')``, one by one; return contexts, weights, and the coverage after them."""
        contexts, weights = [], []
        for query in self.query(queries).split(1, dim=1):  # (B, 1, H')
            compared = query + memory.keys + self.coverage(coverage.unsqueeze(-1))  # (B, S, H')
            context, step = self.attend(self.score(compared.tanh()).transpose(1, 2), memory)
            coverage = coverage + step.squeeze(1)
            contexts.append(context)
            weights.append(step)
        return torch.cat(contexts, dim=1), torch.cat(weights, dim=1), coverage


ATTENTIONS["coverage"] = CoverageAttention
