"""The pairs of a data source as loaders of batches."""

from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from seq2seq.data.batch import Batch
from seq2seq.data.dataset import PairDataset, TokenSequences
from seq2seq.data.sampler import BucketSampler, FixedBatches
from seq2seq.data.sources import Pair, Split, build_source
from seq2seq.data.tokenizer import Tokenizer, normalise, tokenizer_from_dict
from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import UserError

STAGES: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    None: ("train", "val", "test"),
}
"""The splits that each of Lightning's stages needs; None stands for all stages."""


class PairsDataModule(LightningDataModule):
    """Reads, encodes and batches the pairs of a data source. Each split is read once, when it is first needed.

    Args:
        data: The section ``data`` of a config.
        seed: Seed of the order of the training batches.
        source_tokenizer: `Tokenizer.to_dict` of a trained model; None to build the vocabulary from the training pairs.
        target_tokenizer: The same for the target.
        first_epoch: The epoch whose order comes first; above 0 in a run that resumes. The trainer sets the epoch, too,
            but workers read ahead of it.

    Raises:
        UserError: If a setting is not allowed, or later, if a file is not valid.

    Example:
        >>> sizes = {"train_size": 5, "val_size": 3, "test_size": 2, "min_letters": 2, "max_letters": 4}
        >>> tokens = {"source_tokens": "spaces", "target_tokens": "spaces", "min_count": 1}
        >>> loading = {"batch_size": 2, "max_epochs": 1, "num_workers": 0}
        >>> data = PairsDataModule({"task": "reverse", "seed": 0} | sizes | tokens | loading)
        >>> data.setup("fit")
        >>> [len(batch.indices) for batch in data.val_dataloader()]
        [2, 1]
    """

    def __init__(
        self,
        data: dict[str, Any],
        *,
        seed: int = 0,
        source_tokenizer: dict[str, Any] | None = None,
        target_tokenizer: dict[str, Any] | None = None,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.source = build_source(data)
        data = self.source.to_dict()  # with absolute paths
        self.save_hyperparameters(logger=False)
        self.seed = seed
        self.first_epoch = first_epoch
        # Without symbols until the training pairs have been read.
        self._tokenizers = {
            "source": tokenizer_from_dict(source_tokenizer or {"tokens": self.source.source_tokens, "symbols": []}),
            "target": tokenizer_from_dict(target_tokenizer or {"tokens": self.source.target_tokens, "symbols": []}),
        }
        self._datasets: dict[Split, PairDataset] = {}
        self._pairs: dict[Split, list[Pair]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage, so that a mistake in a file is found before anything starts.

        Args:
            stage: ``fit``, ``validate`` or ``test``; None for all splits.
        """
        for split in STAGES[stage]:
            self.dataset(split)

    @property
    def source_tokenizer(self) -> Tokenizer:
        """The tokenizer of the sources."""
        self._build_vocabularies()
        return self._tokenizers["source"]

    @property
    def target_tokenizer(self) -> Tokenizer:
        """The tokenizer of the targets."""
        self._build_vocabularies()
        return self._tokenizers["target"]

    def dataset(self, split: Split) -> PairDataset:
        """Return the encoded pairs of a split."""
        if split != "train":
            self._build_vocabularies()
        if split not in self._datasets:
            self._datasets[split] = self._read(split)
        return self._datasets[split]

    def pairs(self, split: Split) -> list[Pair]:
        """Return the normalised texts of ``val`` or ``test``; those of ``train`` are not kept."""
        self.dataset(split)
        return self._pairs[split]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches, shuffled."""
        return self._dataloader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, sorted by length."""
        return self._dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, sorted by length."""
        return self._dataloader("test")

    def batches(self, split: Split) -> int:
        """Return the number of batches of a split."""
        return len(self._dataloader(split))

    def _build_vocabularies(self) -> None:
        if not all(tokenizer.vocabulary.symbols for tokenizer in self._tokenizers.values()):
            self.dataset("train")

    def _read(self, split: Split) -> PairDataset:
        """Read a split. Each text is normalised once and tokenised once."""
        sides = {side: TokenSequences() for side in self._tokenizers}
        pairs = []
        for pair in self.source.pairs(split):
            texts = {"source": normalise(pair.source), "target": normalise(pair.target)}
            for side, text in texts.items():
                tokens = self._tokenizers[side].tokenize(text)
                self.source.check_length(side, len(tokens), pair.place)
                sides[side].append(tokens)
            if split != "train":
                pairs.append(pair._replace(**texts))
        if split != "train":
            self._pairs[split] = pairs
        for side, tokenizer in self._tokenizers.items():
            if not tokenizer.vocabulary.symbols:
                tokenizer.vocabulary = self._count(sides[side])
        return PairDataset(*(sides[side].encode(self._tokenizers[side].vocabulary) for side in ("source", "target")))

    def _count(self, sequences: TokenSequences) -> Vocabulary:
        vocabulary = Vocabulary.from_counts(sequences.counts(), self.source.min_count)
        if not vocabulary.symbols:
            raise UserError(f"data.min_count={self.source.min_count} leaves no symbol; the most frequent is rarer")
        return vocabulary

    def _dataloader(self, split: Split) -> DataLoader[Batch]:
        dataset = self.dataset(split)
        sampler = BucketSampler(
            dataset.sources.lengths,
            dataset.targets.lengths,
            batch_size=self.source.batch_size,
            shuffle=split == "train",
            seed=self.seed,
        )
        sampler.set_epoch(self.first_epoch)
        if getattr(self.trainer, "overfit_batches", 0):
            sampler = FixedBatches(sampler)
        return DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=self.source.num_workers)
