"""The inference loop of prediction and scoring; evaluation runs through Lightning."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from seq2seq.data.batch import Batch
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded

Result = TypeVar("Result")


@torch.inference_mode()
def infer(
    ensemble: Ensemble,
    batches: Iterable[Batch],
    device: torch.device,
    compute: Callable[[Batch, EnsembleEncoded], Result],
) -> Iterator[tuple[Batch, Result]]:
    """Encode batches on a device, compute something from each without gradients, and yield the batch and the result.

    Args:
        ensemble: In evaluation mode, on ``device``.
        batches: On any device.
        device: Where to compute.
        compute: Takes a batch, moved to the device, and the same encoded: a search, say, or `Ensemble.decode`.
    """
    for batch in batches:
        moved = batch.to(device)
        yield moved, compute(moved, ensemble.encode(*moved.given))
