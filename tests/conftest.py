"""What every chapter of tests may use."""

import os
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import hydra
import pytest
import torch
from hypothesis import settings

from seq2seq.nn import build_model
from seq2seq.nn.bridge import BRIDGES
from seq2seq.nn.decoders import DECODERS
from seq2seq.runs.parts import import_part

# Examples of property tests: the same every time in CI; no deadline, as machines are shared.
settings.register_profile("house", deadline=None, max_examples=200, derandomize="CI" in os.environ)
settings.load_profile("house")

ROOT = Path(__file__).parents[1]

import_part(str(ROOT / "examples" / "coverage_attention.py"))  # so that tests of every attention have one with a state

LUONG = {"kind": "luong", "input_feeding": False, "tied": False}
"""The keys of ``model.decoder`` that the encoder does not have."""

KINDS = {kind: {"kind": kind} for kind in DECODERS} | {
    f"{kind} with input feeding": {"kind": kind, "input_feeding": True}
    for kind, decoder in DECODERS.items()
    if decoder.with_input_feeding
}
"""Every kind of decoder, those of your own included, as changes of ``model.decoder``."""


def model_settings(*, cell="gru", encoder=None, decoder=None, **changes):
    """The section ``model`` of a small model; ``encoder`` and ``decoder`` are changes of these sections."""
    part = {"cell": cell, "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
    if changes.get("attention") == "multihead":
        changes["attention"] = {"name": "multihead", "num_heads": 2}  # 4 do not divide 14
    bridge = BRIDGES.get(changes.get("bridge", "linear"))
    size = (bridge and bridge.required_size(2, part["hidden_size"])) or 14
    return {
        "encoder": part | {"bidirectional": True} | (encoder or {}),
        "decoder": part | LUONG | {"embedding_size": 11, "hidden_size": size} | (decoder or {}),
        "bridge": "linear",
        "attention": "general",
        "dropout": 0.0,
    } | changes


def make_model(*, seed=0, scale=1.0, source_size=10, target_size=9, features_size=0, fast=False, **changes):
    """A small model in evaluation mode.

    A ``scale`` above 1 enlarges its weights, so that predictions differ from sequence to sequence; the changes are
    those of `model_settings`.
    """
    torch.manual_seed(seed)
    settings = model_settings(**changes)
    sizes = {"source_size": source_size, "target_size": target_size, "features_size": features_size}
    model = build_model(**sizes, fast=fast, **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def combinations(cases):
    """The cases of a test that are left to ``make mutants`` and ``make torture``."""
    return [pytest.param(case, marks=pytest.mark.combination) for case in sorted(cases)]


def tensors_of(state):
    """All tensors of a state, whatever a decoder keeps."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for part in state if part is not None for tensor in tensors_of(part)]


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


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """Six pictures take a tiny run longer than all else; only the tests marked ``pictures`` have them drawn."""
    matplotlib = sys.modules.get("matplotlib.figure")
    if matplotlib and not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(matplotlib.Figure, "savefig", draw_pixel)


def draw_pixel(_, file, **__):
    if isinstance(file, BytesIO):
        file.write(PIXEL)
    else:
        Path(file).write_bytes(PIXEL)


PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGP4DwQACfsD/fteaysAAAAASUVORK5CYII=")
"""A PNG."""


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
    from seq2seq.commands.train import train  # here, so that tests of the network load the network alone

    output_dir = tmp_path_factory.mktemp("tiny_run")
    train(compose("train", *TINY), output_dir)
    return output_dir


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run):
    return tiny_run / "best.ckpt"
