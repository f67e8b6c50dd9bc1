"""The inference loop of prediction and scoring, in this process or in several; evaluation runs through Lightning."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from seq2seq.data.batch import Batch
from seq2seq.decoding.ensemble import Ensemble, EnsembleEncoded
from seq2seq.errors import UserError

START = "fork" if sys.platform == "linux" else "spawn"
"""How workers start. Forked ones begin at once and share the weights; elsewhere, forking is not safe or not there."""

FEW = 2
"""Number of batches for each worker for which none is started."""


class Results(Dataset[Any]):
    """What is computed from batches, without gradients: the item of a key is the result of the batch of that key.

    Args:
        ensemble: In evaluation mode, on ``device``.
        device: Where to compute.
        read: Returns the batch of a key, on any device.
        compute: Takes the key, the batch on the device, and the same encoded.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        device: torch.device,
        read: Callable[[Any], Batch],
        compute: Callable[[Any, Batch, EnsembleEncoded], Any],
    ) -> None:
        self.ensemble, self.device, self.read, self.compute = ensemble, device, read, compute

    @torch.inference_mode()
    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - whatever `compute` returns
        """Return the result; or a `UserError`, which would lose its line if it were raised in a worker."""
        try:
            batch = self.read(key).to(self.device)
            return self.compute(key, batch, self.ensemble.encode(*batch.given))
        except UserError as error:
            return error


class Inference:
    """Computes the `Results` of many keys, in their order.

    Args:
        results: In worker processes, they are copies with one thread each.
        workers: Number of worker processes, which live as long as this object; 0 computes in this process, and so do
            any for a few batches. ``auto`` is the number of threads, or 0 if that is 1, and on a GPU.

    Raises:
        UserError: If there is a GPU, and a number of workers.
    """

    def __init__(self, results: Results, workers: int | Literal["auto"] = 0) -> None:
        on_cpu, threads = results.device.type == "cpu", torch.get_num_threads()
        if workers == "auto":
            workers = threads if on_cpu and threads > 1 else 0
        if workers and not on_cpu:
            raise UserError(f"workers={workers} does not fit device={results.device}; give 0, or device=cpu")
        self.results, self.workers = results, workers
        self._keys: list[Any] = []

    @cached_property
    def _loader(self) -> DataLoader[Any]:
        return DataLoader(
            self.results, batch_size=None, sampler=self._keys, num_workers=self.workers, collate_fn=same,
            persistent_workers=True, multiprocessing_context=START,
        )  # fmt: skip

    def __call__(self, keys: Iterable[Any]) -> Iterator[Any]:
        """Yield the result of each key; raise the `UserError` of the first that has none."""
        self._keys[:] = keys
        alone = len(self._keys) <= FEW * self.workers or not self.workers
        found = map(self.results.__getitem__, self._keys) if alone else self._loader
        try:
            for one in found:
                if isinstance(one, UserError):
                    raise one
                yield one
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            problem = f"workers={self.workers}: a worker process has ended unexpectedly, perhaps for lack of memory"
            raise UserError(f"{problem}; give fewer") from error


def same(result: Any) -> Any:  # noqa: ANN401
    """Return a result as it is; by default, a loader would make tensors of it."""
    return result
