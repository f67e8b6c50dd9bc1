"""From pairs of texts to padded batches of token ids."""

from seq2seq.data.batch import Batch
from seq2seq.data.dataset import FlatSequences, PairDataset
from seq2seq.data.preparation import PreparedData, References, prepare
from seq2seq.data.sampler import BucketSampler
from seq2seq.data.sources import SOURCES, DataSource, Pair, Split, TextFiles, build_source
from seq2seq.data.tokenizer import (
    CharacterTokenizer,
    SpaceTokenizer,
    Tokenizer,
    Tokenizers,
    build_tokenizer,
    tokenizer_from_dict,
)
from seq2seq.data.vocabulary import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary

__all__ = [
    "BOS", "EOS", "PAD", "SOURCES", "SPECIALS", "UNK", "Batch", "BucketSampler", "CharacterTokenizer", "DataSource",
    "FlatSequences", "Pair", "PairDataset", "PreparedData", "References", "SpaceTokenizer", "Split", "TextFiles",
    "Tokenizer", "Tokenizers", "Vocabulary", "build_source", "build_tokenizer", "prepare", "tokenizer_from_dict",
]  # fmt: skip
