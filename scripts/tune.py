"""Tune values of the training config with Optuna; see configs/tune.yaml."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_job, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="tune")
def main(config: DictConfig) -> None:
    """Run a study."""
    run_job("tune.tune", config)


def run() -> None:
    """Run as ``seq2seq-tune``."""
    run_main(main)


if __name__ == "__main__":
    run()
