"""Training as Lightning sees it: loss, optimiser, and what is logged."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seq2seq.data.batch import Batch
from seq2seq.data.tokenizer import Codec
from seq2seq.data.vocabulary import PAD
from seq2seq.decoding.greedy import banned, encode, teacher_forced, to_lists
from seq2seq.decoding.search import Search
from seq2seq.errors import check_count, check_number
from seq2seq.handoff.mistakes import MISTAKES, RIGHT, WrongEncoder, check_effect
from seq2seq.metrics.corpus import CorpusMetrics
from seq2seq.nn.fast.packing import Packing
from seq2seq.nn.seq2seq import Encoded, build_model

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 2
"""Raised when a checkpoint can no longer be read by an older version, or an older one by this."""


WORTH_PACKING = 1 / 8
"""The share of padding from which on targets are packed."""


class Seq2SeqModule(pl.LightningModule):
    """A model, how it is trained, and the text it was trained on.

    All arguments are numbers, strings, lists and dicts. They are the checkpoint's hyperparameters, so it needs nothing
    else to predict, and loading it runs no code of its own.

    Args:
        model: The arguments of `build_model`, but for the vocabularies' sizes.
        handoff: ``right``, or a mistake of `seq2seq.handoff.mistakes` that is made on purpose.
        optimizer: ``lr``, the highest learning rate; ``warmup``, the share of all steps in which it rises from zero,
            before it falls to zero as a half cosine; ``weight_decay``, of AdamW.
        label_smoothing: Probability that the loss spreads over all symbols.
        scheduled_sampling: Probability that a target token which the decoder reads in training is its own prediction.
        source: `Codec.to_plain` of the source.
        target: `Codec.to_plain` of the target.
        max_length: Most tokens of a decoded row.
        data: The settings of the task, kept so that `evaluate.py` can test on it again.

    Raises:
        UserError: If a value is not allowed.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        handoff: str,
        optimizer: dict[str, Any],
        label_smoothing: float,
        scheduled_sampling: float,
        source: dict[str, Any],
        target: dict[str, Any],
        max_length: int,
        data: dict[str, Any],  # read from the hyperparameters
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.source = Codec.from_plain(source)
        self.target = Codec.from_plain(target)
        self.model = build_model(
            source_size=len(self.source.vocabulary), target_size=len(self.target.vocabulary), **model
        )
        if handoff != RIGHT:
            check_effect(handoff, model)
            self.model.encoder = WrongEncoder(self.model.encoder, handoff)
            log.warning("handoff=%s is wrong on purpose; it hands over: %s", handoff, MISTAKES[handoff].hands)
        self.lr = check_number("optimizer.lr", optimizer["lr"], 0, math.inf)
        self.warmup = check_number("optimizer.warmup", optimizer["warmup"], 0, 1)
        self.weight_decay = check_number("optimizer.weight_decay", optimizer["weight_decay"], 0, math.inf)
        self.label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
        self.scheduled_sampling = check_number("scheduled_sampling", scheduled_sampling, 0, math.nextafter(1, 2))
        self.max_length = check_count("search.max_length", max_length)
        self.search = Search(self.max_length)
        self.others = nn.ModuleList()
        """Models that judge together with this one, as an ensemble."""
        self.metrics = CorpusMetrics()
        self.predictions: dict[int, list[int]] = {}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the ids and leave the lengths on the CPU, where packing wants them."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as ours."""
        checkpoint["seq2seq_format"] = CHECKPOINT_FORMAT

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the smoothed loss of a batch under teacher forcing, a mean over its target tokens."""
        encoded = self.model.encode(batch.source, batch.source_lengths)
        inputs = self._mixed(batch.inputs, encoded) if self.scheduled_sampling else batch.inputs
        packing = packing_of_targets(batch)
        output = self.model.decoder(inputs, *encoded, packing)
        loss = F.cross_entropy(
            output.logits, packing.pack(batch.labels), ignore_index=PAD, label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])  # pyright: ignore[reportAttributeAccessIssue]
        return loss

    @torch.no_grad()
    def _mixed(self, inputs: Tensor, encoded: Encoded) -> Tensor:
        """Return the inputs ``(B, T)`` with some tokens replaced by what the model predicts for their place.

        All places are predicted at once, under teacher forcing, so two passes take the place of a loop over time
        (Mihaylova and Martins 2019).
        """
        predicted = banned(self.model.decoder(inputs, *encoded).logits.flatten(0, 1)).argmax(-1).view_as(inputs)
        chosen = torch.rand(inputs[:, 1:].shape, device=inputs.device) < self.scheduled_sampling
        return torch.cat([inputs[:, :1], torch.where(chosen, predicted[:, :-1], inputs[:, 1:])], dim=1)

    def on_validation_epoch_start(self) -> None:
        """Start the metrics anew."""
        self.metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Judge a batch."""
        self._judge(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set."""
        self.log_dict({f"val/{name}": value for name, value in self.metrics.compute().items()})
        self.log("exact_match", self.metrics.exact_match.compute(), prog_bar=True, logger=False)

    def on_test_epoch_start(self) -> None:
        """Start the metrics and the predictions anew."""
        self.metrics.reset()
        self.predictions = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Judge a batch and keep what was decoded."""
        self.predictions |= dict(zip(batch.rows.tolist(), self._judge(batch), strict=True))

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole test set."""
        self.log_dict({f"test/{name}": value for name, value in self.metrics.compute().items()})

    def _judge(self, batch: Batch) -> list[list[int]]:
        """Take a batch into the metrics, and return its decoded rows."""
        models = [self.model, *self.others]
        encoded = encode(models, batch.source, batch.source_lengths)
        self.metrics.update_teacher_forced(teacher_forced(models, encoded, batch.inputs), batch.labels)
        decoded = to_lists(self.search(models, encoded).tokens[:, 0])
        lengths = (batch.target_lengths - 1).tolist()  # without the end
        references = [row[:length] for row, length in zip(batch.labels.tolist(), lengths, strict=True)]
        self.metrics.update_decoded(decoded, references)
        return decoded

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a rise and fall of the learning rate over all steps of the run."""
        total = int(self.trainer.estimated_stepping_batches)
        # One kernel for all parameters takes a quarter of the time. In fp16 it would scale gradients after clipping.
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer does, but for a fused optimiser under ``bf16-mixed``, too.

        Lightning refuses that in any mixed precision, though gradients are scaled in fp16 only.
        """
        if self.trainer.precision != "bf16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        kind = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0, kind)


def packing_of_targets(batch: Batch) -> Packing:
    """Return which target tokens of a batch are worked on: only real ones, or all where that is sooner done.

    Packed batches come in all sizes. Under autocast on a CPU, products have to be prepared for each of them anew, which
    takes longer than padding does. What pays on a GPU was not measured, so nothing is packed there.
    """
    rows, steps = batch.labels.shape
    padding = 1 - int(batch.target_lengths.sum()) / (rows * steps)
    if padding < WORTH_PACKING or not batch.labels.is_cpu or torch.is_autocast_enabled("cpu"):
        return Packing.full(rows, steps)
    return Packing.of(batch.target_lengths, steps)


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the share of the highest learning rate at a step: a linear rise, then half a cosine down to zero.

    Example:
        >>> [round(learning_rate_factor(step, 100, 0.1), 2) for step in (0, 4, 9, 10, 55, 100)]
        [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = round(total * warmup)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
