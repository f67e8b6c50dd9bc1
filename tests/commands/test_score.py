"""Scores of given pairs are the log-probabilities that teacher forcing gives, row by row."""

import pytest
import torch

from seq2seq.checkpoint import load_model
from seq2seq.commands.score import score
from seq2seq.data import BOS, EOS
from seq2seq.errors import UserError

PAIRS = [("a b c", "c b a"), ("d", "d"), ("e f", "g")]


@pytest.fixture
def scored(compose, tiny_checkpoint, tmp_path):
    """What the script writes for `PAIRS` beside their texts, as lists of numbers."""

    def run(*overrides):
        (tmp_path / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
        given = [
            "data=tsv",
            f"data.test={tmp_path}/pairs.tsv",
            f"output={tmp_path}/out.tsv",
            "overwrite=true",
            *overrides,
        ]
        checkpoint = (
            [] if any("checkpoint=" in override for override in overrides) else [f"checkpoint={tiny_checkpoint}"]
        )
        score(compose("score", *checkpoint, *given), given)
        header, *lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
        assert header == ["source", "target", "log_prob", "log_prob_per_token", "token_log_probs"]
        assert [tuple(line[:2]) for line in lines] == PAIRS
        return [[[float(number) for number in part.split()] for part in line[2:]] for line in lines]

    return run


def test_a_line_holds_the_sum_the_mean_and_each_token(scored, tiny_checkpoint):
    module = load_model(str(tiny_checkpoint))

    lines = scored()

    for (source, target), (total, mean, tokens) in zip(PAIRS, lines, strict=True):
        ids, labels = module.tokenizers.source.encode(source), [*module.tokenizers.target.encode(target), EOS]
        inputs = torch.tensor([[BOS, *labels[:-1]]])
        log_probs = module.model(torch.tensor([ids]), torch.tensor([len(ids)]), inputs).logits[0].log_softmax(-1)
        expected = log_probs[torch.arange(len(labels)), torch.tensor(labels)].tolist()
        assert tokens == pytest.approx(expected, abs=1e-4)
        assert total == pytest.approx([sum(expected)], abs=1e-3)
        assert mean == pytest.approx([sum(expected) / len(expected)], abs=1e-3)


def test_an_ensemble_of_a_model_with_itself_scores_as_the_model(scored, tiny_checkpoint):
    assert scored(f"checkpoint=[{tiny_checkpoint},{tiny_checkpoint}]") == scored()


def test_workers_score_the_same(scored):
    settings = ["data.batch_size=1"]

    assert scored(*settings, "workers=1") == scored(*settings, "workers=0")


def test_without_an_output_the_scores_are_printed(compose, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "pairs.tsv").write_text("a b\tb a\n")
    given = ["data=tsv", f"data.test={tmp_path}/pairs.tsv"]

    score(compose("score", f"checkpoint={tiny_checkpoint}", *given), given)

    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("a b\tb a\t-")


def test_the_pairs_are_not_overwritten(compose, tiny_checkpoint, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a b\tb a\n")
    given = ["data=tsv", f"data.test={tmp_path}/pairs.tsv", f"output={tmp_path}/pairs.tsv", "overwrite=true"]

    with pytest.raises(
        UserError, match=r"output=.*pairs\.tsv is the data\.test, which would be lost; give another file"
    ):
        score(compose("score", f"checkpoint={tiny_checkpoint}", *given), given)

    assert (tmp_path / "pairs.tsv").read_text() == "a b\tb a\n"


def test_a_bad_line_is_named(compose, tiny_checkpoint, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a b\n")
    given = ["data=tsv", f"data.test={tmp_path}/pairs.tsv", f"output={tmp_path}/out.tsv"]

    with pytest.raises(UserError, match=r"pairs\.tsv:1: data\.target_column=2, but the line has 1 column"):
        score(compose("score", f"checkpoint={tiny_checkpoint}", *given), given)

    assert not (tmp_path / "out.tsv").exists()
