"""Compare an export with the model that it was made from."""

import torch

from seq2seq.data.vocabulary import UNK
from seq2seq.export.graphs import final_state
from seq2seq.model import TrainedModel

SHAPES = ((1, 1, 1), (3, 7, 4), (8, 30, 12))
"""Batch size, source length and target length of the comparisons."""

FEATURES = 3
"""Number of features of each sequence, if the model reads some."""


@torch.inference_mode()
def differences(module: TrainedModel, exported: TrainedModel) -> dict[str, float]:
    """Return the largest differences between a model and what was exported, over random batches of several shapes.

    They are of ``logits``, ``attention``, ``h_n`` and ``c_n``, if there are such, relative to the largest value if that
    is above 1.
    """
    ours, theirs = module.model, exported.model
    random = torch.Generator().manual_seed(0)
    found: dict[str, float] = {}
    for batch, steps, target_steps in SHAPES:
        source = torch.randint(UNK, len(module.tokenizers.source.vocabulary), (batch, steps), generator=random)
        targets = torch.randint(UNK, len(module.tokenizers.target.vocabulary), (batch, target_steps), generator=random)
        lengths = torch.randint(1, steps + 1, (batch,), generator=random)
        features = None
        if (size := module.tokenizers.sizes().get("features")) is not None:
            features = torch.randint(UNK, size, (batch, FEATURES), generator=random)
        output = ours(source, lengths, targets, features)
        theirs_output = theirs.decoder(targets, *theirs.encode(source, lengths, features))
        right = {"logits": output.logits, "attention": output.weights}
        right |= final_state(ours.run_encoder(source, lengths, features)[0].state)
        other = {"logits": theirs_output.logits, "attention": theirs_output.weights}
        other |= theirs.run_encoder(source, lengths, features)
        for name, values in right.items():
            if values is not None:  # as the weights are without attention
                difference = (values - other[name]).abs().max() / values.abs().max().clamp(min=1)
                found[name] = max(found.get(name, 0.0), difference.nan_to_num(nan=torch.inf).item())
    return found
