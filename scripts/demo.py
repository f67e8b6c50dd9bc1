"""Show a trained model on a web page: ``python scripts/demo.py checkpoint=FILE``."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="demo")
def main(config: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    run_command("demo.demo", config)


def run() -> None:
    """Run as ``seq2seq-demo``."""
    run_main(main)


if __name__ == "__main__":
    run()
