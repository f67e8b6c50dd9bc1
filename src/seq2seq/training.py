"""Train a model: from a composed config to the files that a run leaves behind."""

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console

from seq2seq.building import build_loggers, build_trainer, keep_quiet, plain
from seq2seq.checkpoint import HYPERPARAMETERS, RunCheckpoint, load_module, read_checkpoint
from seq2seq.data.datamodule import PairsDataModule
from seq2seq.data.tasks import build_task
from seq2seq.errors import UserError, check_count
from seq2seq.evaluation import evaluate_split
from seq2seq.files import write_file
from seq2seq.module import Seq2SeqModule
from seq2seq.plots import attention_heatmap, learning_curves, save
from seq2seq.prediction import Predictor
from seq2seq.report import Result, show_groups, show_metrics, show_predictions, write_json, write_predictions

log = logging.getLogger(__name__)

MONITOR = "val/exact_match"
"""What early stopping and the best checkpoint go by: exact match of real decoding."""

HEATMAPS = 4
"""Test items whose attention is drawn."""

RUN_FILES = ("config.yaml", "best.ckpt", "last.ckpt", "metrics.json")
"""Files by which a directory is known to hold a run."""


def train(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train, test the best checkpoint, and leave the results in ``output_dir``.

    Args:
        config: Composed from ``configs/train.yaml``.
        output_dir: The run's directory; it must not hold a run, unless this one resumes.
        overrides: Of the command line, kept beside the config.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If a setting or a file is not what it must be; nothing has been trained or written then.
        SystemExit: With code 130 if the user interrupts.
    """
    keep_quiet()
    settings = plain(config)
    if settings["resume"] is None and any((output_dir / name).exists() for name in RUN_FILES):
        raise UserError(
            f"hydra.run.dir={output_dir} already holds a run; choose another directory, or go on with "
            f"resume={output_dir / 'last.ckpt'}"
        )
    pl.seed_everything(check_count("seed", settings["seed"], minimum=0), workers=True, verbose=False)
    data = PairsDataModule(build_task(settings["data"]), seed=settings["seed"])
    for split in ("train", "val", "test"):  # every mistake in a file is found before anything starts
        data.corpus(split)
    module = build_module(settings, data)
    resumed = check_resumable(settings, module) if settings["resume"] else None
    data.first_epoch = resumed["epoch"] + 1 if resumed else 0
    patience = check_count("early_stopping.patience", settings["early_stopping"]["patience"])
    # Lightning's save_last is no help: it writes only when an epoch was among the best.
    best, last = RunCheckpoint(output_dir, "best", MONITOR), RunCheckpoint(output_dir, "last", None)
    callbacks = [EarlyStopping(MONITOR, mode="max", patience=patience), best, last]
    loggers = build_loggers(config.logger, output_dir)
    trainer = build_trainer(config.trainer, output_dir, callbacks, loggers)
    check_epochs(trainer, data.first_epoch)

    output_dir.mkdir(parents=True, exist_ok=True)
    write_file(output_dir / "config.yaml", lambda file: file.write(OmegaConf.to_yaml(config, resolve=True)))
    write_file(output_dir / "overrides.yaml", lambda file: file.write(OmegaConf.to_yaml(list(overrides))))
    keep_old_rows(loggers, output_dir, resumed)
    for logger in loggers:
        logger.log_hyperparams(settings)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    log.info(
        "%d training pairs, %d source and %d target symbols, %d parameters",
        len(data.corpus("train")),
        len(module.source.vocabulary),
        len(module.target.vocabulary),
        parameters,
    )
    seconds = fit(trainer, module, data, settings["resume"], output_dir)

    module = load_module(str(best.path))
    judge = build_trainer(config.trainer, output_dir)
    results = {
        "validation": evaluate_split(judge, module, data, "val"),
        "test": evaluate_split(judge, module, data, "test"),
    }
    content = {split: result.to_plain() for split, result in results.items()} | {
        "parameters": parameters,
        "seconds": round(seconds, 1),
        "best_checkpoint": str(best.path.absolute()),
    }
    write_predictions(output_dir / "predictions.tsv", results["test"].predictions)
    draw(output_dir, module, results["test"])
    write_json(output_dir / "metrics.json", content)
    show(results, content)
    return content


def build_module(settings: dict[str, Any], data: PairsDataModule) -> Seq2SeqModule:
    """Build the module for the vocabularies of the data."""
    source, target = data.codecs
    max_length = settings["search"]["max_length"]
    if max_length is None:  # twice the longest training target, without its begin and end
        max_length = 2 * (int(data.corpus("train").targets.lengths.max()) - 2)
    task = data.task
    return Seq2SeqModule(
        model=settings["model"],
        optimizer=settings["optimizer"],
        label_smoothing=settings["label_smoothing"],
        source=source.to_plain(),
        target=target.to_plain(),
        max_length=max_length,
        data={"task": settings["data"]["task"]}
        | {key: getattr(task, key) for key in settings["data"] if key != "task"},
    )


def check_resumable(settings: dict[str, Any], module: Seq2SeqModule) -> dict[str, Any]:
    """Return the checkpoint to go on from, if its settings are those of this run.

    Raises:
        UserError: If it is none, or its model, optimiser or vocabularies are others.
    """
    content = read_checkpoint(settings["resume"], "resume")
    saved = content[HYPERPARAMETERS]
    for name in ("model", "optimizer"):
        then = dict(leaves(saved[name], name))
        for key, now in leaves(module.hparams[name], name):
            if now != then[key]:
                raise UserError(
                    f"{key}={now} differs from the {then[key]} that resume={settings['resume']} was trained with; "
                    "give the overrides of that run again"
                )
    for side in ("source", "target"):
        if module.hparams[side] != saved[side]:
            raise UserError(
                f"data: the {side} vocabulary differs from that of resume={settings['resume']}; "
                "give the training data of that run again"
            )
    return content


def leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested dicts, in order, and their values."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value


def check_epochs(trainer: pl.Trainer, done: int) -> None:
    """Refuse a run that has nothing left to do after the epochs that are done."""
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= done:
        raise UserError(
            f"trainer.max_epochs={trainer.max_epochs} must be above the {done} epochs that are done already"
        )


def keep_old_rows(loggers: Sequence[Logger], output_dir: Path, resumed: dict[str, Any] | None) -> None:
    """Keep, for a run that resumes in its own directory, the rows of ``metrics.csv`` up to the checkpoint.

    Lightning's logger starts the file anew.
    """
    path = output_dir / "metrics.csv"
    if resumed is None or not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < resumed["global_step"]]
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            for row in rows:
                numbers = {name: float(value) for name, value in row.items() if value and name != "step"}
                logger.experiment.log_metrics(numbers | {"epoch": int(row["epoch"])}, int(row["step"]))
            logger.save()


def fit(
    trainer: pl.Trainer, module: Seq2SeqModule, data: PairsDataModule, resume: str | None, output_dir: Path
) -> float:
    """Train, and return the seconds it took.

    Raises:
        SystemExit: With code 130 if the user interrupts; the checkpoints so far are kept.
    """
    start = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except SystemExit:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        kept = [str(path) for path in (output_dir / "best.ckpt", output_dir / "last.ckpt") if path.exists()]
        log.error("interrupted; kept: %s", ", ".join(kept) or "no checkpoint, as no epoch was complete")
        raise SystemExit(130) from None
    return time.monotonic() - start


def draw(output_dir: Path, module: Seq2SeqModule, test: Result) -> None:
    """Draw the learning curves, and the attention on the first few test rows, misses first."""
    save(learning_curves(output_dir / "metrics.csv"), output_dir / "learning_curves.png")
    predictor = Predictor(module)
    for number, row in enumerate(test.misses_first()[:HEATMAPS], start=1):
        alignment = predictor.align(row.source)
        if alignment is None:
            log.info("model.attention=none: there are no attention weights to draw")
            return
        save(attention_heatmap(alignment), output_dir / f"attention_{number}.png")


def show(results: dict[str, Result], content: dict[str, Any]) -> None:
    """Print the results."""
    console = Console()
    show_metrics(console, results)
    show_groups(console, results["test"])
    show_predictions(console, results["test"])
    seconds, best = content["seconds"], content["best_checkpoint"]
    console.print(
        f"{content['parameters']:,} parameters, {seconds:.0f} s of training; best checkpoint: {best}",
        soft_wrap=True,
        highlight=False,
    )
