"""Pairs read, tokenised and encoded by one call, with the vocabularies that come from the training pairs."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seq2seq.data.cache import build_once, cache_folder
from seq2seq.data.dataset import FlatSequences, PairDataset, TokenSequences
from seq2seq.data.lines import LARGE
from seq2seq.data.sources import DataSource, Pair, Split
from seq2seq.data.tokenizer import Tokenizers, check_columns
from seq2seq.data.vocabulary import Vocabulary
from seq2seq.errors import UserError

log = logging.getLogger(__name__)

TOKENIZERS_FILE = "tokenizers.json"

IRRELEVANT = {"train", "val", "test", "batch_size", "batch_tokens", "max_epochs", "num_workers", "cache_dir",
              "group_column"}  # fmt: skip
"""Settings that do not change the encoded training pairs; the content of the files counts, and not their paths."""


class References(NamedTuple):
    """What counts as right for each of some pairs, the target first: texts, and ids without begin and end."""

    texts: list[list[str]]
    ids: list[list[list[int]]]


class PreparedData(NamedTuple):
    """Encoded pairs, their source, the tokenizers, and the normalised texts of each split but ``train``."""

    source: DataSource
    tokenizers: Tokenizers
    datasets: dict[Split, PairDataset]
    pairs: dict[Split, list[Pair]]

    def references(self, split: Split, indices: Iterable[int]) -> References:
        """Return what counts as right for some pairs of ``val`` or ``test``."""
        targets, encode = self.datasets[split].targets, self.tokenizers.target.encode
        chosen = [(index, self.pairs[split][index]) for index in indices]
        return References(
            [pair.references for _, pair in chosen],
            [[targets[index], *map(encode, pair.alternatives)] for index, pair in chosen],
        )

    def training_places(self, indices: Iterable[int]) -> list[str]:
        """Return where training pairs stand, ``file:line``, or what they are; reads the training files again."""
        wanted = set(indices)
        used = enumerate(accepted(self.source, "train", self.tokenizers))
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
    return PreparedData(source, tokenizers, datasets, pairs)


def accepted(
    source: DataSource, split: Split, tokenizers: Tokenizers
) -> Iterator[tuple[Pair, tuple[str, str], tuple[list[str], list[str], list[str]]]]:
    """Yield each pair of a split that is used, its normalised texts, and the tokens of source, target and features."""
    target = tokenizers.target
    for pair in source.pairs(split):
        check_columns(pair.source, tokenizers.columns, pair.place)
        texts = tokenizers.normalise(pair.source), target.normalise(pair.target)
        (own, features), predicted = tokenizers.tokenize(texts[0]), target.tokenize(texts[1])
        if source.accepts("source", len(own), pair, split) and source.accepts("target", len(predicted), pair, split):
            yield pair, texts, (own, predicted, features)


def encode(source: DataSource, split: Split, tokenizers: Tokenizers) -> tuple[list[Pair], PairDataset]:
    """Return the pairs of a split with normalised texts, and encoded by tokenizers that are complete."""
    pairs: list[Pair] = []
    vocabularies = [one.vocabulary for one in tokenizers if one]
    ids: list[list[list[int]]] = [[] for _ in vocabularies]
    first, second, _ = tokenizers
    for pair, texts, tokens in accepted(source, split, tokenizers):
        for own, vocabulary, found in zip(ids, vocabularies, tokens, strict=False):
            own.append(vocabulary.ids(found))
        further = [second.normalise(text) for text in pair.alternatives]
        for text in further:
            source.accepts("target", len(second.tokenize(text)), pair, split)
        target, *alternatives = map(second.normalise.compose, [texts[1], *further])
        pairs.append(Pair(first.normalise.compose(texts[0]), target, pair.group, pair.place, tuple(alternatives)))
    return pairs, PairDataset(*map(FlatSequences, ids))


def prepare_training(source: DataSource) -> tuple[Tokenizers, PairDataset]:
    """Return tokenizers made from the training pairs, and these encoded; large files have a cache."""
    files = source.files("train")
    if sum(Path(file).stat().st_size for file in files if Path(file).is_file()) < LARGE:
        return build_training(source)

    def build(folder: Path) -> None:
        tokenizers, _ = build_training(source, folder)
        (folder / TOKENIZERS_FILE).write_text(json.dumps(tokenizers.to_dicts()), encoding="utf-8")

    def read(folder: Path) -> tuple[Tokenizers, PairDataset]:
        tokenizers = Tokenizers.from_dicts(json.loads((folder / TOKENIZERS_FILE).read_text(encoding="utf-8")))
        log.info("training pairs are read from %s", folder)
        return tokenizers, PairDataset(*(FlatSequences.mapped(folder / part) for part in source.parts))

    cache_dir = getattr(source, "cache_dir", None)
    settings = {"task": source.name} | source.model_dump(exclude=IRRELEVANT)
    return build_once(lambda: cache_folder(cache_dir, files, settings), files, build, read)


def build_training(source: DataSource, folder: Path | None = None) -> tuple[Tokenizers, PairDataset]:
    """Return tokenizers made from the training pairs, and these encoded, in memory or in files of a folder."""
    splitters: Any = learn(source)  # without features, the last is None
    sequences = [TokenSequences(folder and folder / part) for part in source.parts]
    for _, _, tokens in accepted(source, "train", splitters):
        for own, found in zip(sequences, tokens, strict=False):
            own.append(found)
    if source.skipped:
        log.warning("data.skip_invalid: %d training pairs are empty or too long; skipped", source.skipped)
    if not sequences[0].numbers:
        raise UserError("data.train: no pair is left; see data.max_length and data.skip_invalid")
    counts = [Counter(own.counts()) for own in sequences]
    for own, splitter in zip(counts, splitters, strict=False):
        own.update(dict.fromkeys(splitter.learned_tokens(), source.min_count))
    if source.shared_vocabulary:
        counts[:2] = [counts[0] + counts[1]] * 2
    vocabularies = [Vocabulary.from_counts(own, source.min_count, source.max_symbols) for own in counts]
    for part, own, vocabulary in zip(source.parts, counts, vocabularies, strict=True):
        if not vocabulary.symbols:
            if not own:
                raise UserError(f"data.train: no line has a token of the {part}")
            problem = f"data.min_count={source.min_count} leaves no symbol of the {part}"
            raise UserError(f"{problem}; the most frequent is rarer")
    tokenizers = (one.rebuilt(vocabulary=own) for one, own in zip(splitters, vocabularies, strict=False))
    encoded = (own.encode(vocabulary) for own, vocabulary in zip(sequences, vocabularies, strict=True))
    return Tokenizers(*tokenizers), PairDataset(*encoded)


def learn(source: DataSource) -> Tokenizers:
    """Return what splits the texts of each part, learned from these, or from both sides if they share a vocabulary."""
    made = Tokenizers(*map(source.make_tokenizer, source.parts))
    normalisers = [one.normalise for one in made if one]

    def texts(*parts: int) -> Iterator[str]:
        for pair in source.pairs("train"):
            own, features = made.split(pair.source)
            for part in parts:
                yield normalisers[part]((own, pair.target, features)[part])

    features = made.features and made.features.learned(partial(texts, 2))
    if source.shared_vocabulary:
        learned = made.source.learned(partial(texts, 0, 1))
        return Tokenizers(learned, learned.rebuilt(normaliser=made.target.normalise), features)
    return Tokenizers(made.source.learned(partial(texts, 0)), made.target.learned(partial(texts, 1)), features)
