"""Several models with the same target vocabulary, called like one model."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from seq2seq.nn import Encoded, Seq2Seq


class EnsembleEncoded(NamedTuple):
    """A source batch, as each model encodes it."""

    members: tuple[Encoded, ...]

    @property
    def mask(self) -> Tensor:
        """True at what is attended to: the real tokens of the source, and features, ``(B, S)``."""
        return self.members[0].memory.mask

    @property
    def dtype(self) -> torch.dtype:
        """Type of the log-probabilities: at least single precision; half cannot tell likely tokens apart."""
        return torch.promote_types(self.members[0].memory.values.dtype, torch.float32)

    def select(self, indices: Tensor) -> Self:
        """Return the given sequences of the batch, ``(B')``."""
        return self.select_memory(indices).select_states(indices)

    def select_memory(self, indices: Tensor) -> Self:
        """Return the memory of the given sequences of the batch, ``(B')``, with the states as they are."""
        return self._replace(members=tuple(one._replace(memory=one.memory.select(indices)) for one in self.members))

    def select_states(self, indices: Tensor) -> Self:
        """Return the states of the given hypotheses, in any order and number, with the memory as it is."""
        return self._replace(members=tuple(one._replace(state=one.state.select(indices)) for one in self.members))


class Ensemble(nn.Module):
    """Predicts by the mean of the models' probabilities; a single model is an ensemble of one.

    The models have the same target vocabulary; cells, sizes and attentions may differ.
    """

    def __init__(self, models: Sequence[Seq2Seq]) -> None:
        super().__init__()
        self.models: Any = nn.ModuleList(models)  # each is called like a Seq2Seq

    def forward(
        self, source: Tensor, lengths: Tensor, targets: Tensor, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict under teacher forcing: see `Seq2Seq.forward` for the arguments, and `decode` for the result."""
        return self.decode(targets, self.encode(source, lengths, features))

    def encode(self, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> EnsembleEncoded:
        """Encode a padded batch: see `Seq2Seq.encode`."""
        return EnsembleEncoded(tuple(model.encode(source, lengths, features) for model in self.models))

    def decode(self, targets: Tensor, encoded: EnsembleEncoded) -> tuple[Tensor, Tensor | None]:
        """Read ``targets``, ``(B, T)``, and predict the token after each.

        Returns:
            The log-probabilities, ``(B, T, V)``, and the mean attention weights of the models that have attention,
            ``(B, T, S)``; None if none has.
        """
        outputs = [model.decoder(targets, *one) for model, one in zip(self.models, encoded.members, strict=True)]
        weights = [output.weights for output in outputs if output.weights is not None]
        log_probs = mean_log_probs([output.logits for output in outputs])
        return log_probs, torch.stack(weights).mean(0) if weights else None

    def step(self, tokens: Tensor, encoded: EnsembleEncoded) -> tuple[Tensor, EnsembleEncoded]:
        """Read one token of each sequence, ``(B,)``: log-probabilities of the next, ``(B, V)``, and the new state."""
        steps = [model.step(tokens, one) for model, one in zip(self.models, encoded.members, strict=True)]
        log_probs = mean_log_probs([logits for logits, _ in steps])
        return log_probs, EnsembleEncoded(tuple(one for _, one in steps))


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the models' mean probability, in the precision of `EnsembleEncoded.dtype`."""
    log_probs = [one.to(torch.promote_types(one.dtype, torch.float32)).log_softmax(-1) for one in logits]
    return log_probs[0] if len(log_probs) == 1 else torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))
