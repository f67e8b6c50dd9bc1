"""A run that dies anywhere and starts again with the same command ends like a run that never died, bit for bit."""

import csv
import errno
import os
import signal

import pytest
import torch
from conftest import TINY, combinations

from seq2seq.commands.train import train
from seq2seq.errors import Stopped, UserError
from seq2seq.resuming.lightning import position
from seq2seq.resuming.saving import WholeCheckpoints
from seq2seq.resuming.signals import StopSignals

RUN = [*TINY, "data.batch_size=8", "trainer.max_epochs=3", "resume=auto", "model.dropout=0.3"]


class Died(BaseException):
    """Stands for SIGKILL: nothing may run after it that would help."""


def die(config, output_dir, hook, number):
    """Run, and die at the ``number``-th call of one of the trainer's hooks; return whether there was such a call."""
    calls = 0

    def count(_callback, trainer, *_):
        nonlocal calls
        calls += trainer.state.fn == "fit" and not trainer.sanity_checking
        if calls == number:
            calls += 1  # hooks that run because of the error do not count
            raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, hook, count, raising=False)
        try:
            train(config, output_dir)
        except Died:
            return True
    return False


def ending(run):
    """What a run leaves that no clock has touched: weights and all other state, results, and log, by name."""
    last, best = (torch.load(run / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "loops", "current_model_state")
    found = dict(leaves({key: last[key] for key in kept if key in last} | {"best": best["state_dict"]}))
    metrics = (run / "metrics.json").read_text().replace(str(run), "").splitlines()
    files = {name: (run / name).read_text() for name in ("metrics.csv", "predictions.tsv")}
    return found | files | {"metrics.json": [line for line in metrics if '"seconds"' not in line]}


def leaves(tree, name=""):
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{name}.{key}")
    else:
        yield name, tree.tolist() if isinstance(tree, torch.Tensor) else tree


CASES = {
    "gru": ["checkpoint.every_n_steps=1"],
    "lstm, every two steps": ["model=lstm", "checkpoint.every_n_steps=2"],
    "workers": ["checkpoint.every_n_steps=2", "data.num_workers=1"],
    "averaged weights": ["checkpoint.every_n_steps=1", "weight_averaging=0.9"],
    "gathered gradients": ["checkpoint.every_n_steps=1", "+trainer.accumulate_grad_batches=2"],
    "validation in mid-epoch": ["checkpoint.every_n_steps=1", "trainer.val_check_interval=2"],
    "scheduled sampling": ["checkpoint.every_n_steps=3", "scheduled_sampling=0.5"],
    "log every three steps": ["checkpoint.every_n_steps=1", "trainer.log_every_n_steps=3"],
}


USUAL = ("lstm, every two steps", "validation in mid-epoch")


@pytest.mark.parametrize("case", [*USUAL, *combinations(CASES.keys() - {*USUAL})])
def test_a_run_that_dies_again_and_again_ends_like_one_that_never_died(compose, tmp_path, case):
    config = compose("train", *RUN, *CASES[case])
    train(config, tmp_path / "whole")
    deaths = 0

    for hook, number in (
        ("on_train_batch_end", 2),
        ("on_train_batch_start", 2),
        ("on_train_batch_end", 4),
        ("on_validation_batch_end", 1),
        ("on_validation_end", 1),
        ("on_train_epoch_end", 1),
        ("on_train_epoch_start", 1),
        ("on_train_batch_end", 5),
    ):
        deaths += die(config, tmp_path / "parts", hook, number)
    train(config, tmp_path / "parts")

    assert deaths >= 6
    whole, parts = ending(tmp_path / "whole"), ending(tmp_path / "parts")
    assert [name for name in whole.keys() | parts.keys() if whole.get(name) != parts.get(name)] == []


def test_a_run_that_has_lost_its_results_only_is_finished(compose, tmp_path):
    config = compose("train", *RUN)
    train(config, tmp_path)
    before = ending(tmp_path)
    (tmp_path / "metrics.json").unlink()

    train(config, tmp_path)

    assert ending(tmp_path) == before


def test_a_run_that_had_stopped_early_does_not_go_on(compose, tmp_path):
    config = compose("train", *RUN, "trainer.max_epochs=9", "callbacks.early_stopping.patience=1", "monitor_mode=min",
                     "monitor=val/loss_teacher_forced", "optimizer.lr=1")  # fmt: skip
    train(config, tmp_path)
    before = ending(tmp_path)
    (tmp_path / "metrics.json").unlink()

    train(config, tmp_path)

    assert ending(tmp_path) == before
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] < 8


def test_a_damaged_checkpoint_is_named_and_the_other_is_used(compose, tmp_path, caplog):
    config = compose("train", *RUN, "checkpoint.every_n_steps=1")
    train(config, tmp_path / "whole")
    die(config, tmp_path / "parts", "on_train_batch_end", 8)
    (tmp_path / "parts" / "last.ckpt").write_bytes(b"half")

    train(config, tmp_path / "parts")

    assert f"resume={tmp_path}/parts/last.ckpt is not a checkpoint or is damaged" in caplog.text
    assert ending(tmp_path / "parts") == ending(tmp_path / "whole")


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(compose, tmp_path, monkeypatch):
    config = compose("train", *RUN, "checkpoint.every_n_steps=1")
    die(config, tmp_path, "on_train_batch_end", 3)
    before = (tmp_path / "last.ckpt").read_bytes()

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("seq2seq.resuming.saving.os.fsync", full)
    with pytest.raises(UserError, match=r"checkpoint=.*last\.ckpt cannot be written: No space left on device"):
        train(config, tmp_path)

    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("hook", "saved"),
    [
        ("on_train_batch_end", (1, 2)),  # the step is complete, and is saved before the next one
        ("on_validation_batch_end", (1, 0)),  # validation ends at once; the second epoch will run again
    ],
)
def test_a_signal_waits_for_the_step_and_saves_its_state(compose, tmp_path, hook, saved):
    config = compose("train", *RUN)
    train(config, tmp_path / "whole")

    def end(_callback, trainer, *_):
        if trainer.state.fn == "fit" and trainer.global_step == {"on_train_batch_end": 7}.get(hook, 10):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, hook, end, raising=False)
        with pytest.raises(Stopped) as stopped:
            train(config, tmp_path / "parts")
    assert stopped.value.code == 143
    assert position(torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)) == saved

    train(config, tmp_path / "parts")

    assert ending(tmp_path / "parts") == ending(tmp_path / "whole")


@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_at_once_and_names_the_pairs(compose, tmp_path, monkeypatch, broken):
    (tmp_path / "pairs.tsv").write_text("ab\tx\ncd\tz\nef\ty\n")
    files = [f"data.{split}={tmp_path}/pairs.tsv" for split in ("train", "val", "test")]
    tsv = [size for size in RUN if not size.startswith("data")]
    config = compose("train", "data=tsv", *files, *tsv, "data.batch_size=2", "checkpoint.every_n_steps=1")
    loss = torch.nn.functional.cross_entropy
    calls = iter([1.0, 1.0, float(broken)])
    monkeypatch.setattr(
        "seq2seq.training.module.F.cross_entropy", lambda *given, **more: loss(*given, **more) * next(calls)
    )

    with pytest.raises(UserError, match=rf"train/loss is {broken} at step 3, with the pairs {tmp_path}/pairs.tsv:\d, "):
        train(config, tmp_path / "run")

    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_weights_that_are_no_numbers_do_not_replace_a_good_checkpoint(tmp_path, caplog):
    saving = WholeCheckpoints()
    for weight in (1.0, torch.nan, torch.inf):
        saving.save_checkpoint({"state_dict": {"weight": torch.tensor([weight, 2.0])}}, tmp_path / "last.ckpt")

    assert torch.load(tmp_path / "last.ckpt")["state_dict"]["weight"].tolist() == [1.0, 2.0]
    assert caplog.text.count("weights are no longer finite numbers") == 2


def test_the_norm_of_the_gradients_is_logged(tiny_run):
    rows = list(csv.DictReader((tiny_run / "metrics.csv").read_text().splitlines()))

    assert all(float(row["train/gradient_norm"]) > 0 for row in rows if row["train/loss"])


def test_a_lack_of_memory_names_the_batch_and_what_to_lower(compose, tmp_path, monkeypatch):
    def allocate(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("seq2seq.training.module.Seq2SeqModule.training_step", allocate)
    with pytest.raises(
        UserError, match=r"^out of memory with a batch of source \(8, \d\) and target \(8, \d\).*batch_size"
    ):
        train(compose("train", *RUN), tmp_path)
