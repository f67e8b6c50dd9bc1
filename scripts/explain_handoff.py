"""Draw how a model hands its state over: ``python scripts/explain_handoff.py [model=lstm ...] [output=FILE]``."""

import hydra
from omegaconf import DictConfig

from seq2seq.console import one_line_errors
from seq2seq.explanation import explain


@hydra.main(version_base="1.3", config_path="../configs", config_name="explain_handoff")
def main(config: DictConfig) -> None:
    """Measure and draw."""
    with one_line_errors():
        print(f"written to {explain(config)}")


if __name__ == "__main__":
    main()
