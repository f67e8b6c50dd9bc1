"""What trackers get besides numbers: pictures, and the table of predictions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.image import imread
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from seq2seq.reporting.tables import Prediction
from seq2seq.runs.directory import PREDICTIONS


def send_results(loggers: Sequence[Logger], output_dir: Path, predictions: Sequence[Prediction]) -> None:
    """Give the pictures in a run's directory, and its predictions, to the trackers that take them."""
    pictures = sorted(output_dir.glob("*.png"))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for picture in pictures:
                logger.log_image(picture.stem, [str(picture)])
            rows = [[pair.source, pair.prediction, pair.references[0]] for pair in predictions]
            logger.log_table("predictions", columns=["source", "prediction", "reference"], data=rows)
        elif isinstance(logger, MLFlowLogger):
            for file in (*pictures, output_dir / PREDICTIONS):
                if file.exists():
                    logger.experiment.log_artifact(logger.run_id, str(file))  # pyright: ignore[reportArgumentType]
        elif isinstance(logger, TensorBoardLogger):
            for picture in pictures:
                logger.experiment.add_image(picture.stem, imread(picture), dataformats="HWC")


@contextmanager
def closed_at_the_end(loggers: Sequence[Logger]) -> Iterator[None]:
    """Finish the run of Weights & Biases, or the next run of a sweep would go on in it."""
    try:
        yield
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()
