"""Show and verify how a model hands its state over; see configs/explain_handoff.yaml."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from seq2seq.runs.console import one_line_errors, run_main


@hydra.main(version_base="1.3", config_path="../configs", config_name="explain_handoff")
def main(config: DictConfig) -> None:
    """Measure, print and draw."""
    from seq2seq.commands.explain_handoff import explain  # only now, so that --help answers without PyTorch

    with one_line_errors():
        print(f"written to {explain(config, HydraConfig.get().overrides.task)}")


def run() -> None:
    """Run as ``seq2seq-explain-handoff``."""
    run_main(main)


if __name__ == "__main__":
    run()
