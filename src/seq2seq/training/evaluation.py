"""Validation and test, of a model in training and of one or several checkpoints: one step for all."""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from seq2seq.api import Vote
from seq2seq.data import Batch, References, Split, Tokenizer
from seq2seq.decoding import Ensemble, Search, to_lists
from seq2seq.errors import about_setting
from seq2seq.metrics.text import CorpusMetric
from seq2seq.reporting.tables import Prediction, Result
from seq2seq.training import processes
from seq2seq.training.datamodule import PairsDataModule

log = logging.getLogger(__name__)


class Evaluation(pl.LightningModule):
    """Decodes and measures the splits that Lightning's ``validate`` and ``test`` give it.

    The batches come from a `PairsDataModule`, which knows what counts as right. `search` decodes freely; `tokenizer`
    is that of the targets; `validation_step` says what the metrics are given.

    Attributes:
        ensemble: What decodes; to be set, or provided by a subclass.
        predictions: Decoded ids of the last split, by the index of the pair.
        batch_shape: Of source and target of the last batch, for errors.
    """

    ensemble: Ensemble

    def __init__(self, search: Search, metrics: MetricCollection, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.search = search
        self.metrics = metrics
        self.target_tokenizer = tokenizer
        self.predictions: dict[int, list[int]] = {}
        self.batch_shape: tuple[Sequence[int], Sequence[int]] = (0, 0), (0, 0)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the ids and leave the lengths on the CPU, where packing needs them; in training, too."""
        self.batch_shape = batch.source.shape, batch.inputs.shape
        return batch.to(device)

    def on_validation_epoch_start(self) -> None:
        """Reset metrics and predictions."""
        self.metrics.reset()
        self.predictions = {}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Decode a batch, and update each metric with the arguments that its ``update`` names.

        ============= =========================================================================================
        preds         decoded texts
        target        the first reference of each as text, so that metrics of ``torchmetrics.text`` fit
        references    for each of them, the texts of all its references
        predicted_ids decoded ids, without begin, end and padding
        reference_ids for each of them, the ids of all its references
        log_probs     log-probabilities under teacher forcing, ``(B, T, V)``
        labels        reference ids, the end included, padded, ``(B, T)``
        ============= =========================================================================================
        """
        predicted: list[list[int]] = []
        log_probs, references = torch.empty(0, 1, 1, device=self.device), References([], [])
        if len(batch.indices):  # several processes may leave one of them nothing of a batch
            predicted, log_probs = self.decode(batch)
            references = self._references(batch)
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
        self.predictions.update(zip(batch.indices.tolist(), predicted, strict=True))

    test_step = validation_step

    def decode(self, batch: Batch) -> tuple[list[list[int]], Tensor]:
        """Return the predicted ids of a batch, and the log-probabilities under teacher forcing, ``(B, T, V)``."""
        encoded = self.ensemble.encode(*batch.given)
        predicted = to_lists(self.search(self.ensemble, encoded).tokens[:, 0])
        return predicted, self.ensemble.decode(batch.inputs, encoded)[0]

    def _references(self, batch: Batch) -> References:
        """Return what counts as right for the pairs of a batch; only the targets, if there is no `PairsDataModule`."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if datamodule is None:
            ids = batch.references()
            return References([[self.target_tokenizer.decode(one)] for one in ids], [[one] for one in ids])
        return datamodule.prepared.references("test" if self.trainer.testing else "val", batch.indices.tolist())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split, the first of them also in the progress bar."""
        fitting = self.trainer.state.fn == "fit"
        # Metrics of the best checkpoint, after training, are no point of the learning curve.
        split = "test" if self.trainer.testing else "val" if fitting else "best_val"
        for number, (name, value) in enumerate(self.metrics.compute().items()):  # over all processes
            self.log(f"{split}/{name}", value.float(), prog_bar=number == 0, sync_dist=True)
        if not fitting:
            self.predictions = processes.merge(self.predictions)

    on_test_epoch_end = on_validation_epoch_end


class VoteEvaluation(Evaluation):
    """Measures what several models elect. Their vocabularies may differ, so what they share are texts.

    One process evaluates. Nothing is measured under teacher forcing, where there is no vote.

    Args:
        vote: The models.
        metrics: Those that need log-probabilities are left out.
        tokenizer: With an `OpenVocabulary`, for predictions and references of any tokens.
        texts: The source texts of the split, as they stand in its files.
    """

    def __init__(self, vote: Vote, metrics: MetricCollection, tokenizer: Tokenizer, texts: list[str]) -> None:
        forced = [name for name, one in metrics.items() if "log_probs" in inspect.signature(one.update).parameters]
        if forced:
            log.info("not measured of a vote: %s", ", ".join(map(str, forced)))
        kept: Any = {str(name): one for name, one in metrics.items() if name not in forced}
        super().__init__(vote.predictors[0].search, MetricCollection(kept), tokenizer)
        self.vote, self.texts = vote, texts
        self.networks = nn.ModuleList(predictor.ensemble for predictor in vote.predictors)  # moved by Lightning

    def on_test_start(self) -> None:
        """Let the models compute where Lightning has moved them."""
        for predictor in self.vote.predictors:
            predictor.device = self.device

    def decode(self, batch: Batch) -> tuple[list[list[int]], Tensor]:
        """Return what is elected for a batch, as ids, and no log-probabilities."""
        texts = [self.texts[index] for index in batch.indices.tolist()]
        elected = self.vote(texts, batch_size=len(texts))
        return [self.target_tokenizer.encode(text) for text in elected], torch.empty(0, 1, 1, device=self.device)


def result_of(module: Evaluation, data: PairsDataModule, split: Split) -> Result:
    """Return metrics and predictions of the split that a module has just evaluated."""
    pairs = data.prepared.pairs[split]
    predictions = []
    for index, ids in sorted(module.predictions.items()):
        pair, correct = pairs[index], ids in data.prepared.references(split, [index]).ids[0]
        text = module.target_tokenizer.decode(ids)
        predictions.append(Prediction(pair.source, text, tuple(pair.references), correct, pair.group))
    values = {str(name): float(value) for name, value in module.metrics.compute().items()}
    signatures = {str(name): one.signature for name, one in module.metrics.items() if isinstance(one, CorpusMetric)}
    part = part_used(module.trainer, data, split)
    return Result(values, predictions, data.prepared.source.group_name, part, signatures)


def part_used(trainer: pl.Trainer, data: PairsDataModule, split: Split) -> str:
    """Return how much of a split the trainer has used, such as ``4 of 32 batches``; empty if all."""
    # Without any batch, Lightning has not counted those of validation and test.
    used = {"train": [trainer.num_training_batches], "val": trainer.num_val_batches, "test": trainer.num_test_batches}
    number, count = sum(used[split]), len(data.loader(split))
    return f"{number} of {count} batches" if number < count else ""
