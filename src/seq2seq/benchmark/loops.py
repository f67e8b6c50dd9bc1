"""Passes over batches that train a model: in a bare loop, by one process or several, and with Lightning's trainer."""

from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import timer
from torch.utils.data import DataLoader

from seq2seq.data import PAD, Batch
from seq2seq.nn import Seq2Seq
from seq2seq.training.callbacks import BatchSeed
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.processes import Requests, freeze_unused


def machine(precision: str, device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Return what tells Lightning where and in which precision to compute; `computing` does the rest of ``tf32``."""
    devices = processes if device.type == "cpu" else [device.index or 0]
    return {"accelerator": device.type, "devices": devices, "precision": precision.replace("tf32", "32-true")}


def bare_loop(
    model: Seq2Seq, shares: Sequence[Sequence[Batch]], precision: str, device: torch.device
) -> Callable[[], float]:
    """Return a function that trains for a pass without a trainer, with a process for each share of the batches.

    Several processes divide this one's threads among them.
    """
    processes = len(shares)
    if processes > 1:
        freeze_unused(model)
    fabric = Fabric(**machine(precision, device, processes), strategy="ddp_spawn" if processes > 1 else "auto")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    threads = max(1, torch.get_num_threads() // processes)
    return partial(fabric.launch, train, model, optimizer, shares, threads)  # pyright: ignore[reportArgumentType]


def train(fabric: Fabric, model: Any, optimizer: Any, shares: Sequence[Sequence[Batch]], threads: int) -> float:  # noqa: ANN401
    """Train on a share of the batches, weighed by its tokens as in a run, and return the seconds of a pass.

    Of several processes, the start and a first pass do not count.
    """
    torch.set_num_threads(threads)
    model, optimizer = fabric.setup(model.train(), optimizer)
    batches = [batch.to(fabric.device) for batch in shares[fabric.global_rank]]
    requests, start = Requests(), 0.0
    for _ in range(min(len(shares), 2)):
        fabric.barrier()
        start = timer()
        for batch in batches:
            optimizer.zero_grad()
            logits = model(batch.source, batch.source_lengths, batch.inputs).logits  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD) * batch.share
            requests.exchange(loss)
            fabric.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        fabric.barrier()
    return timer() - start


def train_with_trainer(module: Seq2SeqModule, batches: Sequence[Batch], precision: str, device: torch.device) -> float:
    """Train for a pass with Lightning's trainer, configured like that of a run, and return its seconds."""
    clock = Timer()
    with TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            **machine(precision, device), max_epochs=1, gradient_clip_val=1.0, log_every_n_steps=10,
            logger=CSVLogger(scratch, name="", version=""), callbacks=[BatchSeed(1), clock], limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(list(batches), batch_size=None))  # pyright: ignore[reportArgumentType]
    return clock.time_elapsed("train")
