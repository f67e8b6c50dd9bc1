"""What a run leaves after training: the test of its best checkpoint, tables, files and pictures."""

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from seq2seq.api import Hypothesis, Predictor
from seq2seq.data import Split
from seq2seq.errors import UserError
from seq2seq.handoff.picture import draw_handoff
from seq2seq.reporting.plots import HEATMAP_LIMIT, attention_heatmap, learning_curves, save
from seq2seq.reporting.tables import Prediction, Result, show_groups, show_metrics, show_predictions, write_predictions
from seq2seq.reporting.trackers import send_results
from seq2seq.runs.directory import METRICS, PREDICTIONS
from seq2seq.runs.files import write_json
from seq2seq.training.datamodule import PairsDataModule
from seq2seq.training.evaluation import part_used, result_of
from seq2seq.training.module import Seq2SeqModule

log = logging.getLogger(__name__)

HEATMAPS = 4  # test pairs whose attention is drawn


def best_checkpoint(trainer: pl.Trainer) -> str | None:
    """Return the checkpoint to test; None if the run keeps none; raise `UserError` if it should have kept one."""
    best = next((one for one in trainer.checkpoint_callbacks if getattr(one, "monitor", None)), None)
    if best is None or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    path = getattr(best, "best_model_path", "")
    if not path:
        raise UserError("trainer: training ended before its first validation, so there is no checkpoint to test")
    if not Path(path).is_file():
        raise UserError(f"{path} is lost or was never written, see the log: there is no checkpoint to test")
    return path


def test_and_report(
    output_dir: Path, trainer: pl.Trainer, module: Seq2SeqModule, data: PairsDataModule, seconds: float
) -> dict[str, Any]:
    """Test the best checkpoint after ``seconds`` of training, and report; return the content of ``metrics.json``."""
    checkpoint = best_checkpoint(trainer)
    results: dict[str, Result] = {}
    names: dict[Split, str] = {"val": "validation", "test": "test"}
    for split, name in names.items():
        module.predictions = {}
        run = trainer.validate if split == "val" else trainer.test
        run(module, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True)
        if module.predictions:
            results[name] = result_of(module, data, split)
    part = part_used(trainer, data, "train")
    content = {split: result.to_dict() for split, result in results.items()} | {
        **({"training": {"part": part}} if part else {}),
        "handoff": module.hparams["handoff"],
        "monitor": module.config["monitor"],
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "seconds": round(seconds, 1),
        "best_checkpoint": checkpoint and str(Path(checkpoint).absolute()),
    }
    if trainer.is_global_zero:
        report(output_dir, trainer, module, results, content)
    return content


def report(
    output_dir: Path, trainer: pl.Trainer, module: Seq2SeqModule, results: dict[str, Result], content: dict[str, Any]
) -> None:
    """Write and draw the results, give them to the trackers, and print them; nobody may be reading what is printed."""
    test = results.get("test")
    predictions = test.predictions if test else []
    module.cpu().eval()
    metrics = output_dir / "metrics.csv"
    if metrics.exists():
        save(learning_curves(metrics), output_dir / "learning_curves.png")
    try:
        draw_handoff(output_dir / "handoff.png", module.trained)
    except Exception as error:  # a part of the user's may not compute in double precision; the results matter more
        log.warning("handoff.png is not drawn: %s", error)
    if test:
        write_predictions(output_dir / PREDICTIONS, predictions)
        draw_attention(output_dir, module, predictions)
    send_results(trainer.loggers, output_dir, predictions)
    write_json(output_dir / METRICS, content)  # after all other files: it marks the run as finished
    console = Console()
    show_metrics(console, results)
    if test:
        show_groups(console, test)
        show_predictions(console, test)
    trained = f" on {content['training']['part']}" if "training" in content else ""
    summary = f"{content['parameters']:,} parameters, {content['seconds']:.0f} s of training{trained}"
    checkpoint = content["best_checkpoint"] or "none, the final weights were tested"
    console.print(f"{summary}; best checkpoint: {checkpoint}", soft_wrap=True, markup=False)


def draw_attention(output_dir: Path, module: Seq2SeqModule, predictions: Sequence[Prediction]) -> None:
    """Draw the attention for a few predictions that are not too long, misses first."""
    predictor = Predictor([module.trained], search=module.search)
    decoded = [ids for _, ids in sorted(module.predictions.items())]
    pairs = sorted(zip(predictions, decoded, strict=True), key=lambda one: one[0].correct)
    tokens = module.tokenizers.tokens
    short = (one for one in pairs if max(sum(map(len, tokens(one[0].source))), len(one[1])) <= HEATMAP_LIMIT)
    for number, (pair, ids) in enumerate(islice(short, HEATMAPS), start=1):
        alignment = predictor.align(pair.source, Hypothesis(pair.prediction, 0.0, ids, 0.0))
        if alignment is None:
            log.info("model.attention=none: there are no attention weights to draw")
            return
        save(attention_heatmap(alignment), output_dir / f"attention_{number}.png")
