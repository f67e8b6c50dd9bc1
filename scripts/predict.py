"""Predict line by line: ``python scripts/predict.py checkpoint=FILE [input=FILE] [output=FILE]``."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="predict")
def main(config: DictConfig) -> None:
    """Predict; nothing but the predictions goes to stdout, and no folder or log is left behind."""
    run_command("predict.predict", config)


def run() -> None:
    """Run as ``seq2seq-predict``."""
    run_main(main)


if __name__ == "__main__":
    run()
