"""The pairs of a data source as loaders of batches."""

import json
import logging
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from seq2seq.data.batch import Batch
from seq2seq.data.cache import build_once, cache_folder
from seq2seq.data.dataset import FlatSequences, PairDataset, Shares, TokenSequences
from seq2seq.data.lines import LARGE
from seq2seq.data.sampler import BucketSampler, FixedBatches
from seq2seq.data.sources import DataSource, Pair, Split, build_source
from seq2seq.data.sources.files import settings_of_content
from seq2seq.data.sources.source import SIDES
from seq2seq.data.tokenizer import Normaliser, Tokenizer, build_tokenizer, tokenizer_from_dict
from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import STOP_SIGNALS, UserError

log = logging.getLogger(__name__)

STAGES: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    None: ("train", "val", "test"),
}
"""The splits that each of Lightning's stages needs; None stands for all stages."""


class References(NamedTuple):
    """What counts as right for some pairs, the target first and then its alternatives.

    Attributes:
        texts: Texts of each pair.
        ids: The same encoded, without begin and end.
    """

    texts: list[list[str]]
    ids: list[list[list[int]]]


class PairsDataModule(LightningDataModule):
    """Reads, encodes and batches the pairs of a data source. Each split is read once, when it is first needed.

    Args:
        data: The section ``data`` of a config.
        seed: Seed of the order of the training batches.
        source_tokenizer: `Tokenizer.to_dict` of a trained model; None to build the vocabulary from the training pairs.
        target_tokenizer: The same for the target.
        first_epoch: The epoch whose order comes first; above 0 in a run that resumes. The trainer sets the epoch, too,
            but workers read ahead of it.
        first_batch: Number of training batches of that epoch that are already done.

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
        first_batch: int = 0,
    ) -> None:
        super().__init__()
        self.source = build_source(data)
        data = self.source.to_dict()  # with absolute paths
        self.save_hyperparameters(logger=False)
        self.seed = seed
        self.first_epoch = first_epoch
        self.first_batch = first_batch
        given = {"source": source_tokenizer, "target": target_tokenizer}
        # Without symbols until the training pairs have been read.
        self._tokenizers: dict[str, Tokenizer] = {
            side: tokenizer_from_dict(values) if values else self.source.make_tokenizer(side)
            for side, values in given.items()
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

    def references(self, split: Split, indices: Iterable[int]) -> References:
        """Return what counts as right for some pairs of ``val`` or ``test``."""
        pairs, targets = self.pairs(split), self.dataset(split).targets
        chosen = [(index, pairs[index]) for index in indices]
        encode = self.target_tokenizer.encode
        return References(
            [pair.references for _, pair in chosen],
            [[targets[index], *map(encode, pair.alternatives)] for index, pair in chosen],
        )

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
        """Read a split, or the cache of a large training set."""
        files = self.source.files(split) if split == "train" else []
        if sum(Path(file).stat().st_size for file in files if Path(file).is_file()) < LARGE:
            return self._encode(split)
        known = {side: tokenizer.to_dict() for side, tokenizer in self._tokenizers.items()}
        settings = settings_of_content(self.source.to_dict()) | known
        cache_dir = getattr(self.source, "cache_dir", None)
        folder = build_once(lambda: cache_folder(cache_dir, files, settings), files, self._write_cache)
        tokenizers = json.loads((folder / TOKENIZERS_FILE).read_text(encoding="utf-8"))
        self._tokenizers = {side: tokenizer_from_dict(values) for side, values in tokenizers.items()}
        log.info("training pairs are read from %s", folder)
        return PairDataset(*(FlatSequences.mapped(*cache_files(folder, side)) for side in SIDES))

    def _write_cache(self, folder: Path) -> None:
        self._encode("train", folder)
        tokenizers = {side: tokenizer.to_dict() for side, tokenizer in self._tokenizers.items()}
        (folder / TOKENIZERS_FILE).write_text(json.dumps(tokenizers), encoding="utf-8")

    def _encode(self, split: Split, folder: Path | None = None) -> PairDataset:
        """Encode a split, in memory or in files of a folder. Each text is normalised once and tokenised once."""
        if split == "train":
            self._learn()
        sides = {side: TokenSequences(folder and cache_files(folder, side)) for side in SIDES}
        pairs: list[Pair] = []
        for pair, texts, tokens in self._accepted(split):
            for side in SIDES:
                sides[side].append(tokens[side])
            if split != "train":
                pairs.append(self._as_read(pair, texts))
        if self.source.skipped:
            log.warning("data.skip_invalid: %d training pairs are empty or too long; skipped", self.source.skipped)
        if split != "train":
            self._pairs[split] = pairs
        elif not len(sides["source"]):
            raise UserError("data.train: no pair is left; see data.max_length and data.skip_invalid")
        self._count(sides)
        return PairDataset(*(sides[side].encode(self._tokenizers[side].vocabulary) for side in SIDES))

    def _accepted(self, split: Split) -> Iterator[tuple[Pair, dict[str, str], dict[str, list[str]]]]:
        """Yield each pair of a split that is used, its normalised texts, and their tokens."""
        for pair in self.source.pairs(split):
            texts = {side: self._tokenizers[side].normalise(getattr(pair, side)) for side in SIDES}
            tokens = {side: self._tokenizers[side].tokenize(text) for side, text in texts.items()}
            if all(self.source.accepts(side, len(tokens[side]), pair, split) for side in SIDES):
                yield pair, texts, tokens

    def training_places(self, indices: Iterable[int]) -> list[str]:
        """Return where training pairs stand, ``file:line``, or what they are; reads the training files again."""
        wanted = set(indices)
        used = enumerate(self._accepted("train"))
        return [pair.place or f"{pair.source} -> {pair.target}" for number, (pair, *_) in used if number in wanted]

    def _as_read(self, pair: Pair, texts: dict[str, str]) -> Pair:
        """Return a pair with its texts as people see them."""
        source, target = (self._tokenizers[side].normalise.compose(texts[side]) for side in SIDES)
        normalise = self._tokenizers["target"].normalise
        alternatives = tuple(normalise.compose(normalise(text)) for text in pair.alternatives)
        return pair._replace(source=source, target=target, alternatives=alternatives)

    def _learn(self) -> None:
        """Let tokenizers learn that must, on the training texts of their side, or of both for a shared vocabulary."""
        shared = self.source.shared_vocabulary
        for side, tokenizer in self._tokenizers.items():
            if tokenizer.must_learn:
                sides = SIDES if shared else [side]
                tokenizer.learn(TrainingTexts(self.source, {one: self._tokenizers[one].normalise for one in sides}))
                if shared:
                    spec = tokenizer.spec()
                    self._tokenizers = {one: build_tokenizer(spec, self._tokenizers[one].normalise) for one in SIDES}
                    return

    def _count(self, sequences: dict[str, TokenSequences]) -> None:
        """Make the vocabularies that are still empty."""
        if all(tokenizer.vocabulary.symbols for tokenizer in self._tokenizers.values()):
            return
        counts: dict[str, Counter[str]] = {side: Counter(sequences[side].counts()) for side in SIDES}
        for side, tokenizer in self._tokenizers.items():
            counts[side].update(dict.fromkeys(tokenizer.learned_tokens(), self.source.min_count))
        if self.source.shared_vocabulary:
            counts = dict.fromkeys(SIDES, counts["source"] + counts["target"])
        for side, tokenizer in self._tokenizers.items():
            if not tokenizer.vocabulary.symbols:
                tokenizer.vocabulary = Vocabulary.from_counts(
                    counts[side], self.source.min_count, self.source.max_symbols
                )
            if not tokenizer.vocabulary.symbols:
                raise UserError(f"data.min_count={self.source.min_count} leaves no symbol; the most frequent is rarer")

    def _dataloader(self, split: Split) -> DataLoader[Batch]:
        dataset = self.dataset(split)
        sampler = BucketSampler(
            dataset.sources.lengths,
            dataset.targets.lengths,
            batch_size=self.source.batch_size,
            shuffle=split == "train",
            seed=self.seed,
            max_tokens=self.source.batch_tokens,
        )
        if split == "train":
            sampler.resume(self.first_epoch, self.first_batch)
        if getattr(self.trainer, "overfit_batches", 0):
            sampler = FixedBatches(sampler)
        processes = self.trainer.world_size if self.trainer else 1
        return DataLoader(
            dataset if processes == 1 else Shares(dataset, self.trainer.global_rank, processes),
            batch_size=None,
            sampler=sampler,
            num_workers=self.source.num_workers,
            worker_init_fn=leave_signals_to_parent,
        )


GRACE = 5
"""Seconds that a worker lives on after SIGTERM."""


def leave_signals_to_parent(_worker: int) -> None:
    """Let a worker ignore the signals that end a run: a terminal and Slurm send them to all processes of a job.

    A worker that they ended would end its parent with an error, in the middle of a step. SIGTERM is obeyed later, as a
    parent that fails ends its workers with it.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


TOKENIZERS_FILE = "tokenizers.json"


def cache_files(folder: Path, side: str) -> tuple[Path, Path]:
    """Return the files of a side in a cache: ids, and offsets."""
    return folder / f"{side}.ids", folder / f"{side}.offsets"


class TrainingTexts:
    """The normalised training texts of some sides, read anew each time.

    Args:
        source: Where the pairs come from.
        normalisers: For each side whose texts are wanted, how they are normalised.
    """

    def __init__(self, source: DataSource, normalisers: dict[str, Normaliser]) -> None:
        self.source = source
        self.normalisers = normalisers

    def __iter__(self) -> Iterator[str]:
        for pair in self.source.pairs("train"):
            for side, normalise in self.normalisers.items():
                yield normalise(getattr(pair, side))
