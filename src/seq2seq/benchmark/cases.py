"""The timed cases: training in several ways, and search."""

import itertools
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch.utils.benchmark import timer

from seq2seq.api import load_models, make_ensemble
from seq2seq.benchmark.loops import bare_loop, train_with_trainer
from seq2seq.benchmark.roofline import roofline_seconds
from seq2seq.benchmark.timing import Case
from seq2seq.data import Batch, PreparedData, build_source, prepare
from seq2seq.data.dataset import Shares
from seq2seq.decoding import Ensemble, Greedy, Search, build_search, infer
from seq2seq.errors import UserError
from seq2seq.model import ModelSettings
from seq2seq.settings import Count, Settings, choose
from seq2seq.training.build import MatmulPrecision
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.module import Seq2SeqModule

Some = Field(min_length=1)


class BenchmarkSettings(Settings):
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
    batches: Count
    checkpoint: str | list[str] | None
    search_batch_sizes: Annotated[list[Count], Some]
    backends: Annotated[list[Literal["torch", "onnx"]], Some]
    output: str


def load_batches(loader: Iterable[Batch], count: int) -> tuple[list[Batch], float | None]:
    """Return the first ``count`` batches, and how many seconds a trainer waits for so many; None for a single one.

    What only the first batch of an epoch waits for, such as shuffling, is not counted.
    """
    iterator = iter(loader)
    batches = list(itertools.islice(iterator, 1))
    start = timer()
    batches += itertools.islice(iterator, count - 1)
    seconds = timer() - start
    return batches, seconds * len(batches) / (len(batches) - 1) if len(batches) > 1 else None


def make_module(
    settings: BenchmarkSettings, prepared: PreparedData, kind: str, cell: str, fast: str | bool = "auto"
) -> Seq2SeqModule:
    """Build the configured model with another decoder and cell, as training does."""
    torch.manual_seed(0)
    model = settings.model.model_dump()
    model["encoder"] |= {"cell": cell}
    model["decoder"] |= {"cell": cell, "kind": kind}
    tokenizers = {side: getattr(prepared, side).to_dict() for side in ("source_tokenizer", "target_tokenizer")}
    rest: dict[str, Any] = {"label_smoothing": 0.0, "scheduled_sampling": 0.0, "max_length": 1, "data": {}}
    return Seq2SeqModule(model=model, handoff="right", fast=fast, **tokenizers, **rest)


def training_cases(settings: BenchmarkSettings, device: torch.device) -> list[Case]:
    """Return the cases of every combination of batch size, decoder, cell and precision.

    Raises:
        UserError: If a setting is not allowed.
    """
    if device.type == "cpu" and "tf32" in settings.precisions:
        raise UserError("precisions=tf32 needs a GPU; give 32-true or bf16-mixed")
    if device.type != "cpu" and settings.processes:
        raise UserError(f"processes={settings.processes} are timed with device=cpu only")
    cases = []
    for size in settings.batch_sizes:
        prepared = prepare(build_source(settings.data | {"batch_size": size}), ["train"])
        batches, waiting = load_batches(PairsDataModule(prepared).train_dataloader(), settings.batches)
        for kind, cell, precision in itertools.product(settings.kinds, settings.cells, settings.precisions):
            make = partial(make_module, settings, prepared, kind, cell)
            loop = partial(bare_loop, precision=precision, device=device)
            model = make().model
            runs = {"": loop(model, [batches])}
            if settings.trainer_overhead:
                runs["trainer"] = partial(train_with_trainer, make(), batches, precision, device)
            if settings.textbook:
                runs["textbook"] = loop(make(fast=False).model, [batches])
            for processes in settings.processes or ():
                whole = [one.indices.tolist() for one in batches if len(one.indices) >= processes]
                datasets = [Shares(prepared.datasets["train"], rank, processes) for rank in range(processes)]
                shares = [[dataset[indices] for indices in whole] for dataset in datasets]
                runs[f"{processes} process{'es' * (processes > 1)}"] = loop(make().model, shares)
            limit = sum(roofline_seconds(model, batch, precision, device) for batch in batches)
            name = f"{kind}, {cell}, batch {size}, {precision}"
            cases += [Case(name, key, run, batches, precision, limit, waiting) for key, run in runs.items()]
    return cases


def search_cases(settings: BenchmarkSettings, device: torch.device) -> list[Case]:
    """Return greedy search and the configured beam search with the checkpoint, over its test pairs.

    Raises:
        UserError: If the checkpoint or a setting is not valid.
    """
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
    tokenizers = models[0].source_tokenizer, models[0].target_tokenizer
    cases = []
    for size in settings.search_batch_sizes:
        prepared = prepare(build_source(settings.data | {"batch_size": size}), ["test"], tokenizers)
        batches = list(itertools.islice(PairsDataModule(prepared).test_dataloader(), settings.batches))
        for (name, search), backend in itertools.product(searches.items(), settings.backends):
            run = partial(search_all, ensembles[backend], search, batches, device)
            cases.append(Case(f"{name}, batch {size}, {backend}", "", run, batches))
    return cases


def search_all(ensemble: Ensemble, search: Search, batches: list[Batch], device: torch.device) -> None:
    """Run a pass of a search."""
    list(infer(ensemble, batches, device, lambda _, encoded: search(ensemble, encoded)))
