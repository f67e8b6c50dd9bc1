"""Errors belong to whoever made them: a setting's is one line, that of a class of the user's keeps its traceback."""

import pytest
from conftest import TINY

from seq2seq.commands.train import train
from seq2seq.errors import UserError

PARTS = """
import torch
from torchmetrics import Metric

class Broken(Metric):
    full_state_update = False

    def update(self, preds): raise LookupError("a mistake in update")
    def compute(self): return torch.tensor(0.0)

class ShapesDoNotFit(Broken):
    def update(self, preds): torch.nn.Linear(2, 3)(torch.zeros(2, 5))  # the error is raised inside torch

class NeverBuilt(Broken):
    def __init__(self): raise ValueError("a mistake in __init__")

def optimizer(parameters): raise KeyError("a mistake in the optimizer")
"""


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """A module of the user's, and one that imports a package which is not installed, and one that does not parse."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    (tmp_path / "needs_more.py").write_text("import package_that_nobody_has\n")
    (tmp_path / "does_not_parse.py").write_text("class Metric(:\n")
    monkeypatch.syspath_prepend(tmp_path)


def run(compose, tmp_path, *overrides):
    train(compose("train", *TINY, *overrides), tmp_path / "run")


@pytest.mark.usefixtures("own_parts")
@pytest.mark.parametrize(
    ("override", "kind", "message", "named"),
    [
        ("+metrics.mine={_target_: own_parts.Broken}", LookupError, "a mistake in update", "metrics"),
        ("+metrics.mine={_target_: own_parts.ShapesDoNotFit}", RuntimeError, "shapes cannot be multiplied", "metrics"),
        ("+metrics.mine={_target_: own_parts.NeverBuilt}", ValueError, "a mistake in __init__", "metrics.mine"),
        ("+metrics.mine={_target_: does_not_parse.Metric}", SyntaxError, "invalid syntax", "metrics.mine"),
        ("optimizer={_target_: own_parts.optimizer, _partial_: true}", KeyError, "a mistake in the", "optimizer"),
    ],
)
def test_an_error_of_a_class_of_ones_own_keeps_its_traceback_below_the_setting(
    compose, tmp_path, caplog, override, kind, message, named
):
    overrides = ["~optimizer", f"+{override}"] if override.startswith("optimizer") else [override]

    with pytest.raises(kind, match=message) as caught:
        run(compose, tmp_path, *overrides)

    assert not isinstance(caught.value, UserError)
    assert caplog.messages[-1] == f"{named} leads to this error:"


@pytest.mark.usefixtures("own_parts")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+metrics.mine={_target_: needs_more.Metric}",
         "metrics.mine._target_=needs_more.Metric needs the package package_that_nobody_has, which is not installed"),
        ("+metrics.mine={_target_: nowhere.Metric}",
         "metrics.mine._target_=nowhere.Metric must be the full name of a class or a function"),
        ("+metrics.mine={_target_: own_parts.Missing}",
         "metrics.mine._target_=own_parts.Missing must be the full name of a class or a function"),
        ("+metrics.mine={_target_: own_parts.Broken, more: 1}", "metrics.mine: "),
        ("trainer.val_check_interval=1000", "trainer: `val_check_interval` (1000) must be less than or equal to the"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_setting_is_one_line_whoever_notices_it(compose, tmp_path, override, message):
    with pytest.raises(UserError) as caught:
        run(compose, tmp_path, override)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_of_two_ways_to_step_the_users_choice_stands(compose, tmp_path):
    run(compose, tmp_path, "+optimizer.foreach=true")

    assert (tmp_path / "run" / "metrics.json").exists()
