"""Validation and test, of a model in training and of one or several checkpoints: one step for all."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from seq2seq.data import Batch, References, Split, Tokenizer
from seq2seq.decoding import Ensemble, Search, to_lists
from seq2seq.errors import about_setting
from seq2seq.metrics.text import CorpusMetric
from seq2seq.reporting.tables import Prediction, Result
from seq2seq.training import processes
from seq2seq.training.datamodule import PairsDataModule


class Evaluation(pl.LightningModule):
    """Decodes and measures the splits that Lightning's ``validate`` and ``test`` give it.

    The batches come from a `PairsDataModule`, which knows what counts as right.

    Args:
        search: How to decode freely.
        metrics: See `update`.
        tokenizer: Of the targets.

    Attributes:
        ensemble: What decodes. A subclass provides it.
        predictions: Decoded ids of the last split, by the index of the pair.
    """

    ensemble: Ensemble

    def __init__(self, search: Search, metrics: MetricCollection, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.search = search
        self.metrics = metrics
        self.target_tokenizer = tokenizer
        self.predictions: dict[int, list[int]] = {}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the ids and leave the lengths on the CPU, where packing needs them."""
        return batch.to(device)

    def on_validation_epoch_start(self) -> None:
        """Reset metrics and predictions."""
        self.metrics.reset()
        self.predictions = {}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode a batch and update the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode a batch and update the metrics."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: Split) -> None:
        predicted: list[list[int]] = []
        log_probs, references = torch.empty(0, 1, 1, device=self.device), References([], [])
        if len(batch.indices):  # several processes may leave one of them nothing of a batch
            ensemble = self.ensemble
            encoded = ensemble.encode(batch.source, batch.source_lengths)
            predicted = to_lists(self.search(ensemble, encoded).tokens[:, 0])
            log_probs = ensemble.decode(batch.inputs, encoded)[0]
            references = self._references(batch, split)
        self.update(batch, predicted, log_probs, references)
        self.predictions.update(zip(batch.indices.tolist(), predicted, strict=True))

    def update(self, batch: Batch, predicted: list[list[int]], log_probs: Tensor, references: References) -> None:
        """Update each metric with the arguments that its ``update`` names.

        ============= =========================================================================================
        preds         decoded texts
        target        the first reference of each as text, so that metrics of ``torchmetrics.text`` fit
        references    for each of them, the texts of all its references
        predicted_ids decoded ids, without begin, end and padding
        reference_ids for each of them, the ids of all its references
        log_probs     log-probabilities under teacher forcing, ``(B, T, V)``
        labels        reference ids, the end included, padded, ``(B, T)``
        ============= =========================================================================================

        Args:
            batch: A batch.
            predicted: Its decoded ids.
            log_probs: Under teacher forcing, ``(B, T, V)``.
            references: What counts as right for its pairs.
        """
        with about_setting("metrics"):
            self.metrics.update(
                preds=[self.target_tokenizer.decode(ids) for ids in predicted],
                target=[texts[0] for texts in references.texts],
                references=references.texts,
                predicted_ids=predicted,
                reference_ids=references.ids,
                log_probs=log_probs,
                labels=batch.labels,
            )

    def _references(self, batch: Batch, split: Split) -> References:
        """Return what counts as right for the pairs of a batch."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if datamodule is None:
            ids = batch.references()
            return References([[self.target_tokenizer.decode(one)] for one in ids], [[one] for one in ids])
        return datamodule.prepared.references(split, batch.indices.tolist())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set, the first of them also in the progress bar."""
        # Metrics of the best checkpoint, after training, are no point of the learning curve.
        self._log_metrics("val" if self.trainer.state.fn == "fit" else "best_val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set."""
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        for number, (name, value) in enumerate(self.metrics.compute().items()):  # over all processes
            self.log(f"{split}/{name}", value.float(), prog_bar=number == 0, sync_dist=True)
        if self.trainer.state.fn != "fit":
            self.predictions = processes.merge(self.predictions)


class EnsembleEvaluation(Evaluation):
    """The evaluation of trained models, on the trainer's device.

    Args:
        models: With the same target vocabulary; several are an ensemble.
        search: How to decode freely.
        metrics: See `Evaluation.update`.
        tokenizer: Of the targets.
    """

    def __init__(
        self, models: Sequence[nn.Module], search: Search, metrics: MetricCollection, tokenizer: Tokenizer
    ) -> None:
        super().__init__(search, metrics, tokenizer)
        self.ensemble = Ensemble(models)  # pyright: ignore[reportArgumentType] - each is called like a Seq2Seq


def result_of(module: Evaluation, data: PairsDataModule, split: Split, part: str = "") -> Result:
    """Return metrics and predictions of the split that a module has just evaluated.

    Args:
        module: With its metrics and predictions.
        data: The same data.
        split: The split.
        part: How much of it was used, such as ``4 of 32 batches``; empty if all.
    """
    pairs = data.prepared.pairs[split]
    predictions = []
    for index, ids in sorted(module.predictions.items()):
        pair, correct = pairs[index], ids in data.prepared.references(split, [index]).ids[0]
        text = module.target_tokenizer.decode(ids)
        predictions.append(Prediction(pair.source, text, tuple(pair.references), correct, pair.group))
    values = {str(name): float(value) for name, value in module.metrics.compute().items()}
    signed = {str(name): metric for name, metric in module.metrics.items() if isinstance(metric, CorpusMetric)}
    signatures: Mapping[str, str] = {name: metric.signature for name, metric in signed.items()}
    return Result(values, predictions, data.prepared.source.group_name, part, signatures)


def part_used(trainer: pl.Trainer, data: PairsDataModule, split: Split) -> str:
    """Return how much of a split the trainer has used, such as ``4 of 32 batches``; empty if all."""
    used = {
        "train": trainer.num_training_batches,
        "val": sum(trainer.num_val_batches),  # without any batch, Lightning has not counted them
        "test": sum(trainer.num_test_batches),
    }[split]
    count = data.batches(split)
    return f"{used} of {count} batches" if used < count else ""
