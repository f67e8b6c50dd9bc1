"""A model that reads features, from its training to every command that uses it."""

import json
import shutil

import pytest
import torch
import yaml
from conftest import TINY, combinations

from seq2seq.api import load
from seq2seq.checkpoint import load_model
from seq2seq.commands.demo import make_answer
from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.explain_handoff import explain
from seq2seq.commands.predict import predict
from seq2seq.commands.score import score
from seq2seq.commands.train import train
from seq2seq.errors import UserError

LONG = ["trainer.max_epochs=60", "callbacks.early_stopping.patience=60", "optimizer.lr=3e-2"]
COLUMNS = ["data.features_column=3", "data.features_tokens=spaces", "data.group_column=3"]


def overrides_of(folder):
    files = [f"data.{split}={folder / 'pairs.tsv'}" for split in ("train", "val", "test")]
    own = [one for one in TINY if not one.startswith("data") and "max_epochs" not in one]
    return ["data=tsv", *files, "data.source_tokens=spaces", "data.target_tokens=spaces", *COLUMNS, *own, *LONG]


@pytest.fixture(scope="module")
def folder(compose, tmp_path_factory):
    """A run that learned to answer ``p`` or ``q`` by the feature alone, beside its data."""
    folder = tmp_path_factory.mktemp("features")
    sources = ["a b", "b", "c a b", "b a", "a", "c"]
    lines = [f"{source}\t{target}\t{feature}\n" for source in sources for target, feature in (("p", "P"), ("q", "Q"))]
    (folder / "pairs.tsv").write_text("".join(lines))
    train(compose("train", *overrides_of(folder)), folder / "run")
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder):
    return f"checkpoint={folder / 'run' / 'best.ckpt'}"


def test_the_feature_decides(folder):
    predictor = load(folder / "run" / "best.ckpt")

    assert predictor(["a b\tP", "a b\tQ", "", "c\tP"]) == ["p", "q", "", "p"]
    alignment = predictor.align("a b\tQ", predictor.n_best(["a b\tQ"])[0][0])
    assert (alignment.source, alignment.features) == (["a", "b"], ["Q"])
    assert alignment.weights.shape == (2, 3)


def test_results_are_also_reported_by_group(folder):
    content = json.loads((folder / "run" / "metrics.json").read_text())

    assert content["test"]["by_group"] == {"P": 1.0, "Q": 1.0}
    assert "a b P\tp\tp\t1\tP\n" in (folder / "run" / "predictions.tsv").read_text()


@pytest.mark.parametrize("backend", ["torch", *combinations(["onnx"])])
def test_predict_reads_source_and_features(compose, folder, checkpoint, backend):
    (folder / "in.txt").write_text("c\tQ\nc a\tP\n\nc a\t\n")
    files = [f"input={folder / 'in.txt'}", f"output={folder / 'out.txt'}", "overwrite=true"]

    predict(compose("predict", checkpoint, *files, f"backend={backend}", "search.beam_size=2"))

    assert (folder / "out.txt").read_text().splitlines()[:3] == ["q", "p", ""]
    weights = folder / f"{backend}.jsonl"
    predict(compose("predict", checkpoint, *files, f"backend={backend}", f"attention={weights}"))
    row = json.loads(weights.read_text().splitlines()[1])
    assert (row["source"], row["features"], len(row["weights"][0])) == (["c", "a"], ["P"], 3)
    (folder / "in.txt").write_text("c\tQ\nc a\n")
    with pytest.raises(UserError, match=r"in\.txt:2: the text has 1 columns; the model reads 2, separated by tabs"):
        predict(compose("predict", checkpoint, *files, f"backend={backend}"))


def test_evaluate_and_score_read_them_too(compose, folder, checkpoint):
    test = ["data=tsv", f"data.test={folder / 'other.tsv'}", "data.features_column=1", "data.group_column=1"]
    test += ["data.source_column=3"]
    (folder / "other.tsv").write_text("P\tp\ta b\nQ\tq\tc\n")

    content = evaluate(compose("evaluate", checkpoint, *test, "metrics=words"), folder / "evaluation", test)
    score(compose("score", checkpoint, *test, f"output={folder / 'scores'}"), test)

    assert content["test"]["exact_match"] == 1.0
    _, *lines = (folder / "scores").read_text().splitlines()  # the first is the header
    assert all(float(line.split("\t")[2]) > -0.5 for line in lines)


def test_the_handoff_is_explained_and_verified_with_them(compose, folder, checkpoint, capsys):
    explain(compose("explain_handoff", checkpoint, "text='a b\tP'", f"output={folder / 'handoff.png'}"))

    printed = capsys.readouterr().out
    assert "Sequence 0 has the features P; they are added after the bridge." in printed
    assert "every decoder layer starts from the encoder layer that its bridge assigns to it." in printed
    explain(compose("explain_handoff", checkpoint, f"output={folder / 'handoff.png'}"))


def test_the_demo_answers_with_them(folder):
    predictor = load(folder / "run" / "best.ckpt")
    answer = make_answer(load_model(str(folder / "run" / "best.ckpt")), predictor)("a b\tQ")

    assert answer["predictions"][0]["text"] == "q"
    assert (answer["attention"]["source"], answer["attention"]["features"]) == (["a", "b"], ["Q"])
    assert answer["handoff"]["verified"]


def test_an_ensemble_reads_them_and_needs_the_same_ones(folder, tiny_checkpoint):
    path = folder / "run" / "best.ckpt"

    assert load(path, path)(["a\tP", "a\tQ"]) == ["p", "q"]
    with pytest.raises(UserError, match="the source vocabulary of checkpoint 2 differs from that of the first"):
        load(path, tiny_checkpoint)


def test_training_counts_their_symbols(folder):
    content = torch.load(folder / "run" / "best.ckpt", weights_only=True)

    assert content["hyper_parameters"]["features_tokenizer"]["symbols"] == ["P", "Q"]
    assert content["state_dict"]["model.features.embedding.weight"].shape == (6, 7)


def test_a_run_does_not_resume_with_other_features(compose, folder, tmp_path):
    content = (folder / "pairs.tsv").read_text()
    (tmp_path / "pairs.tsv").write_text(content.replace("\tP\n", "\tR\n"))

    with pytest.raises(UserError, match="data: the features vocabulary differs from that of resume="):
        train(compose("train", *overrides_of(tmp_path), f"resume={folder / 'run' / 'last.ckpt'}"), tmp_path / "run")


def test_a_run_from_before_there_were_features_is_still_the_same_run(compose, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    del settings["model"]["encoder"]["reads_features"]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))

    content = train(compose("train", *TINY, "resume=auto"), tmp_path / "run")

    assert content == json.loads((tiny_run / "metrics.json").read_text())
    with pytest.raises(UserError, match=r"holds a run with model\.encoder\.reads_features=None, and this one has True"):
        train(compose("train", *TINY, "resume=auto", "model.encoder.reads_features=true"), tmp_path / "run")
