"""Training as Lightning sees it: loss, optimizer, and what is logged."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from seq2seq.data import PAD, Batch, tokenizer_from_dict
from seq2seq.decoding import Ensemble, Greedy, mask_special_tokens
from seq2seq.errors import check_count, check_number
from seq2seq.metrics import CorpusMetrics
from seq2seq.training.build import model_from_config
from seq2seq.training.evaluation import evaluate_batches

CHECKPOINT_FORMAT = 3
"""Raised when older versions cannot read new checkpoints, or this version cannot read older ones.

A new option does not raise it: its parameter gets a default that keeps the old behaviour, so that checkpoints from
before the option load.
"""


class Seq2SeqModule(pl.LightningModule):
    """A model, how it is trained, and the tokenizers of its text.

    All arguments are numbers, strings, lists and dicts. They are the checkpoint's hyperparameters, so a checkpoint is
    all that prediction needs, and loading one runs no code of its own.

    Args:
        model: The arguments of `seq2seq.nn.build_model`, without the sizes of the vocabularies.
        handoff: ``right``, or the name of a mistake in `seq2seq.handoff.mistakes`.
        optimizer: ``lr``, the highest learning rate; ``warmup``, the fraction of all steps in which it rises; and
            ``weight_decay`` of AdamW.
        label_smoothing: Probability mass that the loss spreads over all symbols.
        scheduled_sampling: Probability that a decoder input in training is the model's own prediction.
        source_tokenizer: `Tokenizer.to_dict` of the source.
        target_tokenizer: `Tokenizer.to_dict` of the target.
        max_length: Maximum number of tokens in a prediction.
        data: The section ``data`` of the config, kept so that the model can be tested on the same data again.
        fast: Whether training on a CPU may use `seq2seq.nn.fast`: ``auto`` or False.

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
        source_tokenizer: dict[str, Any],
        target_tokenizer: dict[str, Any],
        max_length: int,
        data: dict[str, Any],  # read from the hyperparameters
        fast: str | bool = "auto",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.source_tokenizer = tokenizer_from_dict(source_tokenizer)
        self.target_tokenizer = tokenizer_from_dict(target_tokenizer)
        self.model = model_from_config(
            model,
            source_size=len(self.source_tokenizer.vocabulary),
            target_size=len(self.target_tokenizer.vocabulary),
            handoff=handoff,
            fast=fast,
        )
        self.lr = check_number("optimizer.lr", optimizer["lr"], 0, math.inf)
        self.warmup = check_number("optimizer.warmup", optimizer["warmup"], 0, 1)
        self.weight_decay = check_number("optimizer.weight_decay", optimizer["weight_decay"], 0, math.inf)
        self.label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
        self.scheduled_sampling = check_number("scheduled_sampling", scheduled_sampling, 0, math.nextafter(1, 2))
        self.max_length = check_count("search.max_length", max_length)
        self.metrics = CorpusMetrics()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the ids and leave the lengths on the CPU, where packing needs them."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as one of this project."""
        checkpoint["seq2seq_format"] = CHECKPOINT_FORMAT

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the smoothed loss of a batch under teacher forcing, the mean over its target tokens."""
        inputs = self._scheduled_inputs(batch) if self.scheduled_sampling else batch.inputs
        logits = self.model(batch.source, batch.source_lengths, inputs).logits  # (B, T, V)
        loss = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD, label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])  # pyright: ignore[reportAttributeAccessIssue]
        return loss

    @torch.no_grad()
    def _scheduled_inputs(self, batch: Batch) -> Tensor:
        """Return the inputs, ``(B, T)``, with some tokens replaced by the model's own predictions.

        All tokens are predicted at once, under teacher forcing, so two passes replace a loop over time (Mihaylova and
        Martins 2019).
        """
        logits = self.model(batch.source, batch.source_lengths, batch.inputs).logits
        predicted = mask_special_tokens(logits).argmax(-1)[:, :-1]
        first, rest = batch.inputs[:, :1], batch.inputs[:, 1:]
        replaced = torch.rand(rest.shape, device=rest.device) < self.scheduled_sampling
        return torch.cat([first, torch.where(replaced, predicted, rest)], dim=1)

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics."""
        self.metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics with a batch, decoded freely and under teacher forcing."""
        ensemble, search = Ensemble([self.model]), Greedy(self.max_length)
        list(evaluate_batches(ensemble, search, [batch], self.device, self.metrics))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set."""
        self.log_dict({f"val/{name}": value for name, value in self.metrics.compute().items()})
        self.log("exact_match", self.metrics.exact_match.compute(), prog_bar=True, logger=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and a learning rate that rises and falls over all steps of the run."""
        total = int(self.trainer.estimated_stepping_batches)
        # One kernel for all parameters takes a quarter of the time, but Lightning clips no gradients for it if mixed.
        fused = not self.trainer.precision.endswith("-mixed")
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        schedule = LambdaLR(optimizer, lambda step: cosine_with_warmup(step, total, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def cosine_with_warmup(step: int, total: int, warmup: float) -> float:
    """Return the learning rate at a step as a fraction of the highest: a linear rise, then half a cosine to zero.

    Example:
        >>> [round(cosine_with_warmup(step, 100, 0.1), 2) for step in (0, 4, 9, 10, 55, 100)]
        [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = round(total * warmup)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
