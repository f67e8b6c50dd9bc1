"""Train a model: ``python scripts/train.py [overrides]``; see configs/train.yaml."""

import hydra
from omegaconf import DictConfig

from seq2seq.console import run_job
from seq2seq.training import train


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(config: DictConfig) -> object:
    """Train in the run's directory."""
    return run_job(train, config, in_sweeps=True)


if __name__ == "__main__":
    main()
