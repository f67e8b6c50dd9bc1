"""Log-probabilities of given pairs, for `scripts/score.py`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from seq2seq.api import check_one_vocabulary, find_device, load_modules
from seq2seq.commands.evaluate import merge_data, warn_of_unknown
from seq2seq.commands.predict import utf8_stdout, write_lines
from seq2seq.data.datamodule import PairsDataModule
from seq2seq.data.sources import build_task
from seq2seq.decoding.greedy import encode, teacher_forced
from seq2seq.errors import check_keys
from seq2seq.runs.files import check_different, output_file
from seq2seq.training.build import plain
from seq2seq.training.module import Seq2SeqModule


def score(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Write a line for each test pair: the log-probability of its target, the mean of its tokens, and each, in nats.

    The end of the target is its last token. A token that the checkpoint does not know is scored as the unknown symbol.

    Raises:
        UserError: If the checkpoint, a file or a setting is not what it must be.
    """
    settings = plain(config)
    check_keys("", {"data": None} | settings, ["checkpoint", "data", "output", "device"])
    modules = load_modules(settings["checkpoint"])
    check_one_vocabulary(modules)
    task = build_task(merge_data(modules[0].hparams["data"], settings.get("data"), overrides))
    data = PairsDataModule(task, seed=0, codecs=(modules[0].source, modules[0].target))
    check_different(**{"data.test": getattr(task, "test", None), "output": settings["output"]})
    warn_of_unknown(data.corpus("test"))
    scores = token_log_probs(modules, data, find_device(settings["device"]))
    lines = [line_of(scores[row]) for row in range(len(data.corpus("test")))]
    if settings["output"] is not None:
        with output_file(Path(str(settings["output"])).expanduser(), "output") as file:
            file.writelines(lines)
    else:
        write_lines(utf8_stdout(), lines)


def line_of(tokens: Sequence[float]) -> str:
    """Return the line of a pair, of the log-probabilities of its target's tokens."""
    total = sum(tokens)
    return f"{total:.4f}\t{total / len(tokens):.4f}\t{' '.join(f'{value:.4f}' for value in tokens)}\n"


@torch.inference_mode()
def token_log_probs(
    modules: Sequence[Seq2SeqModule], data: PairsDataModule, device: torch.device
) -> dict[int, list[float]]:
    """Return, by the row of each test pair, the log-probability of each target token and of the end."""
    models = [module.model.to(device).eval() for module in modules]
    scores = {}
    for batch in data.loader("test"):
        moved = batch.to(device)
        log_probs = teacher_forced(models, encode(models, moved.source, moved.source_lengths), moved.inputs)
        chosen = log_probs.gather(-1, moved.labels.unsqueeze(-1)).squeeze(-1).tolist()
        for row, length, values in zip(batch.rows.tolist(), batch.target_lengths.tolist(), chosen, strict=True):
            scores[row] = values[:length]
    return scores
