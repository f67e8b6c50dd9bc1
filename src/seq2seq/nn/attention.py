"""Attention of decoder states (queries) over the encoder's outputs (values), with padding masked out.

What queries are compared with (keys) and what is weighed (values) depend on the source alone, so both are computed once
a batch and passed along in a `Memory`, not once a step.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError, check_choice, check_count
from seq2seq.nn.memory import Memory


class Attention(Protocol):
    """What the decoders ask of an attention."""

    context_size: int

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Compute, once for a source batch, what queries look back at, of the encoder's outputs ``(B, S, D * H)``."""
        ...

    def __call__(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return the contexts ``(B, T, context_size)`` and the weights ``(B, T, S)``, None without attention."""
        ...


def attend(scores: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Turn scores into weights that are exactly zero on padding, and weigh the values with them.

    Args:
        scores: Unnormalised, ``(B, T, S)``.
        memory: Its mask must hold a real token in every row, or the weights of that row are not a number.

    Returns:
        The contexts, ``(B, T, D * H)``, and the weights, ``(B, T, S)``.
    """
    weights = scores.masked_fill(~memory.mask.unsqueeze(1), -torch.inf).softmax(-1)
    return weights @ memory.values, weights


class GeneralAttention(nn.Module):
    """``query W value`` (Luong et al. 2015, equation 8, "general").

    Memory in training: the scores, ``B * T * S`` numbers, and the keys, ``B * S * H'``.

    Example:
        >>> attention = GeneralAttention(query_size=7, value_size=10)
        >>> mask = torch.tensor([[True, True, True], [True, True, False]])
        >>> memory = attention.remember(torch.randn(2, 3, 10), mask)
        >>> contexts, weights = attention(torch.randn(2, 4, 7), memory)
        >>> contexts.shape, weights.shape, weights[1, :, 2].tolist()  # nothing for the padding
        (torch.Size([2, 4, 10]), torch.Size([2, 4, 3]), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, *, query_size: int, value_size: int) -> None:
        super().__init__()
        self.context_size = value_size
        self.key = nn.Linear(value_size, query_size, bias=False)

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Map the outputs to keys of the size of the queries, ``(B, S, H')``."""
        return Memory(self.key(outputs), outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with ``queries``, ``(B, T, H')``."""
        return attend(queries @ memory.keys.transpose(1, 2), memory)


class DotAttention(nn.Module):
    """``query value`` (Luong et al. 2015, equation 8, "dot"): no parameters, so the sizes must agree, H' = D * H.

    Memory in training: the scores, ``B * T * S`` numbers; the keys are the values.

    Example:
        >>> attention = DotAttention(query_size=2, value_size=2)
        >>> outputs, mask = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]]), torch.ones(1, 2, dtype=torch.bool)
        >>> memory = attention.remember(outputs, mask)
        >>> attention(torch.tensor([[[0.0, 9.0]]]), memory)[1].round().tolist()  # like the second value
        [[[0.0, 1.0]]]
    """

    def __init__(self, *, query_size: int, value_size: int) -> None:
        super().__init__()
        if query_size != value_size:
            raise UserError(
                f"model.decoder.hidden_size={query_size} does not fit model.attention=dot, which needs the size of "
                f"the encoder's outputs, {value_size}; use general, additive or {value_size}"
            )
        self.context_size = value_size

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Take the outputs for keys, as they are, ``(B, S, D * H)``."""
        return Memory(outputs, outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with ``queries``, ``(B, T, D * H)``."""
        return attend(queries @ memory.keys.transpose(1, 2), memory)


class AdditiveAttention(nn.Module):
    """``v tanh(W query + U value)`` (Bahdanau et al. 2015, appendix A.1.2), with A = H'.

    Memory in training: ``B * T * S * H'`` numbers, as every query meets every key before the sum: H' times what the
    other scorings take. On long sequences that is what fills a GPU.

    Example:
        >>> attention = AdditiveAttention(query_size=7, value_size=10)
        >>> memory = attention.remember(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> attention(torch.randn(2, 4, 7), memory)[0].shape
        torch.Size([2, 4, 10])
    """

    def __init__(self, *, query_size: int, value_size: int) -> None:
        super().__init__()
        self.context_size = value_size
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(value_size, query_size)
        self.score = nn.Linear(query_size, 1, bias=False)

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Map the outputs to keys of the size of the comparison, ``(B, S, H')``."""
        return Memory(self.key(outputs), outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with ``queries``, ``(B, T, H')``."""
        compared = self.query(queries).unsqueeze(2) + memory.keys.unsqueeze(1)  # (B, T, S, H')
        return attend(self.score(compared.tanh()).squeeze(-1), memory)


class MultiheadAttention(nn.Module):
    """Scaled dot products in ``num_heads`` subspaces at once (Vaswani et al. 2017, section 3.2.2), with A = H'.

    The weights that are returned are the mean over heads. Memory in training: ``num_heads * B * T * S`` numbers.

    Example:
        >>> attention = MultiheadAttention(query_size=8, value_size=10, num_heads=4)
        >>> memory = attention.remember(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> contexts, weights = attention(torch.randn(2, 4, 8), memory)
        >>> contexts.shape, weights.shape
        (torch.Size([2, 4, 8]), torch.Size([2, 4, 3]))
    """

    def __init__(self, *, query_size: int, value_size: int, num_heads: int) -> None:
        super().__init__()
        check_count("model.num_heads", num_heads)
        if query_size % num_heads:
            raise UserError(
                f"model.num_heads={num_heads} must divide model.decoder.hidden_size={query_size}, "
                "with model.attention=multihead"
            )
        self.num_heads = num_heads
        self.context_size = query_size
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(value_size, query_size, bias=False)
        self.value = nn.Linear(value_size, query_size, bias=False)
        self.join = nn.Linear(query_size, query_size, bias=False)

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Map the outputs to the keys and the values of all heads, each ``(B, S, H')``."""
        return Memory(self.key(outputs), self.value(outputs), mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with ``queries``, ``(B, T, H')``."""
        queries, keys, values = (self._split(part) for part in (self.query(queries), memory.keys, memory.values))
        scores = queries @ keys.transpose(2, 3) * queries.size(-1) ** -0.5  # (B, heads, T, S)
        weights = scores.masked_fill(~memory.mask[:, None, None], -torch.inf).softmax(-1)
        contexts = (weights @ values).transpose(1, 2).flatten(2)  # (B, T, H')
        return self.join(contexts), weights.mean(1)

    def _split(self, joined: Tensor) -> Tensor:
        """Give each head its part: ``(B, T, H')`` to ``(B, heads, T, H' / heads)``."""
        return joined.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class NoAttention(nn.Module):
    """Looks at nothing, so the handed-over state is all that the decoder knows of the source (Cho et al. 2014).

    Costs no memory beyond the encoder's own outputs.

    Example:
        >>> attention = NoAttention(query_size=7, value_size=10)
        >>> memory = attention.remember(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> attention(torch.randn(2, 4, 7), memory)[0].shape
        torch.Size([2, 4, 0])
    """

    def __init__(self, *, query_size: int, value_size: int) -> None:  # noqa: ARG002 - built like the others
        super().__init__()
        self.context_size = 0

    def remember(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Keep nothing, ``(B, S, 0)``."""
        return Memory(outputs[..., :0], outputs[..., :0], mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, None]:  # noqa: ARG002 - called alike
        """Return empty contexts, ``(B, T, 0)``, and no weights."""
        return queries[..., :0], None


ATTENTIONS = {
    "general": GeneralAttention,
    "dot": DotAttention,
    "additive": AdditiveAttention,
    "multihead": MultiheadAttention,
    "none": NoAttention,
}
"""The attentions by the word that stands for them in a config (``model.attention``)."""


def build_attention(name: str, *, query_size: int, value_size: int, num_heads: int) -> Attention:
    """Build the attention that ``model.attention`` names.

    Args:
        name: Its word.
        query_size: H'.
        value_size: D * H.
        num_heads: Of ``multihead``; the others have one.

    Raises:
        UserError: If there is none of that name, or the sizes do not fit it.
    """
    check_choice("model.attention", name, ATTENTIONS)
    if name == "multihead":
        return MultiheadAttention(query_size=query_size, value_size=value_size, num_heads=num_heads)
    return ATTENTIONS[name](query_size=query_size, value_size=value_size)
