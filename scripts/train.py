"""Train a model: ``python scripts/train.py [overrides]``; see configs/train.yaml."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_job, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(config: DictConfig) -> object:
    """Train in the run's directory."""
    return run_job("train.train_and_score", config, in_sweeps=True, several=True)


def run() -> None:
    """Run as ``seq2seq-train``."""
    run_main(main)


if __name__ == "__main__":
    run()
