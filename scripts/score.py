"""Score given pairs with a trained model; see configs/score.yaml."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="score")
def main(config: DictConfig) -> None:
    """Write log-probabilities."""
    run_command("score.score", config, HydraConfig.get().overrides.task)


def run() -> None:
    """Run as ``seq2seq-score``."""
    run_main(main)


if __name__ == "__main__":
    run()
