"""Test a checkpoint: ``python scripts/evaluate.py checkpoint=FILE [data=tsv data.test=FILE]``."""

import hydra
from omegaconf import DictConfig

from seq2seq.console import run_job
from seq2seq.evaluation import evaluate


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(config: DictConfig) -> object:
    """Test in a directory of its own."""
    return run_job(evaluate, config)


if __name__ == "__main__":
    main()
