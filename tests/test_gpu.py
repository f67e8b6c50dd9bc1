"""On a GPU: the same states, logits and predictions as on the CPU, and training, evaluation and the benchmark run."""

import json

import pytest
import torch
from conftest import KINDS, TINY, make_model

from seq2seq.api import Predictor, load_model
from seq2seq.commands.benchmark import benchmark
from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.train import train
from seq2seq.decoding import Beam

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(autouse=True)
def exact():
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # by default, its recurrent layers round
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_states_and_logits_are_those_of_the_cpu(cell, kind):
    model = make_model(cell=cell, decoder=KINDS[kind], encoder={"num_layers": 3})
    source, targets, lengths = torch.randint(4, 9, (5, 7)), torch.randint(4, 9, (5, 6)), torch.tensor([3, 7, 1, 6, 5])

    with torch.inference_mode():
        state, output = model.encoder(source, lengths).state, model(source, lengths, targets)
        model.to(DEVICE)
        on_gpu = model.encoder(source.to(DEVICE), lengths).state
        output_on_gpu = model(source.to(DEVICE), lengths, targets.to(DEVICE))

    for one, other in zip((*state, output.logits, output.weights),
                          (*on_gpu, output_on_gpu.logits, output_on_gpu.weights), strict=True):  # fmt: skip
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other.cpu(), one, rtol=0, atol=1e-5)


def test_predictions_are_those_of_the_cpu(tiny_checkpoint):
    texts = ["a b c", "d", "c b a q r"]
    for search in (None, Beam(6, beam_size=4, n_best=3)):
        here, there = (Predictor([load_model(str(tiny_checkpoint))], device, search) for device in ("cpu", DEVICE))
        assert here(texts) == there(texts)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_and_evaluation_run(compose, tmp_path, precision):
    (tmp_path / "evaluation").mkdir()
    own = [override for override in TINY if not override.startswith("trainer.accelerator")]

    train(compose("train", *own, "trainer=gpu", f"trainer.precision={precision}", "trainer.max_epochs=3"), tmp_path)
    evaluate(compose("evaluate", f"checkpoint={tmp_path}/best.ckpt", "trainer=gpu"), tmp_path / "evaluation", [])

    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())


def test_the_benchmark_runs_and_measures_memory(compose, tiny_checkpoint, tmp_path):
    small = [*TINY[:5], "batch_sizes=[8]", "kinds=[luong,bahdanau]", "rounds=1", "batches=2", "textbook=false"]
    precisions = "precisions=[32-true,tf32,bf16-mixed]"
    given = [f"checkpoint={tiny_checkpoint}", f"device={DEVICE}", f"output={tmp_path}/b.json"]

    content = benchmark(compose("benchmark", *small, precisions, *given))

    assert len(content["training"]) == 2 * 3 * 2  # bare and with the trainer
    assert all(row["megabytes"] > 0 and row["share_of_limit"] > 0 for row in content["training"])
