"""The oracle of the searches: what `Ensemble.forward` says of a hypothesis, without a batch and without a search."""

import torch

from seq2seq.data import BOS, EOS


def teacher_forced(ensemble, source, lengths, hypotheses, max_length):
    """The log-probability of a hypothesis for each source, its end included unless it was cut, ``(B,)``."""
    totals = []
    for tokens, ids, length in zip(hypotheses, source, lengths.tolist(), strict=True):
        labels = [*tokens, EOS][:max_length]
        inputs = torch.tensor([[BOS, *labels[:-1]]])
        log_probs, _ = ensemble(ids[None, :length], torch.tensor([length]), inputs)
        totals.append(log_probs[0, torch.arange(len(labels)), labels].sum())
    return torch.stack(totals)
