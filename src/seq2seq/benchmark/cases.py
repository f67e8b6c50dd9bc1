"""The timed cases: training in several ways, and search."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch.utils.benchmark import timer

from seq2seq.api import load_models, make_ensemble
from seq2seq.benchmark.loops import bare_loop, computing, processes_loop, trainer_loop
from seq2seq.benchmark.roofline import recurrent_seconds, roofline_seconds
from seq2seq.benchmark.timing import TEXTBOOK, Case
from seq2seq.data import Batch, build_source, prepare
from seq2seq.data.dataset import Shares
from seq2seq.decoding import Ensemble, Greedy, Search, build_search, infer
from seq2seq.errors import UserError
from seq2seq.model import ModelSettings, TrainedModel
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


def load_data(settings: BenchmarkSettings, size: int, model: TrainedModel | None = None) -> PairsDataModule:
    """Return the data in batches of a size: for training, or the test pairs as a trained model reads them."""
    source = build_source(settings.data | {"batch_size": size})
    if model is None:
        return PairsDataModule(prepare(source, ["train"]))
    return PairsDataModule(prepare(source, ["test"], (model.source_tokenizer, model.target_tokenizer)))


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


def contents(batches: Sequence[Batch]) -> dict[str, Any]:
    """Return the number of sequences and target tokens in batches, and the share of padding, as a `Case` has them."""
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    real = tokens + sum(int(batch.source_lengths.sum()) for batch in batches)
    padded = sum(batch.source.numel() + batch.inputs.numel() for batch in batches)
    return {"sequences": sum(len(batch.indices) for batch in batches), "tokens": tokens, "padding": 1 - real / padded}


def training_cases(settings: BenchmarkSettings, device: torch.device, scratch: Path) -> list[Case]:
    """Return the cases of every combination of batch size, decoder, cell and precision.

    Raises:
        UserError: If a setting is not allowed.
    """
    on_cpu = device.type == "cpu"
    if on_cpu and "tf32" in settings.precisions:
        raise UserError("precisions=tf32 needs a GPU; give 32-true or bf16-mixed")
    if not on_cpu and settings.processes:
        raise UserError(f"processes={settings.processes} are timed with device=cpu only")
    cases = []
    for size in settings.batch_sizes:
        data = load_data(settings, size)
        loader, dataset = data.train_dataloader(), data.prepared.datasets["train"]
        batches, waiting = load_batches(loader, settings.batches)
        for kind, cell, precision in itertools.product(settings.kinds, settings.cells, settings.precisions):
            make = partial(make_module, settings.model, data, cell, kind)
            model = make().model
            limits = [
                roofline_seconds(model, batch, precision) if on_cpu
                else recurrent_seconds(model, batch, precision, device) for batch in batches
            ]  # fmt: skip
            runs: dict[str, Callable[[], float | None]] = {"": bare_loop(model, batches, precision, device)}
            if settings.trainer_overhead:
                runs["trainer"] = trainer_loop(make(), batches, precision, scratch, device)
            if settings.textbook:
                runs[TEXTBOOK] = bare_loop(make(fast=False).model, batches, precision, device)
            for processes in settings.processes or ():
                whole = [one.indices.tolist() for one in batches if len(one.indices) >= processes]
                shares = [list(map(Shares(dataset, rank, processes).__getitem__, whole)) for rank in range(processes)]
                variant = f"{processes} process{'es' * (processes > 1)}"
                runs[variant] = processes_loop(make().model, shares, precision)
            name = f"{kind}, {cell}, batch {size}, {precision}"
            numbers = contents(batches) | {"limit": sum(limits), "waiting": waiting}
            cases += [Case(name, run, **numbers, variant=variant) for variant, run in runs.items()]
    return cases


def make_module(
    model: ModelSettings, data: PairsDataModule, cell: str, kind: str, fast: str | bool = "auto"
) -> Seq2SeqModule:
    """Build the module of a case from the section ``model``, with another cell and decoder."""
    values = model.model_dump()
    values["encoder"]["cell"] = values["decoder"]["cell"] = cell
    values["decoder"]["kind"] = kind
    torch.manual_seed(0)
    return Seq2SeqModule(
        model=values, handoff="right", label_smoothing=0.0, scheduled_sampling=0.0, max_length=1, data={}, fast=fast,
        source_tokenizer=data.prepared.source_tokenizer.to_dict(),
        target_tokenizer=data.prepared.target_tokenizer.to_dict(),
    )  # fmt: skip


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
    cases = []
    for size in settings.search_batch_sizes:
        batches = list(itertools.islice(load_data(settings, size, models[0]).test_dataloader(), settings.batches))
        for (name, search), backend in itertools.product(searches.items(), settings.backends):
            run = partial(search_all, ensembles[backend], search, batches, device)
            cases.append(Case(f"{name}, batch {size}, {backend}", run, **contents(batches)))
    return cases


def search_all(ensemble: Ensemble, search: Search, batches: Sequence[Batch], device: torch.device) -> None:
    """Run a pass of a search."""
    with computing("32-true", device):
        for _ in infer(ensemble, batches, device, lambda _, encoded: search(ensemble, encoded)):
            pass
