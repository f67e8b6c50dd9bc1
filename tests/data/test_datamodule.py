"""Pairs to loaders of batches, as Lightning uses them."""

from collections import Counter
from itertools import chain

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from seq2seq.data import BOS, UNK, Tokenizers, Vocabulary, build_source, prepare
from seq2seq.data.sources import Reverse
from seq2seq.data.tokenizer import Normaliser, SpaceTokenizer
from seq2seq.errors import UserError
from seq2seq.training.datamodule import PairsDataModule

SETTINGS = {
    "task": "reverse", "source_tokens": "spaces", "target_tokens": "spaces", "min_count": 1, "batch_size": 8,
    "max_epochs": 1, "num_workers": 0, "train_size": 50, "val_size": 13, "test_size": 11, "min_letters": 2,
    "max_letters": 5, "seed": 3,
}  # fmt: skip
SPLITS = ("train", "val", "test")


def write_tsv(directory, lines="e\u0301 b\tx y x\nb\tx\n"):
    """Write one file of pairs and return settings that use it for every split."""
    (directory / "pairs.tsv").write_text(lines, encoding="utf-8")
    common = {key: SETTINGS[key] for key in ("source_tokens", "target_tokens", "min_count", "batch_size")}
    columns = {"source_column": 1, "target_column": 2, "max_length": 9, "max_epochs": 1, "num_workers": 0}
    return common | columns | {"task": "tsv"} | dict.fromkeys(SPLITS, str(directory / "pairs.tsv"))


def make(settings=SETTINGS, splits=SPLITS):
    return prepare(build_source(settings), splits)


def ids_of(loader):
    return [(batch.source.tolist(), batch.target.tolist(), batch.indices.tolist()) for batch in loader]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [(["train", "val"], ["train", "val"]), (["val"], ["train", "val"]), (["test"], ["train", "test"])],
)
def test_each_split_is_read_once_and_the_training_pairs_in_any_case(monkeypatch, splits, expected):
    read, pairs = [], Reverse.pairs
    monkeypatch.setattr(Reverse, "pairs", lambda self, split: read.append(split) or pairs(self, split))

    make(splits=splits)

    assert read == expected  # the training pairs give the vocabularies


def test_the_tokenizers_of_a_trained_model_need_no_training_pairs(tmp_path):
    source = build_source(write_tsv(tmp_path) | {"train": None})
    tokenizer = SpaceTokenizer(Vocabulary(["b", "x"]))

    data = prepare(source, ["test"], Tokenizers(tokenizer, tokenizer))

    assert data.datasets["test"].sources.ids.tolist() == [UNK, 4, 4]
    assert data.tokenizers.target is tokenizer


def test_each_text_is_normalised_once_and_tokenised_once(monkeypatch):
    calls = Counter()
    normalise, tokenize = Normaliser.__call__, SpaceTokenizer.tokenize
    monkeypatch.setattr(Normaliser, "__call__", lambda *args: calls.update(["normalise"]) or normalise(*args))
    monkeypatch.setattr(
        SpaceTokenizer, "tokenize", lambda self, text: calls.update(["tokenize"]) or tokenize(self, text)
    )

    data = make()
    loading = PairsDataModule(data)
    for loader in (loading.train_dataloader(), loading.val_dataloader(), loading.test_dataloader()):
        list(loader)
    assert len(data.pairs["val"]) == 13

    texts = 2 * (50 + 13 + 11)
    assert calls == {"normalise": texts, "tokenize": texts}


def test_the_vocabulary_is_counted_in_the_training_pairs_alone(tmp_path):
    settings = write_tsv(tmp_path)
    (tmp_path / "test.tsv").write_text("z\tz\n")

    data = make(settings | {"test": str(tmp_path / "test.tsv")})

    assert data.tokenizers.source.vocabulary.symbols == ["b", "\u00e9"]
    assert data.tokenizers.target.vocabulary.symbols == ["x", "y"]
    assert data.datasets["train"].sources.ids.tolist() == [5, 4, 4]
    assert data.datasets["test"].sources.ids.tolist() == [UNK]


def test_normalised_texts_of_validation_and_test_are_kept(tmp_path):
    data = make(write_tsv(tmp_path))

    assert [pair.source for pair in data.pairs["val"]] == ["\u00e9 b", "b"]
    assert [pair.target for pair in data.pairs["test"]] == ["x y x", "x"]


def test_the_indices_of_a_batch_lead_back_to_the_texts():
    data = make()
    tokenizer = data.tokenizers.target

    for batch in PairsDataModule(data).test_dataloader():
        texts = [data.pairs["test"][index].target for index in batch.indices]
        assert [tokenizer.decode(ids) for ids in batch.references()] == texts


def test_nothing_of_the_data_is_in_a_checkpoint():
    assert not PairsDataModule(make(), seed=5).hparams


@pytest.mark.parametrize(("change", "same"), [({"seed": 1}, False), ({"start": (1, 0)}, False), ({}, True)])
def test_the_order_of_training_depends_on_seed_and_epoch(change, same):
    batches, others = (ids_of(PairsDataModule(make(), **values).train_dataloader()) for values in ({}, change))

    assert (batches == others) is same


def test_a_vocabulary_without_symbols_is_refused():
    with pytest.raises(
        UserError, match=r"data\.min_count=100000 leaves no symbol of the source; the most frequent is rarer"
    ):
        make(SETTINGS | {"min_count": 100_000})


class Recorder(pl.LightningModule):
    """Records the batches that the trainer gives it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = {"train": [], "val": [], "test": []}

    def training_step(self, batch):
        assert torch.equal(batch.inputs[:, 0], torch.full((len(batch.indices),), BOS))
        self.seen["train"].append(batch.indices.tolist())
        return self.weight.sum()

    def validation_step(self, batch):
        self.seen["val"].append(batch.indices.tolist())

    def test_step(self, batch):
        self.seen["test"].append(batch.indices.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = quiet | {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_epochs": 2} | options
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **options)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.* is deprecated")
def test_a_trainer_sees_every_pair_in_another_order_each_epoch(tmp_path):
    data, recorder, trainer = PairsDataModule(make()), Recorder(), make_trainer(tmp_path)

    trainer.fit(recorder, data)
    trainer.test(recorder, data, verbose=False)

    first, second = recorder.seen["train"][:7], recorder.seen["train"][7:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(50))
    assert first != second
    assert sorted(chain(*recorder.seen["val"][:2])) == list(range(13))
    assert sorted(chain(*recorder.seen["test"])) == list(range(11))
