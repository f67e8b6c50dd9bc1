"""Metrics over texts by sacrebleu, of the whole corpus, also when several processes evaluate parts of it."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from seq2seq.errors import import_extra


class CorpusMetric(Metric):
    """Keeps all texts, and gives them to sacrebleu in the end.

    torchmetrics has BLEU and chrF, too, but chrF of version 1.9 drops the references of sentences without overlap
    (issue 3480), and its BLEU chooses among equally close reference lengths differently (issue 3504).

    Args:
        options: Passed on to sacrebleu's metric.
    """

    higher_is_better = True
    full_state_update = False

    texts: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - whatever sacrebleu takes
        super().__init__()
        # As tensors, which torchmetrics gathers from all processes: UTF-8 bytes, and the number of bytes of each text,
        # after each prediction's number of references.
        self.add_state("texts", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")
        self.scorer = self.make_scorer(import_extra("sacrebleu", "text"), options)

    @abstractmethod
    def make_scorer(self, sacrebleu: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's types
        """Return sacrebleu's metric."""

    def update(self, preds: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add predictions, and the references of each."""
        joined, lengths = bytearray(), []
        for prediction, own in zip(preds, references, strict=True):
            encoded = [text.encode() for text in (prediction, *own)]
            joined += b"".join(encoded)
            lengths += [len(own), *map(len, encoded)]
        # Also if they are empty: all processes must have tensors of the same type.
        self.texts.append(torch.tensor(joined, dtype=torch.uint8, device=self.device))
        self.lengths.append(torch.tensor(lengths, dtype=torch.long, device=self.device))

    def compute(self) -> Tensor:
        """Return the score of all texts, from 0 to 100."""
        predictions, references = self._decode()
        if not predictions:
            return torch.tensor(0.0, device=self.device)
        streams = [list(stream) for stream in zip_longest(*references)]  # None where there are fewer references
        return torch.tensor(self.scorer.corpus_score(predictions, streams).score, device=self.device)

    def _decode(self) -> tuple[list[str], list[list[str]]]:
        """Return predictions, and the references of each."""
        if not len(self.lengths):  # a list, or of several processes, one tensor
            return [], []
        text, lengths = bytes(dim_zero_cat(self.texts).tolist()), dim_zero_cat(self.lengths).tolist()
        predictions, references, start, position = [], [], 0, 0
        while position < len(lengths):
            count = lengths[position]
            own = []
            for length in lengths[position + 1 : position + count + 2]:
                own.append(text[start : start + length].decode())
                start += length
            predictions.append(own[0])
            references.append(own[1:])
            position += count + 2
        return predictions, references

    @property
    def signature(self) -> str:
        """How sacrebleu computed the last score, as it is to be reported beside it."""
        return str(self.scorer.get_signature())


class BLEU(CorpusMetric):
    """BLEU of untokenised texts (Papineni et al. 2002; Post 2018), from 0 to 100.

    Example:
        >>> metric = BLEU()
        >>> metric.update(["the cat sat on the mat"], [["the cat sat on a mat", "the cat sat on the mat"]])
        >>> round(float(metric.compute()))
        100
        >>> metric.signature  # doctest: +ELLIPSIS
        'nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:...'
    """

    def make_scorer(self, sacrebleu: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's types
        """Return sacrebleu's BLEU."""
        return sacrebleu.BLEU(**options)


class ChrF(CorpusMetric):
    """chrF of untokenised texts (Popović 2015), from 0 to 100.

    Example:
        >>> metric = ChrF()
        >>> metric.update(["abc"], [["abc"]])
        >>> metric.compute()
        tensor(100.)
    """

    def make_scorer(self, sacrebleu: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's types
        """Return sacrebleu's chrF."""
        return sacrebleu.CHRF(**options)
