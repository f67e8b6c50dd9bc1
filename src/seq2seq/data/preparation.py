"""Pairs read, tokenised and encoded by one call, with the vocabularies that come from the training pairs."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from seq2seq.data.cache import build_once, cache_folder
from seq2seq.data.dataset import FlatSequences, PairDataset, TokenSequences
from seq2seq.data.lines import LARGE
from seq2seq.data.sources import DataSource, Pair, Split
from seq2seq.data.sources.source import SIDES
from seq2seq.data.tokenizer import Tokenizer, tokenizer_from_dict
from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import UserError

log = logging.getLogger(__name__)

Tokenizers = tuple[Tokenizer, Tokenizer]
"""Those of source and target."""

TOKENIZERS_FILE = "tokenizers.json"

IRRELEVANT = {"train", "val", "test", "batch_size", "batch_tokens", "max_epochs", "num_workers", "cache_dir"}
"""Settings that do not change the encoded training pairs; the content of the files counts, and not their paths."""


class References(NamedTuple):
    """What counts as right for each of some pairs, the target first: texts, and ids without begin and end."""

    texts: list[list[str]]
    ids: list[list[list[int]]]


class PreparedData(NamedTuple):
    """Encoded pairs, their source, the tokenizers, and the normalised texts of each split but ``train``."""

    source: DataSource
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    datasets: dict[Split, PairDataset]
    pairs: dict[Split, list[Pair]]

    def references(self, split: Split, indices: Iterable[int]) -> References:
        """Return what counts as right for some pairs of ``val`` or ``test``."""
        targets, encode = self.datasets[split].targets, self.target_tokenizer.encode
        chosen = [(index, self.pairs[split][index]) for index in indices]
        return References(
            [pair.references for _, pair in chosen],
            [[targets[index], *map(encode, pair.alternatives)] for index, pair in chosen],
        )

    def training_places(self, indices: Iterable[int]) -> list[str]:
        """Return where training pairs stand, ``file:line``, or what they are; reads the training files again."""
        wanted = set(indices)
        used = enumerate(accepted(self.source, "train", (self.source_tokenizer, self.target_tokenizer)))
        return [pair.place or f"{pair.source} -> {pair.target}" for number, (pair, *_) in used if number in wanted]


def prepare(source: DataSource, splits: Iterable[Split], tokenizers: Tokenizers | None = None) -> PreparedData:
    """Read and encode the splits of a data source. Each text is normalised once and tokenised once.

    Without the tokenizers of a trained model, these are made from the training pairs, which are read then in any case.

    Raises:
        UserError: If a file or a line is not valid, or the vocabularies would be empty.

    Example:
        >>> sizes = {"train_size": 5, "val_size": 3, "test_size": 2, "min_letters": 2, "max_letters": 4, "seed": 0}
        >>> tokens = {"source_tokens": "spaces", "target_tokens": "spaces", "min_count": 1}
        >>> from seq2seq.data import build_source
        >>> settings = {"task": "reverse", "batch_size": 2, "max_epochs": 1, "num_workers": 0} | sizes | tokens
        >>> data = prepare(build_source(settings), ["val"])
        >>> len(data.datasets["val"]), len(data.pairs["val"])
        (3, 3)
    """
    datasets: dict[Split, PairDataset] = {}
    pairs: dict[Split, list[Pair]] = {}
    if tokenizers is None:
        tokenizers, datasets["train"] = prepare_training(source)
    for split in splits:
        if split not in datasets:  # the training pairs are encoded with their tokenizers
            pairs[split], datasets[split] = encode(source, split, tokenizers)
    return PreparedData(source, *tokenizers, datasets, pairs)


def accepted(
    source: DataSource, split: Split, tokenizers: Tokenizers
) -> Iterator[tuple[Pair, tuple[str, str], tuple[list[str], list[str]]]]:
    """Yield each pair of a split that is used, and the normalised texts and the tokens of its sides."""
    first, second = tokenizers
    for pair in source.pairs(split):
        texts = first.normalise(pair.source), second.normalise(pair.target)
        tokens = first.tokenize(texts[0]), second.tokenize(texts[1])
        if source.accepts("source", len(tokens[0]), pair, split) and source.accepts(
            "target", len(tokens[1]), pair, split
        ):
            yield pair, texts, tokens


def encode(source: DataSource, split: Split, tokenizers: Tokenizers) -> tuple[list[Pair], PairDataset]:
    """Return the pairs of a split with normalised texts, and encoded by tokenizers that are complete."""
    pairs, sources, targets = [], [], []
    first, second = tokenizers
    for pair, texts, tokens in accepted(source, split, tokenizers):
        sources.append(first.vocabulary.ids(tokens[0]))
        targets.append(second.vocabulary.ids(tokens[1]))
        further = [second.normalise(text) for text in pair.alternatives]
        for text in further:
            source.accepts("target", len(second.tokenize(text)), pair, split)
        target, *alternatives = map(second.normalise.compose, [texts[1], *further])
        pairs.append(Pair(first.normalise.compose(texts[0]), target, pair.group, pair.place, tuple(alternatives)))
    return pairs, PairDataset(FlatSequences(sources), FlatSequences(targets))


def prepare_training(source: DataSource) -> tuple[Tokenizers, PairDataset]:
    """Return tokenizers made from the training pairs, and these encoded; large files have a cache."""
    files = source.files("train")
    if sum(Path(file).stat().st_size for file in files if Path(file).is_file()) < LARGE:
        return build_training(source)

    def build(folder: Path) -> None:
        tokenizers, _ = build_training(source, folder)
        (folder / TOKENIZERS_FILE).write_text(json.dumps([one.to_dict() for one in tokenizers]), encoding="utf-8")

    def read(folder: Path) -> tuple[Tokenizers, PairDataset]:
        first, second = map(tokenizer_from_dict, json.loads((folder / TOKENIZERS_FILE).read_text(encoding="utf-8")))
        log.info("training pairs are read from %s", folder)
        return (first, second), PairDataset(*(FlatSequences.mapped(folder / side) for side in SIDES))

    cache_dir = getattr(source, "cache_dir", None)
    settings = {"task": source.name} | source.model_dump(exclude=IRRELEVANT)
    return build_once(lambda: cache_folder(cache_dir, files, settings), files, build, read)


def build_training(source: DataSource, folder: Path | None = None) -> tuple[Tokenizers, PairDataset]:
    """Return tokenizers made from the training pairs, and these encoded, in memory or in files of a folder."""
    splitters = learn(source)
    sequences = [TokenSequences(folder and folder / side) for side in SIDES]
    for _, _, tokens in accepted(source, "train", splitters):
        for own, found in zip(sequences, tokens, strict=True):
            own.append(found)
    if source.skipped:
        log.warning("data.skip_invalid: %d training pairs are empty or too long; skipped", source.skipped)
    if not sequences[0].numbers:
        raise UserError("data.train: no pair is left; see data.max_length and data.skip_invalid")
    counts = [Counter(own.counts()) for own in sequences]
    for own, splitter in zip(counts, splitters, strict=True):
        own.update(dict.fromkeys(splitter.learned_tokens(), source.min_count))
    if source.shared_vocabulary:
        counts = [counts[0] + counts[1]] * 2
    first, second = (Vocabulary.from_counts(own, source.min_count, source.max_symbols) for own in counts)
    if not (first.symbols and second.symbols):
        raise UserError(f"data.min_count={source.min_count} leaves no symbol; the most frequent is rarer")
    tokenizers = splitters[0].rebuilt(vocabulary=first), splitters[1].rebuilt(vocabulary=second)
    return tokenizers, PairDataset(sequences[0].encode(first), sequences[1].encode(second))


def learn(source: DataSource) -> Tokenizers:
    """Return what splits the texts of either side, learned from those of that side, or of both if they share it."""
    first, second = (source.make_tokenizer(side) for side in SIDES)
    normalisers = first.normalise, second.normalise

    def texts(*sides: int) -> Iterator[str]:
        return (normalisers[side](pair[:2][side]) for pair in source.pairs("train") for side in sides)

    if source.shared_vocabulary:
        learned = first.learned(lambda: texts(0, 1))
        return learned, learned.rebuilt(normaliser=second.normalise)
    return first.learned(lambda: texts(0)), second.learned(lambda: texts(1))
