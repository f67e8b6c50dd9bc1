"""Several processes that train one model together; with one process, nothing here communicates.

Lightning or ``torchrun`` starts and connects them. What is here makes their results equal to those of one process; the
batches are divided by `seq2seq.data.dataset.Shares`, and ``Batch.share`` weighs the loss of each share.
"""

from typing import Any

import torch
from torch import Tensor, distributed

from seq2seq.data import UNK
from seq2seq.errors import STOP_SIGNALS
from seq2seq.nn import Seq2Seq

SAVE = "save"  # the state, and go on
REQUESTS = (SAVE, *STOP_SIGNALS)
"""What a process may ask of all: to save the state, or to end as if each had received the signal."""


def count() -> int:
    """Return the number of processes that are connected."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class Requests:
    """What this process asks of all, ``own``, and what all have heard: it is granted before one and the same batch.

    With one process, that is at once. With several, requests travel with the loss of the step before.
    """

    def __init__(self) -> None:
        self.own: set[str | int] = set()
        self._heard: set[str | int] = set()

    @property
    def granted(self) -> set[str | int]:
        """What all processes are to do now."""
        return self.own if count() == 1 else self._heard

    def exchange(self, loss: Tensor) -> Tensor:
        """Return the mean of the loss over all processes; their requests travel with it.

        It is the only exchange of a step, besides that of the gradients.
        """
        if count() == 1:
            return loss.detach()
        asked = [float(request in self.own) for request in REQUESTS]
        total = torch.cat([loss.detach().reshape(1), loss.new_tensor(asked)])
        distributed.all_reduce(total)
        self._heard = {request for request, number in zip(REQUESTS, total[1:].tolist(), strict=True) if number}
        return total[0] / count()


def merge(part: dict[int, Any]) -> dict[int, Any]:
    """Return the entries of all processes, in the order of their keys."""
    if count() == 1:
        return part
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, part)
    return dict(sorted(entry for one in parts for entry in one.items()))


def freeze_unused(model: Seq2Seq) -> None:
    """Exclude the parameters that no loss reaches from training; with several processes, PyTorch would wait for them.

    With a bridge of zeros and without attention, for example, these are the encoder's.
    """
    tokens, lengths = torch.full((2, 2), UNK), torch.tensor([2, 2])
    parameters = list(model.parameters())
    loss = model(tokens, lengths, tokens).logits.sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
