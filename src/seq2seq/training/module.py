"""Training as Lightning sees it: loss, optimizer, and what is logged."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from seq2seq.checkpoint import FORMAT
from seq2seq.data import PAD, Batch
from seq2seq.decoding import Ensemble, Greedy, build_search, mask_special_tokens
from seq2seq.errors import UserError, about_setting
from seq2seq.model import trained_model
from seq2seq.settings import Fraction, Probability
from seq2seq.training.build import check_arguments
from seq2seq.training.evaluation import Evaluation
from seq2seq.training.processes import Requests


class Seq2SeqModule(Evaluation):
    """A model, how it is trained, and the tokenizers of its text.

    All arguments but the last three are numbers, strings, lists and dicts. They are the checkpoint's hyperparameters,
    so a checkpoint is all that prediction needs, and loading one runs no code of its own. The last three are needed for
    training and evaluation only.

    Args:
        model: The arguments of `seq2seq.nn.build_model`, without the sizes of the vocabularies.
        handoff: ``right``, or the name of a mistake in `seq2seq.handoff.mistakes`.
        label_smoothing: Probability mass that the loss spreads over all symbols.
        scheduled_sampling: Probability that a decoder input in training is the model's own prediction.
        source_tokenizer: `Tokenizer.to_dict`, like ``target_tokenizer``.
        max_length: Maximum number of tokens in a prediction.
        features_tokenizer: `Tokenizer.to_dict`; None without features.
        data: The section ``data`` of the config, kept so that the model can be tested on the same data again.
        fast: Whether training on a CPU may use `seq2seq.nn.fast`: ``auto`` or False.
        search: The section ``search`` of the config, for validation and test; None for greedy search.
        optimizer: Called with the parameters; by default AdamW with its own defaults.
        scheduler: Called with ``optimizer`` and ``total_steps``; None keeps the learning rate constant.
        metrics: Of validation and test; see `Evaluation.validation_step`.

    Attributes:
        config: The resolved config of the run, kept in checkpoints so that a run that resumes can be compared with it.
        requests: What callbacks ask of all processes of the run.

    Raises:
        UserError: If a value is not allowed.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        handoff: str,
        label_smoothing: Fraction,
        scheduled_sampling: Probability,
        source_tokenizer: dict[str, Any],
        target_tokenizer: dict[str, Any],
        max_length: int,
        data: dict[str, Any],  # read from the hyperparameters
        features_tokenizer: dict[str, Any] | None = None,
        fast: str | bool = "auto",
        search: Mapping[str, Any] | None = None,
        optimizer: Callable[..., Optimizer] = AdamW,
        scheduler: Callable[..., LRScheduler] | None = None,
        metrics: MetricCollection | None = None,
    ) -> None:
        check_arguments(Seq2SeqModule, {"label_smoothing": label_smoothing, "scheduled_sampling": scheduled_sampling})
        tokenizers = {"source_tokenizer": source_tokenizer, "target_tokenizer": target_tokenizer}
        tokenizers |= {"features_tokenizer": features_tokenizer}
        values = {"model": model, "handoff": handoff, "fast": fast, "max_length": max_length} | tokenizers
        trained = trained_model(values)
        size = trained.target_size
        found = build_search(search, max_length, size, only_best=True) if search else Greedy(max_length)
        super().__init__(found, metrics or MetricCollection({}), trained.tokenizers.target)
        self.save_hyperparameters(logger=False, ignore=["optimizer", "scheduler", "metrics"])
        self.trained = trained._replace(settings=self.hparams)
        self.model, self.tokenizers = trained.model, trained.tokenizers
        self.label_smoothing, self.scheduled_sampling = label_smoothing, scheduled_sampling
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.config: dict[str, Any] = {}
        self.requests = Requests()

    @property
    def ensemble(self) -> Ensemble:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The model as an ensemble of one, which is no part of the module: its weights are in checkpoints once."""
        return Ensemble([self.model])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as one of this project, and add the config."""
        checkpoint["seq2seq_format"] = FORMAT
        checkpoint["seq2seq_config"] = self.config

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the smoothed loss of a batch under teacher forcing, the mean over its target tokens.

        Of several processes, each has a share of the batch; the average over them is the mean over the whole batch. If
        that is not a finite number, a `UserError` ends training.
        """
        if len(batch.indices):
            inputs = self._scheduled_inputs(batch) if self.scheduled_sampling else batch.inputs
            logits = self.model(batch.source, batch.source_lengths, inputs, batch.features).logits  # (B, T, V)
            loss = self._loss(logits, batch.labels) * batch.share
        else:  # 0, which depends on all parameters: each process has a backward pass
            loss = sum((0 * one.sum() for one in self.parameters() if one.requires_grad), torch.zeros(()))
        mean = self.requests.exchange(loss)  # over all processes
        if not mean.isfinite():
            datamodule: Any = getattr(self.trainer, "datamodule", None)
            where = "in another process"
            if datamodule and not loss.isfinite():
                where = f"with the pairs {', '.join(datamodule.prepared.training_places(batch.indices.tolist()))}"
            raise UserError(
                f"train/loss is {mean.item()} at step {self.global_step + 1}, {where}; the checkpoints before it are "
                "kept; lower optimizer.lr or trainer.gradient_clip_val"
            )
        self.log("train/loss", mean, prog_bar=True)
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over all labels, ``(B, T)``, but padding; this is what trains, `TokenLoss` what is shown."""
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=self.label_smoothing
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norm of all gradients, before they are clipped."""
        every = getattr(self.trainer, "log_every_n_steps", 1)  # 0: never
        if every and (self.global_step + 1) % every == 0:
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            self.log("train/gradient_norm", nn.utils.get_total_norm(gradients))

    @torch.no_grad()
    def _scheduled_inputs(self, batch: Batch) -> Tensor:
        """Return the inputs, ``(B, T)``, with some tokens replaced by the model's own predictions.

        All tokens are predicted at once, under teacher forcing, so two passes replace a loop over time (Mihaylova and
        Martins 2019).
        """
        logits = self.model(batch.source, batch.source_lengths, batch.inputs, batch.features).logits
        predicted = mask_special_tokens(logits).argmax(-1)[:, :-1]
        first, rest = batch.inputs[:, :1], batch.inputs[:, 1:]
        replaced = torch.rand(rest.shape, device=rest.device) < self.scheduled_sampling
        return torch.cat([first, torch.where(replaced, predicted, rest)], dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler; the scheduler goes on with every step."""
        kind = getattr(self.make_optimizer, "func", self.make_optimizer)
        given = getattr(self.make_optimizer, "keywords", {})
        chosen = {"fused", "foreach", "capturable", "differentiable"} & given.keys()
        # One kernel for all parameters is four times as fast. In mixed precision, Lightning clips no gradients for it.
        fused = kind is AdamW and not chosen and not self.trainer.precision.endswith("-mixed")
        with about_setting("optimizer"):
            optimizer = self.make_optimizer(self.parameters(), **({"fused": True} if fused else {}))
        if self.make_scheduler is None:
            return optimizer
        schedule = self.make_scheduler(optimizer=optimizer, total_steps=self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/lr"}}
