"""Passes over batches that train a model: in a bare loop, with Lightning's trainer, and by several processes."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from seq2seq.data import PAD, Batch
from seq2seq.nn import Seq2Seq
from seq2seq.training.build import matmul_precision
from seq2seq.training.callbacks import BatchSeed
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.processes import Requests, freeze_unused

CPU = torch.device("cpu")


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in a precision, and wait for the device in the end; ``tf32`` is 32-bit with rounded multiplications."""
    rounded = precision == "tf32"
    with (
        matmul_precision("high") if rounded else nullcontext(),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=rounded),  # by default, its recurrent layers round
    ):
        yield
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def bare_loop(
    model: Seq2Seq | DistributedDataParallel, batches: Sequence[Batch], precision: str, device: torch.device = CPU
) -> Callable[[], None]:
    """Return a function that trains for a pass without a trainer: forward, backward, clip, step.

    Of several processes, each weighs its loss by its share of the tokens, as in a run.
    """
    model = model.to(device)
    batches = [batch.to(device) for batch in batches]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    requests = Requests()

    def run() -> None:
        model.train()
        with computing(precision, device):
            for batch in batches:
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                    logits = model(batch.source, batch.source_lengths, batch.inputs).logits  # (B, T, V)
                    loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD)
                loss = loss * batch.share
                requests.exchange(loss)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

    return run


def trainer_loop(
    module: Seq2SeqModule, batches: Sequence[Batch], precision: str, output_dir: Path, device: torch.device
) -> Callable[[], float]:
    """Return a function that trains for a pass with Lightning's trainer, configured like that of a run."""
    loader = DataLoader(list(batches), batch_size=None)  # pyright: ignore[reportArgumentType]

    def run() -> float:
        timer = Timer()
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu" if device.type == "cpu" else "gpu", devices=1, gradient_clip_val=1.0,
            precision="32-true" if precision == "tf32" else precision,  # pyright: ignore[reportArgumentType]
            logger=CSVLogger(output_dir, name="", version=""), log_every_n_steps=10, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[BatchSeed(1), timer],
        )  # fmt: skip
        with computing(precision, device):
            trainer.fit(module, loader)
        return timer.time_elapsed("train")

    return run


def processes_loop(model: Seq2Seq, shares: Sequence[Sequence[Batch]], precision: str) -> Callable[[], float]:
    """Return a function that trains for a pass with a process for each share.

    The processes divide this one's threads among them. Their start and a first pass do not count.
    """
    freeze_unused(model)

    def run() -> float:
        seconds = torch.zeros((), dtype=torch.float64)  # in memory that the processes share
        threads = max(1, torch.get_num_threads() // len(shares))
        with tempfile.TemporaryDirectory() as scratch:
            arguments = (model, shares, precision, threads, f"file://{scratch}/store", seconds)
            spawn(train_share, arguments, nprocs=len(shares))
        return float(seconds)

    return run


def train_share(
    rank: int,
    model: Seq2Seq,
    shares: Sequence[Sequence[Batch]],
    precision: str,
    threads: int,
    store: str,
    seconds: Tensor,
) -> None:
    """Train for two passes as one of several processes; the first of them fills in the ``seconds`` of the second."""
    torch.set_num_threads(threads)
    limit = timedelta(minutes=2)  # of waiting for another process
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=len(shares), timeout=limit)
    model = copy.deepcopy(model)  # its memory is shared
    run = bare_loop(DistributedDataParallel(model) if len(shares) > 1 else model, shares[rank], precision)
    run()
    distributed.barrier()
    start = perf_counter()
    run()
    distributed.barrier()
    if rank == 0:
        seconds.fill_(perf_counter() - start)
    distributed.destroy_process_group()
