"""What every chapter of tests may use."""

import os
from pathlib import Path

import hydra
import pytest
import torch
from hypothesis import settings

from seq2seq.commands.train import train

# Examples of property tests: the same every time in CI; no deadline, as machines are shared.
settings.register_profile("house", deadline=None, max_examples=200, derandomize="CI" in os.environ)
settings.load_profile("house")

ROOT = Path(__file__).parents[1]

LUONG = {"kind": "luong", "input_feeding": False, "tied": False}
"""The keys of ``model.decoder`` that the encoder has not."""

TINY = [
    "data=reverse",
    "data.train_size=40",
    "data.val_size=6",
    "data.test_size=7",
    "data.max_letters=4",
    "data.batch_size=16",
    "model.encoder.embedding_size=5",
    "model.encoder.hidden_size=6",
    "model.decoder.embedding_size=7",
    "model.decoder.hidden_size=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "+trainer.num_sanity_val_steps=0",
]
"""Overrides that make any training run one of a second."""


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    # Tiny tensors gain nothing from threads, and a fixed number keeps sums in the same order.
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def compose():
    def compose_config(name, *overrides):
        with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            return hydra.compose(name, list(overrides))

    return compose_config


@pytest.fixture(scope="session")
def tiny_run(compose, tmp_path_factory):
    """A finished run of a tiny model on ``data=reverse``: its directory."""
    output_dir = tmp_path_factory.mktemp("tiny_run")
    train(compose("train", *TINY), output_dir)
    return output_dir


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run):
    return tiny_run / "best.ckpt"
