"""Metrics over texts by sacrebleu, of the whole corpus, also when several processes evaluate parts of it."""

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

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
        options: Passed on to sacrebleu's metric, which a subclass names.
    """

    higher_is_better = True
    full_state_update = False

    scorer_name: ClassVar[str]
    lines: list[Tensor]

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - whatever sacrebleu takes
        super().__init__()
        # As tensors, which torchmetrics gathers from all processes: the UTF-8 bytes of a line of JSON for each text,
        # [prediction, reference, ...].
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.scorer = getattr(import_extra("sacrebleu", "text"), self.scorer_name)(**options)

    def update(self, preds: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add predictions, and the references of each."""
        rows = [json.dumps([text, *own], ensure_ascii=False) for text, own in zip(preds, references, strict=True)]
        content = "".join(f"{row}\n" for row in rows).encode()
        # Also if it is empty: all processes must have tensors of the same type.
        self.lines.append(torch.tensor(bytearray(content), dtype=torch.uint8, device=self.device))

    def compute(self) -> Tensor:
        """Return the score of all texts, from 0 to 100."""
        content = bytes(dim_zero_cat(self.lines).tolist()) if len(self.lines) else b""
        if not content:
            return torch.tensor(0.0, device=self.device)
        predictions, *streams = zip_longest(*map(json.loads, content.splitlines()))  # None for a missing reference
        return torch.tensor(self.scorer.corpus_score(predictions, streams).score, device=self.device)

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

    scorer_name = "BLEU"


class ChrF(CorpusMetric):
    """chrF of untokenised texts (Popović 2015), from 0 to 100.

    Example:
        >>> metric = ChrF()
        >>> metric.update(["abc"], [["abc"]])
        >>> metric.compute()
        tensor(100.)
    """

    scorer_name = "CHRF"
