"""From lines of text to padded batches of token ids."""

from seq2seq.data.batch import Batch
from seq2seq.data.datamodule import PairsDataModule
from seq2seq.data.dataset import Corpus
from seq2seq.data.sampler import BucketSampler
from seq2seq.data.sources import Pair, Task, build_task
from seq2seq.data.tokenizer import Codec
from seq2seq.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "UNK",
    "Batch",
    "BucketSampler",
    "Codec",
    "Corpus",
    "Pair",
    "PairsDataModule",
    "Task",
    "Vocabulary",
    "build_task",
]
