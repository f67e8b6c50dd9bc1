"""Tune: try values of the training config, and write the best ones as an experiment."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.commands.train import train
from seq2seq.errors import UserError, import_extra
from seq2seq.reporting.plots import save
from seq2seq.settings import Count, Settings, read_settings, resolve_config

log = logging.getLogger(__name__)

PATIENCE = 3
"""Number of trials that may fail before one succeeds."""


class TuneSettings(Settings):
    """The keys of ``tune``."""

    trials: Count
    minutes: Annotated[float, Field(ge=0)] | None
    over: dict[str, list[Any]] | None = None
    first: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    space: Any


def tune(config: DictConfig, output_dir: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run a study in a directory, or go on with the one that it holds; several processes may share it.

    Args:
        config: Composed from ``configs/tune.yaml``.
        output_dir: The study's directory; each trial is a run in a directory of its own below.
        overrides: Of the command line; those that are not of ``tune`` are given to every run.

    Returns:
        The best values.

    Raises:
        UserError: If a setting is not allowed, the first trials fail, or no trial has been finished.
    """
    import_extra("optuna", "tune")
    from optuna import TrialPruned
    from optuna.trial import TrialState

    from seq2seq.tuning.space import combinations, contains, example, overrides_of, read_first, read_space
    from seq2seq.tuning.study import advise, best_as_experiment, history, open_study, trials_to_run

    settings = read_settings(TuneSettings, resolve_config(config).get("tune"), "tune")
    space, over = read_space(settings.space), settings.over or {}
    common = [one for one in overrides if not one.lstrip("+~").startswith("tune")]
    base = compose("train", common)
    runs, turn = combinations(over, space), len([*over.values()][-1]) if over else 1
    examples = {f"space.{key}": {key: example(distribution)} for key, distribution in space.items()}
    examples |= {f"over.{key}": {key: values[0]} for key, values in over.items()}
    check_keys(examples, common)
    options = compose("train", common, return_hydra_config=True).hydra.runtime.choices
    groups = space.keys() & options.keys()
    given = {key: options[key] if key in groups else OmegaConf.select(base, key) for key in space}
    defaults = {key: value for key, value in given.items() if contains(space[key], value)}
    first = [defaults, *(defaults | one for one in read_first(settings.first, space))]
    folder = output_dir / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(output_dir, base.monitor_mode, first, base.seed, warmup=0 if over else 1)
    seconds = math.inf if settings.minutes is None else 60 * settings.minutes
    succeeded = failed = 0
    for number, pruning, params in trials_to_run(study, space, settings.trials, seconds, folder):
        log.info("trial %d: %s", number, " ".join(overrides_of(params)))
        results: list[float] = []
        try:
            for part, own in enumerate(runs):
                chosen = [*common, *overrides_of(params | own), "resume=auto"]
                if over:
                    results.append(run_of_trial(folder / str(number) / str(part), chosen))
                    if (part + 1) % turn == 0 and part + 1 < len(runs):  # each value of the last key has had its turn
                        advise(study, number, pruning["trial"], part, fmean(results))
                else:  # a trial is one run, which is pruned by its epochs
                    results.append(run_of_trial(folder / str(number), chosen, pruning | {"monitor": base.monitor}))
            study.tell(number, fmean(results), skip_if_finished=True)
            succeeded += 1
        except TrialPruned:
            log.info("trial %d is no better than others were: pruned", number)
            study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
            succeeded += 1
        except UserError as error:
            log.error("trial %d failed: %s", number, error)
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            failed += 1
            if not succeeded and failed == PATIENCE:
                raise UserError(f"the first {failed} trials failed; trial {number}: {error}") from error
            if failed >= max(settings.trials, PATIENCE):
                log.error("%d trials failed: no more are begun", failed)
                break
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise UserError("no trial was finished; give more tune.minutes or tune.trials")
    show(study, base.monitor)
    experiment = output_dir / "experiment" / "tuned.yaml"
    experiment.parent.mkdir(exist_ok=True)
    experiment.write_text(best_as_experiment(study, common, groups), encoding="utf-8")
    save(history(study, base.monitor), output_dir / "study.png")
    message = f"the best values are in {experiment}; use them with --config-dir {output_dir} experiment=tuned"
    Console().print(message, markup=False, soft_wrap=True)
    return study.best_params


def check_keys(examples: Mapping[str, dict[str, Any]], overrides: list[str]) -> None:
    """Raise a `UserError` if a key of ``tune.space`` or ``tune.over`` is not one of the training config."""
    from seq2seq.tuning.space import overrides_of

    for name, one in examples.items():
        try:
            compose("train", [*overrides, *overrides_of(one)])
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"tune.{name} is no key of the training config: {reason}") from None


def run_of_trial(folder: Path, overrides: list[str], pruning: Mapping[str, Any] | None = None) -> float:
    """Train in a folder, with a `Pruning` of this config if there is one, and return the monitored metric."""
    config = compose("train", overrides)
    if pruning:
        with open_dict(config):
            config.callbacks.pruning = pruning
    with redirect_stdout(io.StringIO()):
        content = train(config, folder, overrides)
    return content["validation"][config.monitor.removeprefix("val/")]


def show(study: Any, monitor: str) -> None:  # noqa: ANN401 - Optuna is optional
    """Print the trials, the best first."""
    trials = [trial for trial in study.get_trials() if trial.state.is_finished()]
    trials.sort(key=lambda trial: (trial.value is None, -study.direction.value * (trial.value or 0)))
    table = Table("trial", "result", "state", "values", title=f"Trials, {study.direction.name.lower()} {monitor}")
    for trial in trials:
        short = {key: f"{one:.4g}" if isinstance(one, float) else one for key, one in trial.params.items()}
        values = Text(" ".join(f"{key}={value}" for key, value in short.items()))
        result = "" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(str(trial.number), result, trial.state.name.lower(), values)
    Console().print(table)
