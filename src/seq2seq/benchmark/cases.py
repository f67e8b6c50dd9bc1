"""The timed cases: training in a bare loop, by one process or several, and with Lightning's trainer; and search."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from pydantic import Field
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import timer
from torch.utils.data import DataLoader

from seq2seq.api import load_models, make_ensemble
from seq2seq.benchmark.timing import Case, computing, roofline_seconds
from seq2seq.data import PAD, Batch, PreparedData, build_source, prepare
from seq2seq.data.dataset import Shares
from seq2seq.decoding import Ensemble, EnsembleEncoded, Greedy, Inference, Results, Search, build_search
from seq2seq.errors import UserError
from seq2seq.model import ModelSettings
from seq2seq.nn import Seq2Seq
from seq2seq.settings import CommandSettings, Count, Natural, choose
from seq2seq.training.build import MatmulPrecision
from seq2seq.training.callbacks import BatchSeed
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.processes import Requests, freeze_unused

Some = Field(min_length=1)


class BenchmarkSettings(CommandSettings):
    """The keys of ``configs/benchmark.yaml``."""

    data: dict[str, Any]
    model: ModelSettings
    search: dict[str, Any]
    batch_sizes: Annotated[list[Count], Some]
    kinds: Annotated[list[str], Some]
    cells: Annotated[list[str], Some]
    device: str
    precisions: Annotated[list[Literal["32-true", "tf32", "bf16-mixed"]], Some]
    matmul_precision: MatmulPrecision
    trainer_overhead: bool
    textbook: bool
    processes: Annotated[list[Count], Some] | None
    rounds: Count
    busy: bool
    batches: Count
    checkpoint: str | list[str] | None
    search_batch_sizes: Annotated[list[Count], Some]
    workers: Annotated[list[Natural], Some]
    backends: Annotated[list[Literal["torch", "onnx"]], Some]
    output: str


def training_cases(settings: BenchmarkSettings, device: torch.device) -> list[Case]:
    """Return every combination of batch size, decoder, cell and precision; raise a `UserError` if one is not valid."""
    if device.type == "cpu" and "tf32" in settings.precisions:
        raise UserError("precisions=tf32 needs a GPU; give 32-true or bf16-mixed")
    if device.type != "cpu" and settings.processes:
        raise UserError(f"processes={settings.processes} are timed with device=cpu only")
    lightning = {"accelerator": device.type, "devices": 1 if device.type == "cpu" else [device.index or 0]}
    cases = []
    for size in settings.batch_sizes:
        prepared = prepare(build_source(settings.data | {"batch_size": size}), ["train"])
        batches, waiting = load_batches(PairsDataModule(prepared).train_dataloader(), settings.batches)
        for kind, cell, precision in itertools.product(settings.kinds, settings.cells, settings.precisions):
            make = partial(make_module, settings.model, prepared, kind, cell)
            machine = lightning | {"precision": precision.replace("tf32", "32-true")}  # `computing` does the rest
            model = make().model
            runs = {"": bare_loop(model, [batches], machine)}
            if settings.trainer_overhead:
                runs["trainer"] = partial(train_with_trainer, make(), batches, machine)
            if settings.textbook:
                runs["textbook"] = bare_loop(make(fast=False).model, [batches], machine)
            for processes in settings.processes or ():
                whole = [one.indices.tolist() for one in batches if len(one.indices) >= processes]
                datasets = [Shares(prepared.datasets["train"], rank, processes) for rank in range(processes)]
                shares = [[dataset[indices] for indices in whole] for dataset in datasets]
                runs[f"{processes} process{'es' * (processes > 1)}"] = bare_loop(make().model, shares, machine)
            limit = sum(roofline_seconds(model, batch, precision, device) for batch in batches)
            name = f"{kind}, {cell}, batch {size}, {precision}"
            computed = computing(precision)
            cases += [Case(name, key, computed(run), batches, limit, waiting) for key, run in runs.items()]
    return cases


def load_batches(loader: Iterable[Batch], count: int) -> tuple[list[Batch], float | None]:
    """Return the first ``count`` batches, and how many seconds a trainer waits for so many; None for a single one.

    What only the first batch of an epoch waits for, such as shuffling, is not counted.
    """
    iterator = iter(loader)
    first, start = next(iterator), timer()
    rest = list(itertools.islice(iterator, count - 1))
    return [first, *rest], (timer() - start) * (1 + 1 / len(rest)) if rest else None


def make_module(
    settings: ModelSettings, prepared: PreparedData, kind: str, cell: str, fast: str | bool = "auto"
) -> Seq2SeqModule:
    """Build the configured model with another decoder and cell, as training does."""
    torch.manual_seed(0)
    model = settings.model_dump()
    model["encoder"] |= {"cell": cell}
    model["decoder"] |= {"cell": cell, "kind": kind}
    tokenizers: dict[str, Any] = prepared.tokenizers.arguments()
    return Seq2SeqModule(
        model=model, handoff="right", fast=fast, label_smoothing=0.0, scheduled_sampling=0.0, max_length=1, data={},
        **tokenizers,
    )  # fmt: skip


def bare_loop(model: Seq2Seq, shares: Sequence[Sequence[Batch]], machine: dict[str, Any]) -> Callable[[], float]:
    """Return a function that trains for a pass without a trainer, with a process for each share of the batches.

    Several processes divide this one's threads among them. ``machine`` holds arguments of Lightning's Fabric.
    """
    if len(shares) > 1:
        freeze_unused(model)
        machine = machine | {"devices": len(shares), "strategy": "ddp_spawn"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    threads = max(1, torch.get_num_threads() // len(shares))
    return partial(Fabric(**machine).launch, train, model, optimizer, shares, threads)  # pyright: ignore[reportArgumentType]


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
            logits = model(batch.source, batch.source_lengths, batch.inputs, batch.features).logits  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD) * batch.share
            requests.exchange(loss)
            fabric.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        fabric.barrier()
    return timer() - start


def train_with_trainer(module: Seq2SeqModule, batches: Sequence[Batch], machine: dict[str, Any]) -> float:
    """Train for a pass with Lightning's trainer, configured like that of a run, and return its seconds."""
    clock = Timer()
    with TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            **machine, max_epochs=1, gradient_clip_val=1.0, log_every_n_steps=10,
            logger=CSVLogger(scratch, name="", version=""), callbacks=[BatchSeed(1), clock], limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(list(batches), batch_size=None))  # pyright: ignore[reportArgumentType]
    return clock.time_elapsed("train")


def search_cases(settings: BenchmarkSettings, device: torch.device) -> list[Case]:
    """Return greedy search and the configured beam with the checkpoint; raise a `UserError` if a value is not valid."""
    choose("search.kind", settings.search.get("kind"), {"beam": ()})
    models = load_models(settings.checkpoint)
    beam = build_search(settings.search, models[0].max_length, models[0].target_size)
    if isinstance(beam, Greedy):
        raise UserError("search.beam_size=1 is greedy search, which is timed in any case; give a wider beam")
    searches = {"greedy": Greedy(beam.max_length), f"beam {settings.search['beam_size']}": beam}
    ensembles = {"torch": make_ensemble(models, device)}
    if "onnx" in settings.backends:
        if device.type != "cpu":
            raise UserError(f"backends=onnx does not fit device={device}: it computes on the CPU")
        from seq2seq.export.backend import load_exports  # only here, so that it can be deleted

        ensembles["onnx"] = make_ensemble(load_exports(settings.checkpoint), device)
    cases = []
    for size in settings.search_batch_sizes:
        prepared = prepare(build_source(settings.data | {"batch_size": size}), ["test"], models[0].tokenizers)
        batches = list(itertools.islice(PairsDataModule(prepared).test_dataloader(), settings.batches))
        for (name, search), backend, workers in itertools.product(
            searches.items(), settings.backends, settings.workers
        ):
            results = Results(
                ensembles[backend], device, batches.__getitem__, partial(found, search, ensembles[backend])
            )
            run = partial(run_through, Inference(results, workers), len(batches))
            variant = f"{workers} worker{'s' * (workers > 1)}" * (workers > 0)
            cases.append(Case(f"{name}, batch {size}, {backend}", variant, computing("32-true")(run), batches))
    return cases


def found(search: Search, ensemble: Ensemble, _: int, __: Batch, encoded: EnsembleEncoded) -> list[list[float]]:
    """Return the log-probabilities of what a search finds for a batch."""
    return search(ensemble, encoded).log_probs.tolist()


def run_through(inference: Inference, batches: int) -> None:
    """Run a pass of a search."""
    list(inference(range(batches)))
