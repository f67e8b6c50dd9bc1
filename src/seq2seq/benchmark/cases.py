"""What the benchmark times: a pass of training, bare and by the trainer, and a pass of search."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from seq2seq.api import check_one_vocabulary, load_modules
from seq2seq.benchmark.plain import DECODERS, plain_loop, training_loop
from seq2seq.benchmark.roofline import limit_seconds
from seq2seq.commands.evaluate import warn_of_unknown
from seq2seq.data import Batch
from seq2seq.data.datamodule import PairsDataModule
from seq2seq.data.sources import Split, build_task
from seq2seq.decoding.greedy import encode
from seq2seq.decoding.search import Search, build_search
from seq2seq.errors import UserError, check_choice, check_count, check_flag
from seq2seq.training.callbacks import BatchSeed
from seq2seq.training.module import Seq2SeqModule

PLAIN = ", plain"
"""What the name of a plain model's case ends with."""

PRECISIONS = ("32-true", "bf16-mixed")


class Case(NamedTuple):
    """What is timed.

    Attributes:
        name: For the table.
        run: Takes a pass over all batches, and returns the seconds that count, or None if all do.
        words: Rows of a pass.
        tokens: Target tokens of a pass, the ends included.
        padding: Share of the source and target places of a pass that are padding.
        limit: Seconds that the matrix products of a pass would take by themselves; not a number if it is not known.
        bare: Whether this is a training loop without a trainer, whose steps a profile can look into.
    """

    name: str
    run: Callable[[], float | None]
    words: int
    tokens: int
    padding: float
    limit: float
    bare: bool = False


def batches_of(data: PairsDataModule, split: Split, count: int) -> list[Batch]:
    """Return the first batches of a split; of the training split, in the order of its first epoch."""
    return list(itertools.islice(data.loader(split), count))


def contents(batches: Sequence[Batch]) -> tuple[int, int, float]:
    """Return the words and target tokens of batches, and the share of their places that is padding."""
    places = sum(batch.source.numel() + batch.inputs.numel() for batch in batches)
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    real = tokens + sum(int(batch.source_lengths.sum()) for batch in batches)
    return sum(len(batch.rows) for batch in batches), tokens, 1 - real / places


def training_cases(settings: dict[str, Any], count: int, scratch: Path) -> list[Case]:
    """Return a bare training loop for each combination, and beside it the trainer's and that of a plain model."""
    cases = []
    for key in ("batch_sizes", "cells", "kinds", "precisions"):
        if not isinstance(settings[key], list) or not settings[key]:
            raise UserError(f"{key}={settings[key]} must be a list of at least one")
    for precision in settings["precisions"]:
        check_choice("precisions", precision, PRECISIONS)
    for size in settings["batch_sizes"]:
        check_count("batch_sizes", size)
    overhead = check_flag("trainer_overhead", settings["trainer_overhead"])
    plain = check_flag("plain", settings["plain"])
    for size, cell, kind, precision in itertools.product(
        settings["batch_sizes"], settings["cells"], settings["kinds"], settings["precisions"]
    ):
        data = PairsDataModule(build_task(settings["data"] | {"batch_size": size}), seed=0)
        batches = batches_of(data, "train", count)
        module = make_module(settings, data, cell, kind)
        limit = sum(limit_seconds(module.model, batch, precision) for batch in batches)
        numbers = (*contents(batches), limit)
        name = f"{kind}, {cell}, batch {size}, {precision}"
        cases.append(Case(name, bare_loop(module, batches, precision), *numbers, bare=True))
        if overhead:
            module = make_module(settings, data, cell, kind)
            cases.append(Case(f"{name}, trainer", trainer_loop(module, batches, precision, scratch), *numbers))
        if plain and type(module.model.decoder) in DECODERS:
            model = make_module(settings, data, cell, kind).model
            cases.append(Case(f"{name}{PLAIN}", plain_loop(model, batches, precision), *numbers))
    return cases


def make_module(settings: dict[str, Any], data: PairsDataModule, cell: str, kind: str) -> Seq2SeqModule:
    """Build the module of a case."""
    torch.manual_seed(0)
    source, target = data.codecs
    model = settings["model"]
    parts = {"encoder": model["encoder"] | {"cell": cell}, "decoder": model["decoder"] | {"cell": cell, "kind": kind}}
    return Seq2SeqModule(
        model=model | parts,
        handoff="right",
        optimizer={"lr": 1e-3, "warmup": 0.0, "weight_decay": 0.01},
        label_smoothing=0.0,
        scheduled_sampling=0.0,
        source=source.to_plain(),
        target=target.to_plain(),
        max_length=1,
        data={},
    )


def bare_loop(module: Seq2SeqModule, batches: Sequence[Batch], precision: str) -> Callable[[], None]:
    """Return a pass of training without a trainer."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    module.log = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    module.optimizers = lambda *_, **__: optimizer  # pyright: ignore[reportAttributeAccessIssue]
    return training_loop(module, lambda batch: module.training_step(batch, 0), optimizer, batches, precision)


class Clock(pl.Callback):
    """Times an epoch without what comes before and after it."""

    def __init__(self) -> None:
        self.start = self.seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


def trainer_loop(
    module: Seq2SeqModule, batches: Sequence[Batch], precision: str, output_dir: Path
) -> Callable[[], float]:
    """Return an epoch of Lightning's trainer over the same batches, with what a run of ours has in its steps."""
    clock = Clock()
    loader = DataLoader(list(batches), batch_size=None)  # pyright: ignore[reportArgumentType]

    def run() -> float:
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", devices=1, precision=precision, gradient_clip_val=1.0,  # pyright: ignore[reportArgumentType]
            logger=CSVLogger(output_dir, name="", version=""), log_every_n_steps=10, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[BatchSeed(1), clock],
        )  # fmt: skip
        trainer.fit(module, loader)
        return clock.seconds

    return run


def search_cases(settings: dict[str, Any], count: int) -> list[Case]:
    """Return greedy search and the configured one, by the checkpoint, over its test pairs."""
    check_choice("search.kind", settings["search"].get("kind"), ["beam"])
    modules = load_modules(settings["checkpoint"])
    check_one_vocabulary(modules)
    module = modules[0].eval()
    size = check_count("search_batch_size", settings["search_batch_size"])
    task = build_task(settings["data"] | {"batch_size": size})
    data = PairsDataModule(task, seed=0, codecs=(module.source, module.target))
    warn_of_unknown(data.corpus("test"))
    batches = batches_of(data, "test", count)
    wanted = build_search(settings["search"], module.max_length, len(module.target.vocabulary))
    named = {"greedy": Search(wanted.max_length), f"beam {wanted.beam_size}": wanted}
    if wanted.beam_size == 1:
        raise UserError("search.beam_size=1 is greedy search, which is timed in any case; give a wider beam")

    models = [one.model for one in modules]

    def run(search: Search) -> None:
        with torch.inference_mode():
            for batch in batches:
                search(models, encode(models, batch.source, batch.source_lengths))

    return [
        Case(f"{name}, batch {size}", lambda search=search: run(search), *contents(batches), math.nan)
        for name, search in named.items()
    ]
