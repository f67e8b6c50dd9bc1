"""Ends the trials of a study that are worse than others were at the same epoch."""

import pytorch_lightning as pl
from optuna import Trial, TrialPruned, load_study


class Pruning(pl.Callback):
    """Reports each validation to a study, and ends the run if the study advises so.

    The study is found by its name and the address of its database, and the trial by Optuna's key in there.

    Raises:
        TrialPruned: To end the run.
    """

    def __init__(self, monitor: str, storage: str, study: str, trial: int) -> None:
        self.monitor = monitor
        self.trial = Trial(load_study(study_name=study, storage=storage), trial)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002 - Lightning's
        """Report an epoch."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.trial.report(float(trainer.callback_metrics[self.monitor]), trainer.current_epoch)
        if self.trial.should_prune():
            raise TrialPruned
