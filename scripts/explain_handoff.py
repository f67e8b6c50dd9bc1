"""Show and verify how a model hands its state over; see configs/explain_handoff.yaml."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seq2seq.runs.console import run_command, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="explain_handoff")
def main(config: DictConfig) -> None:
    """Measure, print and draw."""
    print(f"written to {run_command('explain_handoff.explain', config, HydraConfig.get().overrides.task)}")


def run() -> None:
    """Run as ``seq2seq-explain-handoff``."""
    run_main(main)


if __name__ == "__main__":
    run()
