"""Test a checkpoint: ``python scripts/evaluate.py checkpoint=FILE [data=tsv data.test=FILE]``."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_job, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(config: DictConfig) -> object:
    """Test in a directory of its own."""
    return run_job("evaluate.evaluate", config, several=True)


def run() -> None:
    """Run as ``seq2seq-evaluate``."""
    run_main(main)


if __name__ == "__main__":
    run()
