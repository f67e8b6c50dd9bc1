"""Trackers get the numbers, the pictures and the table of predictions; runs of a sweep stay apart."""

import json

import pytest
from conftest import TINY

from seq2seq.commands.train import train
from seq2seq.errors import UserError

PICTURES = {"attention_1", "handoff", "learning_curves"}


def test_tensorboard_gets_the_pictures(compose, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    train(compose("train", *TINY, "logger=tensorboard"), tmp_path)

    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["images"]) >= PICTURES
    assert "val/exact_match" in events.Tags()["scalars"]
    assert (tmp_path / "metrics.csv").exists()


def test_weights_and_biases_gets_a_run_for_each_training(compose, tmp_path):
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")

    for number in range(2):
        run = tmp_path / str(number)
        train(compose("train", *TINY, "logger=wandb", "logger.wandb.offline=true"), run)

        (offline,) = run.glob("wandb/offline-run-*")
        media = {path.name.rsplit("_", 2)[0] for path in offline.glob("files/media/images/*.png")}
        (table,) = offline.glob("files/media/table/*.json")
        assert media >= PICTURES
        assert len(json.loads(table.read_text())["data"]) == 7


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy, about MLflow
def test_mlflow_gets_the_pictures_and_the_table_as_files(compose, tmp_path):
    tracking = pytest.importorskip("mlflow", reason="pip install -e '.[mlflow]'").tracking
    store = f"sqlite:///{tmp_path}/mlflow.db"

    train(
        compose("train", *TINY, "logger=mlflow", f"logger.mlflow.tracking_uri={store}",
                f"+logger.mlflow.artifact_location={tmp_path}/artifacts"), tmp_path / "run",
    )  # fmt: skip

    client = tracking.MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("seq2seq").experiment_id])
    artifacts = {artifact.path for artifact in client.list_artifacts(found.info.run_id)}
    assert artifacts >= {"predictions.tsv", *(f"{name}.png" for name in PICTURES)}
    assert "val/exact_match" in found.data.metrics


@pytest.mark.parametrize(("name", "available"), [("wandb", "_WANDB_AVAILABLE"), ("mlflow", "_MLFLOW_AVAILABLE")])
def test_a_tracker_that_is_not_installed_is_one_line(compose, tmp_path, monkeypatch, name, available):
    class Missing:
        def __bool__(self):
            return False

        def __str__(self):
            return f"No module named '{name}'. HINT: Try running `pip install -U '{name}'`"

    monkeypatch.setattr(f"pytorch_lightning.loggers.{name}.{available}", Missing())

    with pytest.raises(UserError, match=rf"^logger\.{name}: No module named '{name}'.*pip install"):
        train(compose("train", *TINY, f"logger={name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
