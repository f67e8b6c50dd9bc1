"""Export a trained model to ONNX: ``python scripts/export.py checkpoint=FILE output=FOLDER``; see docs/deploy.md."""

import hydra
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="export")
def main(config: DictConfig) -> None:
    """Export, and print how far the export is from the checkpoint."""
    run_command("export.export", config)


def run() -> None:
    """Run as ``seq2seq-export``."""
    run_main(main)


if __name__ == "__main__":
    run()
