"""A study: its database, its trials, and what it leaves."""

import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna import Study, Trial, TrialPruned
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_optimization_history

from seq2seq.errors import UserError
from seq2seq.runs.directory import locked
from seq2seq.tuning.space import overrides_of

STARTUP = 4
"""Number of trials that are not pruned, and whose values are drawn at random."""


def open_study(output_dir: Path, mode: str, first: Sequence[Mapping[str, Any]], seed: int, warmup: int = 1) -> Study:
    """Create a study, or open the one that a directory holds; several processes may share it.

    Its mode is ``max`` or ``min``, its first trials take given values, and the seed is that of further values.
    Trials are pruned after ``warmup`` epochs, or runs, at the earliest.

    Raises:
        UserError: If its database is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = (output_dir / "study.db").absolute()
    try:
        with locked(output_dir, wait=True):
            check_database(file)
            study = optuna.create_study(
                storage=f"sqlite:///{file}",
                study_name="study",
                load_if_exists=True,
                direction="maximize" if mode == "max" else "minimize",
                sampler=TPESampler(n_startup_trials=STARTUP, seed=seed),
                pruner=MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warmup),
            )
            study.set_user_attr("storage", f"sqlite:///{file}")
            for values in first:
                study.enqueue_trial(dict(values), skip_if_exists=True)
            study.get_trials()  # reads every row
            return study
    except Exception as error:  # odd content raises odd errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{file} cannot be read as the database of a study: {reason}; if it is damaged, move it away to start anew"
        ) from error


def check_database(file: Path) -> None:
    """Raise if a file is no SQLite database, damaged, or another program's."""
    with closing(sqlite3.connect(file)) as connection:
        state = connection.execute("PRAGMA quick_check").fetchone()[0]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if state != "ok":
        raise ValueError(state)
    if tables and "studies" not in tables:
        raise ValueError("its tables are those of another program")


def trials_to_run(
    study: Study, space: Mapping[str, BaseDistribution], trials: int, seconds: float, folder: Path
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield trials until a study has enough finished ones or time is up: first those that a dead process left.

    While a trial runs, a file is locked, so that no other process takes the trial for one that a dead process left.

    Args:
        study: From `open_study`.
        space: What new trials choose from.
        trials: How many finished trials the study should have.
        seconds: How long new trials are begun.
        folder: Holds the trials' directories and locks.

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
        lock = folder / f"{trial.number}.lock"
        lock.touch()
        with suppress(UserError), locked(lock):  # else another process runs it
            if not study.get_trials(False)[trial.number].state.is_finished():
                yield trial.number, pruning, trial.params
            lock.unlink(missing_ok=True)


def advise(study: Study, number: int, trial: int, run: int, mean: float) -> None:
    """Report the mean result of a trial's runs up to ``run``; raise `TrialPruned` if the pruner advises it.

    The trial has a ``number``, and Optuna's key ``trial`` in the database.
    """
    reported = Trial(study, trial)
    if run not in study.get_trials(False)[number].intermediate_values:  # of a trial that was interrupted
        reported.report(mean, run)
    if reported.should_prune():
        raise TrialPruned


def best_as_experiment(study: Study, overrides: list[str], groups: set[str]) -> str:
    """Return the best values of a study as an experiment file.

    The overrides of the command line go into its header; ``groups`` are the keys that select an option of a group.
    """
    chosen = [{f"override /{key}": value} for key, value in study.best_params.items() if key in groups]
    values = {key: value for key, value in study.best_params.items() if key not in groups}
    content = OmegaConf.create({"defaults": chosen} if chosen else {})
    for one in OverridesParser.create().parse_overrides(overrides_of(values)):  # as Hydra read them
        OmegaConf.update(content, one.key_or_group, one.value())
    header = f"# @package _global_\n# Trial {study.best_trial.number} of a study: {study.best_value:.4f}\n"
    return f"{header}# Command: python scripts/tune.py {' '.join(overrides)}\n{OmegaConf.to_yaml(content)}"


def history(study: Study, monitor: str) -> Any:  # noqa: ANN401 - a figure
    """Draw the value of each trial, and the best so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = plot_optimization_history(study)
    axes.set(title="", ylabel=monitor)
    figure: Any = axes.figure
    figure.set_layout_engine("tight")
    return figure
