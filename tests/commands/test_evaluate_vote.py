"""A vote: most predictions win, whatever the models' vocabularies are."""

import json

import pytest
import yaml
from conftest import TINY
from test_scripts import run

from seq2seq.api import Vote, elect, load
from seq2seq.commands.evaluate import evaluate
from seq2seq.commands.predict import predict
from seq2seq.commands.train import train
from seq2seq.errors import UserError

LINES = ["ab c\tx y\n", "b\ty\n", "c a\tz\n", "a b c\tz x\n", "cb\ty y\n", "a\tx\n"]
MEMBERS = {
    "spaces": ["data.source_tokens=spaces", "data.target_tokens=spaces", "seed=2"],
    "characters": ["data.source_tokens=characters", "data.target_tokens=characters", "model=lstm"],
    "upper": ["data.source_tokens=characters", "data.target_tokens=spaces", "data.lower_case=true", "seed=3"],
}


@pytest.fixture(scope="module")
def folder(compose, tmp_path_factory):
    """Three runs whose vocabularies differ, beside their data."""
    folder = tmp_path_factory.mktemp("vote")
    (folder / "pairs.tsv").write_text("".join(LINES))
    files = [f"data.{split}={folder / 'pairs.tsv'}" for split in ("train", "val", "test")]
    own = [one for one in TINY if not one.startswith("data") and "max_epochs" not in one]
    long = ["trainer.max_epochs=25", "callbacks.early_stopping.patience=25", "optimizer.lr=3e-2"]
    for name, changes in MEMBERS.items():
        train(compose("train", "data=tsv", *files, *own, *long, *changes), folder / name)
    return folder


@pytest.fixture(scope="module")
def checkpoints(folder):
    return [folder / name / "best.ckpt" for name in MEMBERS]


def test_models_of_different_vocabularies_elect_a_text(checkpoints):
    members = [load(path) for path in checkpoints]
    texts = [line.split("\t")[0] for line in LINES] + ["", "c c"]

    found = Vote(members).n_best(texts)

    own = [member.n_best(texts) for member in members]
    for number, (best,) in enumerate(found):
        assert best == elect([hypotheses[number][0] for hypotheses in own])
    assert found[-2][0].text == ""
    with pytest.raises(UserError, match="the source vocabulary of checkpoint 2 differs"):
        load(*checkpoints)


def test_members_must_read_the_same_columns(checkpoints):
    member, other = load(checkpoints[0]), load(checkpoints[0])
    other.tokenizers = other.tokenizers._replace(features=other.tokenizers.source)

    with pytest.raises(UserError, match="checkpoint 2 reads 2 columns and the first reads 1; a vote needs"):
        Vote([member, other])


def test_predict_writes_what_is_elected(compose, folder, checkpoints):
    texts = [line.split("\t")[0] for line in LINES]
    (folder / "in.txt").write_text("\n".join(texts) + "\n")
    given = [f"checkpoint=[{','.join(map(str, checkpoints))}]", "vote=true", f"input={folder / 'in.txt'}"]

    predict(compose("predict", *given, "scores=true", f"output={folder / 'out.txt'}"))

    expected = Vote([load(path) for path in checkpoints]).n_best(texts)
    lines = (folder / "out.txt").read_text().splitlines()
    assert lines == [f"{best.text}\t{best.log_prob:.4f}" for (best,) in expected]
    for refused, message in (
        ("attention=true", "attention=True does not fit vote=true: each model attends for itself"),
        ("search.n_best=2", r"search\.n_best=2 does not fit vote=true"),
    ):
        with pytest.raises(UserError, match=message):
            predict(compose("predict", *given, "search.beam_size=3", refused))


def test_evaluation_compares_texts(compose, folder, checkpoints):
    (folder / "test.tsv").write_text("".join([*LINES, "a\tq\n", "b\tw\n"]))  # no model knows the last targets
    given = ["data=tsv", f"data.test={folder / 'test.tsv'}"]
    every = f"checkpoint=[{','.join(map(str, checkpoints))}]"

    evaluate(compose("evaluate", every, "vote=true", "metrics=words", *given), folder / "evaluation", given)

    content = json.loads((folder / "evaluation" / "metrics.json").read_text())
    texts = [line.split("\t")[0] for line in (folder / "test.tsv").read_text().splitlines()]
    references = [line.split("\t")[1] for line in (folder / "test.tsv").read_text().splitlines()]
    right = [a == b for a, b in zip(Vote([load(path) for path in checkpoints])(texts), references, strict=True)]
    assert 0 < sum(right) < len(LINES) + 1
    assert content["test"]["exact_match"] == pytest.approx(sum(right) / len(right))
    assert set(content["test"]) == {"exact_match", "symbol_error_rate", "word_error_rate"}  # of decoding only
    assert content["vote"] is True
    rows = (folder / "evaluation" / "predictions.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[2] for row in rows] == references


def test_a_vote_is_evaluated_by_one_process(compose, folder, checkpoints):
    every = f"checkpoint=[{','.join(map(str, checkpoints))}]"
    given = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]

    with pytest.raises(UserError, match=r"trainer\.devices: vote=true evaluates in one process, and not in 2"):
        evaluate(compose("evaluate", every, "vote=true", *given), folder / "two", given)


def test_a_sweep_over_members_ends_with_a_line_for_each_vote(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.tsv").write_text("".join(LINES))
    files = [f"data.{split}=${{dataset}}.tsv" for split in ("train", "val", "test")]
    small = [one for one in TINY if one.startswith(("model", "trainer", "+trainer"))]
    given = ["experiment=g2p_vote", *files, *small, "callbacks.early_stopping.patience=9", "dataset=one,two"]

    code, _, stderr = run("train", *given, "member=gru_gnmt,lstm_luong_sparse", cwd=tmp_path)

    assert code == 0, stderr
    folder = tmp_path / "outputs" / "g2p_vote"
    table = (folder / "vote.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in table[2:]] == ["2", "2"]
    for number, name in enumerate(("one", "two")):
        content = json.loads((folder / "vote" / str(number) / "metrics.json").read_text())
        members = [folder / f"{name}-{member}-1" / "best.ckpt" for member in ("gru_gnmt", "lstm_luong_sparse")]
        assert sorted(content["checkpoint"]) == sorted(map(str, members))
        assert f"dataset={name}" in table[2 + number]
        assert table[2 + number].endswith(f" {content['test']['exact_match']:.4f} |")
    again = run("train", *given, "member=gru_gnmt,lstm_luong_sparse,lstm_gnmt", cwd=tmp_path)  # one more votes, too
    assert again[0] == 0, again[2]
    assert [line.split(" | ")[1] for line in (folder / "vote.md").read_text().splitlines()[2:]] == ["3", "3"]
    settings = yaml.safe_load((folder / "two-lstm_luong_sparse-1" / "config.yaml").read_text())["model"]
    assert settings["attention"] == {"name": "additive", "normaliser": "entmax15"}
    assert (settings["encoder"]["cell"], settings["decoder"]["kind"]) == ("lstm", "luong")
