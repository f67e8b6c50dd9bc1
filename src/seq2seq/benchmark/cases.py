"""The timed cases: training in several ways, and search."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from seq2seq.api import load_models, make_ensemble
from seq2seq.benchmark.loops import bare_loop, computing, processes_loop, trainer_loop
from seq2seq.benchmark.roofline import recurrent_seconds, roofline_seconds
from seq2seq.benchmark.timing import TEXTBOOK, Case
from seq2seq.data import Batch, PreparedData, build_source, prepare
from seq2seq.decoding import Greedy, Search, build_search, infer
from seq2seq.errors import UserError, check_choice
from seq2seq.export.backend import load_exports
from seq2seq.nn import Seq2Seq
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.module import Seq2SeqModule


def contents(batches: Sequence[Batch]) -> dict[str, Any]:
    """Return the number of sequences and target tokens in batches, and the share of padding, as a `Case` has them."""
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    real = tokens + sum(int(batch.source_lengths.sum()) for batch in batches)
    padded = sum(batch.source.numel() + batch.inputs.numel() for batch in batches)
    return {"sequences": sum(len(batch.indices) for batch in batches), "tokens": tokens, "padding": 1 - real / padded}


def load_batches(loader: Iterable[Batch], count: int) -> tuple[list[Batch], float | None]:
    """Return the first ``count`` batches, and how many seconds a trainer waits for so many; None for a single one.

    What only the first batch of an epoch waits for, such as shuffling, is not counted.
    """
    iterator = iter(loader)
    batches = list(itertools.islice(iterator, 1))
    start = time.perf_counter()
    batches += itertools.islice(iterator, count - 1)
    seconds = time.perf_counter() - start
    return batches, seconds * len(batches) / (len(batches) - 1) if len(batches) > 1 else None


def training_cases(settings: dict[str, Any], device: torch.device, count: int, scratch: Path) -> list[Case]:
    """Return the cases of every combination of batch size, decoder, cell and precision.

    Args:
        settings: The config.
        device: Where to compute.
        count: Number of batches in a pass.
        scratch: Directory for the trainer's logs.

    Raises:
        UserError: If a setting is not allowed.
    """
    sizes, overhead, textbook = settings["batch_sizes"], settings["trainer_overhead"], settings["textbook"]
    if device.type == "cpu" and "tf32" in settings["precisions"]:
        raise UserError("precisions=tf32 needs a GPU; give 32-true or bf16-mixed")
    if device.type != "cpu" and settings["processes"]:
        raise UserError(f"processes={settings['processes']} are timed with device=cpu only")
    cases = []
    for size in sizes:
        data = prepare(build_source(settings["data"] | {"batch_size": size}), ["train"])
        batches, waiting = load_batches(PairsDataModule(data).train_dataloader(), count)
        for kind, cell, precision in itertools.product(settings["kinds"], settings["cells"], settings["precisions"]):
            model = make_module(settings["model"], data, cell, kind).model
            numbers: dict[str, Any] = contents(batches) | {"waiting": waiting}
            numbers["limit"] = sum(limit(model, batch, precision, device) for batch in batches)
            name = f"{kind}, {cell}, batch {size}, {precision}"
            cases.append(Case(name, bare_loop(model, batches, precision, device), **numbers))
            if overhead:
                module = make_module(settings["model"], data, cell, kind)
                run = trainer_loop(module, batches, precision, scratch, device)
                cases.append(Case(name, run, **numbers, variant="trainer"))
            if textbook:
                model = make_module(settings["model"], data, cell, kind, fast=False).model
                cases.append(Case(name, bare_loop(model, batches, precision, device), **numbers, variant=TEXTBOOK))
            for processes in settings["processes"] or ():
                dataset = data.datasets["train"]
                whole = [one.indices.tolist() for one in batches if len(one.indices) >= processes]
                shares = [[dataset[indices[rank::processes]] for indices in whole] for rank in range(processes)]
                run = processes_loop(make_module(settings["model"], data, cell, kind).model, shares, precision)
                variant = f"{processes} process{'es' * (processes > 1)}"
                cases.append(Case(name, run, **numbers, variant=variant))
    return cases


def limit(model: Seq2Seq, batch: Batch, precision: str, device: torch.device) -> float:
    """Return the seconds that a step could not do without; see `roofline`."""
    if device.type == "cpu":
        return roofline_seconds(model, batch, precision)
    return recurrent_seconds(model, batch, precision, device)


def make_module(
    model: dict[str, Any], data: PreparedData, cell: str, kind: str, fast: str | bool = "auto"
) -> Seq2SeqModule:
    """Build the module of a case from the section ``model``, with another cell and decoder."""
    parts = {"encoder": model["encoder"] | {"cell": cell}, "decoder": model["decoder"] | {"cell": cell, "kind": kind}}
    torch.manual_seed(0)
    return Seq2SeqModule(
        model=model | parts,
        handoff="right",
        label_smoothing=0.0,
        scheduled_sampling=0.0,
        source_tokenizer=data.source_tokenizer.to_dict(),
        target_tokenizer=data.target_tokenizer.to_dict(),
        max_length=1,
        data={},
        fast=fast,
    )


def search_cases(settings: dict[str, Any], device: torch.device, count: int) -> list[Case]:
    """Return greedy search and the configured beam search with the checkpoint, over its test pairs.

    Args:
        settings: The config.
        device: Where to compute.
        count: Number of batches in a pass.

    Raises:
        UserError: If the checkpoint or a setting is not valid.
    """
    check_choice("search.kind", settings["search"].get("kind"), ["beam"])
    modules = load_models(settings["checkpoint"])
    module = modules[0]
    beam = build_search(settings["search"], module.max_length, len(module.target_tokenizer.vocabulary))
    if isinstance(beam, Greedy):
        raise UserError("search.beam_size=1 is greedy search, which is timed in any case; give a wider beam")
    searches = {"greedy": Greedy(beam.max_length), f"beam {settings['search']['beam_size']}": beam}
    ensembles = {"torch": make_ensemble(modules, device)}
    if "onnx" in settings["backends"]:
        if device.type != "cpu":
            raise UserError(f"backends=onnx does not fit device={device}: it computes on the CPU")
        ensembles["onnx"] = make_ensemble(load_exports(settings["checkpoint"]), device)

    def pass_of(backend: str, search: Search, batches: Sequence[Batch]) -> Callable[[], None]:
        ensemble = ensembles[backend]

        def run() -> None:
            with computing("32-true", device):
                for _ in infer(ensemble, batches, device, lambda _, encoded: search(ensemble, encoded)):
                    pass

        return run

    cases = []
    for size in settings["search_batch_sizes"]:
        source = build_source(settings["data"] | {"batch_size": size})
        data = prepare(source, ["test"], (module.source_tokenizer, module.target_tokenizer))
        batches = list(itertools.islice(PairsDataModule(data).test_dataloader(), count))
        for name, search in searches.items():
            for backend in settings["backends"]:
                run = pass_of(backend, search, batches)
                cases.append(Case(f"{name}, batch {size}, {backend}", run, **contents(batches)))
    return cases
