"""Time training and search; see configs/benchmark.yaml."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Time what the config names."""
    run_command("benchmark.benchmark", config)


def run() -> None:
    """Run as ``seq2seq-benchmark``."""
    run_main(main)


if __name__ == "__main__":
    run()
