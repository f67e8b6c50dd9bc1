"""Time training and search; see configs/benchmark.yaml."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import one_line_errors, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Time what the config names."""
    from seq2seq.commands.benchmark import benchmark  # only now, so that --help answers without PyTorch

    with one_line_errors():
        benchmark(config)


def run() -> None:
    """Run as ``seq2seq-benchmark``."""
    run_main(main)


if __name__ == "__main__":
    run()
