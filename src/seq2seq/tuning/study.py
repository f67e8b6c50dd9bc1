"""A study: its database, its trials, and what it leaves."""

import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from matplotlib.figure import Figure
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_optimization_history

from seq2seq.errors import UserError
from seq2seq.tuning.space import plain

NAME = "study"
"""Name of the study in its database."""

STARTUP = 4
"""Number of trials that are not pruned, and whose values are drawn at random."""


def open_study(output_dir: Path, mode: str, defaults: Mapping[str, Any], seed: int) -> Study:
    """Create a study, or open the one that a directory holds; several processes may share it.

    Args:
        output_dir: Its directory.
        mode: ``max`` or ``min``.
        defaults: The values that the first trial takes.
        seed: Seed of the values that are tried.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{(output_dir / 'study.db').absolute()}"
    study = optuna.create_study(
        storage=storage,
        study_name=NAME,
        load_if_exists=True,
        direction="maximize" if mode == "max" else "minimize",
        sampler=TPESampler(n_startup_trials=STARTUP, seed=seed),
        pruner=MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
    )
    study.set_user_attr("storage", storage)
    study.enqueue_trial(dict(defaults), skip_if_exists=True)
    return study


def trials_to_run(
    study: Study, space: Mapping[str, BaseDistribution], trials: int, seconds: float
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield trials until a study has enough finished ones or time is up: first those that a dead process left.

    Args:
        study: The study.
        space: What new trials choose from.
        trials: How many finished trials the study should have.
        seconds: How long new trials are begun.

    Yields:
        The number of a trial, the config of its `Pruning` without the monitor, and its values.
    """
    deadline = time.monotonic() + seconds
    begun = study.get_trials(states=[TrialState.RUNNING])
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    while begun or (time.monotonic() < deadline and len(study.get_trials(False, finished)) < trials):
        trial = begun.pop(0) if begun else study.ask(dict(space))
        pruning = {
            "_target_": "seq2seq.tuning.pruning.Pruning", "storage": study.user_attrs["storage"],
            "study": study.study_name, "trial": trial._trial_id,  # noqa: SLF001 - as Optuna's own callbacks do
        }  # fmt: skip
        yield trial.number, pruning, trial.params


def best_as_experiment(study: Study, overrides: list[str], groups: set[str]) -> str:
    """Return the best values of a study as an experiment file.

    Args:
        study: The study.
        overrides: Of the study's command line, for the header.
        groups: Keys that select an option of a config group.
    """
    params = study.best_params
    tree: dict[str, Any] = {}
    if chosen := [{f"override /{key}": value} for key, value in params.items() if key in groups]:
        tree["defaults"] = chosen
    for key, value in params.items():
        if key in groups:
            continue
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = plain(value)
    header = f"# @package _global_\n# Trial {study.best_trial.number} of a study: {study.best_value:.4f}\n"
    return f"{header}# Command: python scripts/tune.py {' '.join(overrides)}\n{yaml.safe_dump(tree, sort_keys=False)}"


def history(study: Study, monitor: str) -> Figure:
    """Draw the value of each trial, and the best so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = plot_optimization_history(study)
    axes.set(title="", ylabel=monitor)
    figure = axes.get_figure()
    if not isinstance(figure, Figure):
        raise UserError("the study has no finished trial to draw")
    figure.set_layout_engine("tight")
    return figure
