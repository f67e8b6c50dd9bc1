"""A task's pairs as loaders of batches."""

from functools import cached_property

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from seq2seq.data.batch import Batch
from seq2seq.data.dataset import Corpus
from seq2seq.data.sampler import BucketSampler
from seq2seq.data.sources import Pair, Split, Task
from seq2seq.data.tokenizer import Codec, split
from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import UserError


class PairsDataModule(LightningDataModule):
    """Encodes the pairs of a task and loads them in batches of like length.

    Args:
        task: Where the pairs come from, and how they are tokenised and batched.
        seed: Of the order of the training batches.
        codecs: Source and target codec of a trained model; without them, vocabularies are counted in the training
            pairs.
    """

    def __init__(self, task: Task, *, seed: int, codecs: tuple[Codec, Codec] | None = None) -> None:
        super().__init__()
        self.task = task
        self.seed = seed
        self.first_epoch = 0
        """The epoch whose order comes first; a run that resumes sets it, as workers read ahead before the trainer."""
        self._pairs: dict[Split, list[Pair]] = {}
        self._corpora: dict[Split, Corpus] = {}
        if codecs is not None:
            self.codecs = codecs

    def pairs(self, split: Split) -> list[Pair]:
        """Return the pairs of a split; they are read once."""
        if split not in self._pairs:
            self._pairs[split] = list(self.task.pairs(split))
        return self._pairs[split]

    @cached_property
    def codecs(self) -> tuple[Codec, Codec]:
        """The source and the target codec."""
        pairs = self.pairs("train")
        codecs = []
        for side, tokens in enumerate((self.task.source_tokens, self.task.target_tokens)):
            sequences = (split(pair[side], tokens) for pair in pairs)
            vocabulary = Vocabulary.count(sequences, self.task.min_count)
            if not vocabulary.symbols:
                raise UserError(f"data.min_count={self.task.min_count} leaves no symbol; the most frequent is rarer")
            codecs.append(Codec(tokens, vocabulary))
        return codecs[0], codecs[1]

    def corpus(self, split: Split) -> Corpus:
        """Return the encoded pairs of a split."""
        if split not in self._corpora:
            source, target = self.codecs
            encoded = ((source.encode(pair.source), target.encode(pair.target)) for pair in self.pairs(split))
            self._corpora[split] = Corpus(encoded)
            if split == "train":
                del self._pairs[split]  # by now flat ids; the texts of the other splits are shown with predictions
        return self._corpora[split]

    def loader(self, split: Split) -> DataLoader[Batch]:
        """Return the batches of a split: shuffled for training, otherwise in order of length."""
        corpus = self.corpus(split)
        sampler = BucketSampler(
            corpus.sources.lengths,
            corpus.targets.lengths,
            batch_size=self.task.batch_size,
            shuffle=split == "train",
            seed=self.seed,
        )
        sampler.set_epoch(self.first_epoch)
        return DataLoader(corpus, batch_size=None, sampler=sampler, num_workers=self.task.num_workers)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches."""
        return self.loader("val")
