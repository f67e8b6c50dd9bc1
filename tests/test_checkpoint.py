"""Checkpoints: they hold plain values, load the same model, and anything else is refused by name."""

import math
import os
import random

import pytest
import torch
from conftest import ROOT

from seq2seq.api import load
from seq2seq.checkpoint import HYPERPARAMETERS, load_model, read_checkpoint
from seq2seq.data import build_source, prepare
from seq2seq.errors import UserError
from seq2seq.model import trained_model
from seq2seq.training.module import Seq2SeqModule

KEPT = ROOT / "tests" / "checkpoints" / "format1.ckpt"
"""A small checkpoint, as the first version wrote it."""


def batch_of(module):
    return prepare(build_source(module.settings["data"]), ["test"], module.tokenizers).datasets["test"][[0, 1, 2]]


def test_a_loaded_checkpoint_gives_equal_logits(tiny_run):
    one, other = load_model(str(tiny_run / "best.ckpt")), load_model(str(tiny_run / "best.ckpt"))
    batch = batch_of(one)

    fresh = Seq2SeqModule(**one.settings).eval()
    logits = [m.model(batch.source, batch.source_lengths, batch.inputs).logits for m in (one, other, fresh)]

    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])  # the weights were loaded, not made anew


def test_lightning_can_load_it_too(tiny_run):
    ours = load_model(str(tiny_run / "best.ckpt"))

    theirs = Seq2SeqModule.load_from_checkpoint(tiny_run / "best.ckpt", weights_only=True)

    assert all(torch.equal(one, other) for one, other in zip(ours.model.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_hyperparameters_are_plain(tiny_run, name):
    def check(value):
        if isinstance(value, dict):
            assert type(value) is dict
            for key, entry in value.items():
                check(key)
                check(entry)
        elif isinstance(value, list):
            assert type(value) is list
            for entry in value:
                check(entry)
        else:
            assert value is None or type(value) in (str, int, float, bool)

    check(torch.load(tiny_run / name, weights_only=True)[HYPERPARAMETERS])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the checkpoint ran code",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Bomb(), "is not a checkpoint or is damaged; give a best.ckpt or last.ckpt of a run"),
        ({"state_dict": {}}, "is a checkpoint of another program"),
        ([1, 2], "is a checkpoint of another program"),
        ({"seq2seq_format": 99}, "has format 99, and this version reads format 1 only"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_of_this_project_is_refused(tmp_path, content, message):
    path = tmp_path / "x.ckpt"
    torch.save(content, path)

    with pytest.raises(UserError, match=rf"checkpoint={path} {message}"):
        read_checkpoint(str(path), "checkpoint")


@pytest.mark.parametrize("content", [b"", b"chat\tx\n", b"\x80\x02}", bytes(range(256))])
def test_arbitrary_bytes_are_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)

    with pytest.raises(UserError, match=f"resume={path} is not a checkpoint or is damaged"):
        read_checkpoint(str(path), "resume")


@pytest.mark.parametrize("lost", ["hyper_parameters", "state_dict", "model.decoder.output_layer.bias"])
def test_a_checkpoint_that_lacks_something_is_damaged(tiny_run, tmp_path, lost):
    content = torch.load(tiny_run / "best.ckpt", weights_only=True)
    del (content if lost in content else content["state_dict"])[lost]
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match=f"checkpoint={tmp_path / 'x.ckpt'} is damaged: "):
        load_model(str(tmp_path / "x.ckpt"))


def test_a_checkpoint_that_was_cut_off_is_damaged(tiny_run, tmp_path):
    (tmp_path / "x.ckpt").write_bytes((tiny_run / "best.ckpt").read_bytes()[:5000])

    with pytest.raises(UserError, match="is not a checkpoint or is damaged"):
        load_model(str(tmp_path / "x.ckpt"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint=.*none\.ckpt cannot be read: No such file or directory"):
        load_model(str(tmp_path / "none.ckpt"))


def test_a_pipe_is_refused_before_anything_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UserError, match=r"checkpoint=.*/pipe must be a file, and not a pipe or a device"):
        read_checkpoint(str(tmp_path / "pipe"))


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(UserError, match=r"checkpoint=.*/loop (is no path: Symlink loop|cannot be read: Too many)"):
        read_checkpoint(str(tmp_path / "loop"))


def test_a_part_of_ones_own_may_keep_a_flag(tmp_path, monkeypatch):
    def with_flag(settings):
        trained = trained_model(settings)
        trained.model.register_buffer("flag", torch.tensor(False))
        return trained

    monkeypatch.setattr("seq2seq.checkpoint.trained_model", with_flag)
    content = torch.load(KEPT, weights_only=True)
    content["state_dict"]["model.flag"] = torch.tensor(True)
    torch.save(content, tmp_path / "x.ckpt")

    assert load_model(str(tmp_path / "x.ckpt")).model.flag.item() is True


def test_a_checkpoint_of_format_1_still_predicts():
    predict = load(KEPT)

    assert predict(["a b c", "x", "q z"]) == ["c b a", "x", "z q"]


@pytest.mark.parametrize("key", ["fast", "model.decoder.tied", "model.decoder.input_feeding"])
def test_a_checkpoint_from_before_an_option_loads_with_the_old_behaviour(tmp_path, key):
    # An option that is added later has a default in the constructor, which keeps what the model did before.
    content = torch.load(KEPT, weights_only=True)
    *sections, name = key.split(".")
    section = content[HYPERPARAMETERS]
    for part in sections:
        section = section[part]
    del section[name]
    torch.save(content, tmp_path / "older.ckpt")

    predict = load(tmp_path / "older.ckpt")

    assert predict(["a b c"]) == ["c b a"]


def test_a_flipped_byte_is_noticed_or_changes_nothing(tiny_run, tmp_path):
    content = (tiny_run / "best.ckpt").read_bytes()
    whole = torch.load(tiny_run / "best.ckpt", weights_only=True)
    generator = random.Random(1)
    refused = 0
    for place in generator.sample(range(len(content)), 200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << generator.randrange(8)
        (tmp_path / "x.ckpt").write_bytes(damaged)
        try:
            found = read_checkpoint(str(tmp_path / "x.ckpt"), "checkpoint")
        except UserError:
            refused += 1
        else:
            assert str(found) == str(whole)
            assert all(torch.equal(found["state_dict"][name], one) for name, one in whole["state_dict"].items())
    assert refused > 100  # the others are in names, times and gaps of the archive


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.decoder.output_layer.bias", math.nan, "holds numbers that are not finite"),
        ("model.decoder.output_layer.bias", math.inf, "holds numbers that are not finite"),
        ("model.decoder.output_layer.bias", 1, "holds numbers of type torch.int64"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(tiny_run, tmp_path, name, value, message):
    content = torch.load(tiny_run / "best.ckpt", weights_only=True)
    content["state_dict"][name] = torch.full_like(content["state_dict"][name], 0) + value
    if isinstance(value, int):
        content["state_dict"][name] = content["state_dict"][name].long()
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match=rf"checkpoint={tmp_path}/x.ckpt is damaged: {name} {message}"):
        load_model(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("encoder", "num_layers", 10**6), ("decoder", "hidden_size", 10**7), ("encoder", "embedding_size", 10**7)],
)
def test_absurd_sizes_are_refused_before_they_take_memory(tiny_run, tmp_path, section, key, value):
    content = torch.load(tiny_run / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["model"][section][key] = value
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match=f"is damaged: model.{section}.{key}={value} does not fit the weights"):
        load_model(str(tmp_path / "x.ckpt"))


def test_an_absurd_length_is_refused(tiny_run, tmp_path):
    content = torch.load(tiny_run / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["max_length"] = 10**9
    torch.save(content, tmp_path / "x.ckpt")

    with pytest.raises(
        UserError, match=r"search\.max_length=1000000000 must be a whole number of at least 1 and at most"
    ):
        load_model(str(tmp_path / "x.ckpt"))
