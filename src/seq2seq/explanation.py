"""Show the handoff of a configured model, for `scripts/explain_handoff.py`."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from seq2seq.building import plain
from seq2seq.errors import UserError, check_keys
from seq2seq.handoff import measure
from seq2seq.handoff_picture import handoff_picture
from seq2seq.nn.model import MODEL_KEYS, build_model
from seq2seq.plots import save

TINY_VOCABULARY = 9


def explain(config: DictConfig) -> Path:
    """Measure an untrained model of the configured shape on a padded batch, draw it, and return the picture's path.

    Raises:
        UserError: If a setting is not what it must be.
    """
    settings = plain(config)
    check_keys("", settings, ["model", "output"])
    check_keys("model", settings["model"], MODEL_KEYS)
    torch.manual_seed(0)
    model = build_model(source_size=TINY_VOCABULARY, target_size=TINY_VOCABULARY, **settings["model"]).eval()
    source = torch.randint(0, TINY_VOCABULARY, (2, 5))
    measured = measure(model, source, torch.tensor([5, 3]), row=1)
    cells = (settings["model"]["encoder"]["cell"], settings["model"]["decoder"]["cell"])
    output = Path(str(settings["output"])).expanduser()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error
    save(handoff_picture(measured, cells, settings["model"]["bridge"]), output, "output")
    return output
