"""Attention of decoder states (queries) over the encoder's outputs (values), with padding masked out.

Keys (what queries are compared with) and values (what is averaged) do not depend on the target, so both are computed
once per batch, not once per step, and passed along in a `Memory`.
"""

import inspect
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from seq2seq.nn.normalisers import NORMALISERS


class Memory(NamedTuple):
    """What a decoder attends to, computed once per source batch.

    Attributes:
        keys: Vectors that the queries are compared with, ``(B, S, A)``.
        values: Vectors that are averaged: the encoder's outputs, ``(B, S, D * H)``, or a projection of them.
        mask: True at real tokens, ``(B, S)``. In keys, values and mask, features follow the tokens.
        added: What features add to every input of the decoder, ``(B, 1, E')``; None without features.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor
    added: Tensor | None = None

    def select(self, indices: Tensor) -> Self:
        """Return the memory of the sequences at ``indices``, in that order."""
        return self._replace(**{name: part[indices] for name, part in self._asdict().items() if part is not None})

    def repeat(self, number: int) -> Self:
        """Return the memory with each sequence ``number`` times, one after another."""
        parts = {name: part.unsqueeze(1) for name, part in self._asdict().items() if part is not None}
        repeated = {name: part.expand(-1, number, *part.shape[2:]).flatten(0, 1) for name, part in parts.items()}
        return self._replace(**repeated)


class Attention(Protocol):
    """Interface of the attention classes; their constructors take ``query_size`` (H') and ``value_size`` (D * H).

    An attention that depends on what it attended to before has a state, ``(B, ...)``, which the decoder carries. It
    also has ``init_state(memory)``, is called with queries, memory and state, and returns the state as a third result.

    Attributes:
        context_size: Size of a context vector, C.
    """

    context_size: int

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Compute keys and values from the encoder's outputs, ``(B, S, D * H)``; called once per source batch."""
        ...

    def __call__(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return contexts, ``(B, T, C)``, and weights, ``(B, T, S)`` or None, for queries ``(B, T, H')``."""
        ...


class ScoredAttention(nn.Module):
    """What attentions share that differ only in their scores.

    Args:
        normaliser: A key of `seq2seq.nn.normalisers.NORMALISERS`.
    """

    def __init__(self, normaliser: str) -> None:
        super().__init__()
        if normaliser not in NORMALISERS:
            raise ValueError(f"model.attention.normaliser={normaliser} must be one of {', '.join(NORMALISERS)}")
        self.normalise = NORMALISERS[normaliser]

    def weigh(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Normalise scores, ``(B, ..., T, S)``, to weights that are exactly zero at padding.

        The mask is True at real tokens and can be broadcast; a sequence without any has weights of NaN.
        """
        return self.normalise(scores.masked_fill(~mask, -torch.inf))

    def attend(self, scores: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the contexts, ``(B, T, D * H)``, and the weights of scores, ``(B, T, S)``."""
        weights = self.weigh(scores, memory.mask.unsqueeze(1))
        return weights @ memory.values, weights


class GeneralAttention(ScoredAttention):
    """``query W value`` (Luong et al. 2015, equation 8, "general").

    Activations in training: ``B * T * S`` scores and ``B * S * H'`` keys.

    Example:
        >>> attention = GeneralAttention(query_size=7, value_size=10)
        >>> mask = torch.tensor([[True, True, True], [True, True, False]])
        >>> memory = attention.init_memory(torch.randn(2, 3, 10), mask)
        >>> contexts, weights = attention(torch.randn(2, 4, 7), memory)
        >>> contexts.shape, weights.shape, weights[1, :, 2].tolist()  # nothing for the padding
        (torch.Size([2, 4, 10]), torch.Size([2, 4, 3]), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, *, query_size: int, value_size: int, normaliser: str = "softmax") -> None:
        super().__init__(normaliser)
        self.context_size = value_size
        self.key = nn.Linear(value_size, query_size, bias=False)

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Map the outputs to keys of the size of the queries, ``(B, S, H')``."""
        return Memory(self.key(outputs), outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(B, T, H')``."""
        return self.attend(queries @ memory.keys.transpose(1, 2), memory)


class DotAttention(ScoredAttention):
    """``query value`` (Luong et al. 2015, equation 8, "dot"): no parameters, so the sizes must agree, H' = D * H.

    Activations in training: ``B * T * S`` scores; the keys are the values.
    """

    def __init__(self, *, query_size: int, value_size: int, normaliser: str = "softmax") -> None:
        super().__init__(normaliser)
        if query_size != value_size:
            raise ValueError(
                f"model.decoder.hidden_size={query_size} does not fit model.attention=dot, which needs the size of the "
                f"encoder's outputs, {value_size}; use general, additive or {value_size}"
            )
        self.context_size = value_size

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Use the outputs as keys, ``(B, S, D * H)``."""
        return Memory(outputs, outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(B, T, D * H)``."""
        return self.attend(queries @ memory.keys.transpose(1, 2), memory)


class AdditiveAttention(ScoredAttention):
    """``v tanh(W query + U value)`` (Bahdanau et al. 2015, appendix A.1.2), with A = H'.

    Activations in training: ``B * T * S * H'``, because every query is added to every key. That is H' times as many as
    dot-product attention needs; on long sequences, they take most of a GPU's memory.

    Example:
        >>> attention = AdditiveAttention(query_size=7, value_size=10)
        >>> memory = attention.init_memory(torch.randn(2, 3, 10), mask=torch.ones(2, 3, dtype=torch.bool))
        >>> attention(torch.randn(2, 4, 7), memory)[0].shape
        torch.Size([2, 4, 10])
    """

    def __init__(self, *, query_size: int, value_size: int, normaliser: str = "softmax") -> None:
        super().__init__(normaliser)
        self.context_size = value_size
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(value_size, query_size)
        self.score = nn.Linear(query_size, 1, bias=False)

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Map the outputs to keys of the size of the queries, ``(B, S, H')``."""
        return Memory(self.key(outputs), outputs, mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(B, T, H')``."""
        compared = self.query(queries).unsqueeze(2) + memory.keys.unsqueeze(1)  # (B, T, S, H')
        return self.attend(self.score(compared.tanh()).squeeze(-1), memory)


class MultiheadAttention(ScoredAttention):
    """Scaled dot-product attention in ``num_heads`` parallel heads (Vaswani et al. 2017, section 3.2.2), with A = H'.

    The returned weights are averaged over the heads. Activations in training: ``num_heads * B * T * S`` scores.
    """

    def __init__(self, *, query_size: int, value_size: int, num_heads: int = 4, normaliser: str = "softmax") -> None:
        super().__init__(normaliser)
        if not isinstance(num_heads, int) or num_heads < 1 or query_size % num_heads:
            raise ValueError(
                f"model.attention.num_heads={num_heads} must be a whole number that divides "
                f"model.decoder.hidden_size={query_size}"
            )
        self.num_heads = num_heads
        self.context_size = query_size
        self.query = nn.Linear(query_size, query_size, bias=False)
        self.key = nn.Linear(value_size, query_size, bias=False)
        self.value = nn.Linear(value_size, query_size, bias=False)
        self.join = nn.Linear(query_size, query_size, bias=False)

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Project the outputs to the keys and the values of all heads, each ``(B, S, H')``."""
        return Memory(self.key(outputs), self.value(outputs), mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(B, T, H')``."""
        queries, keys, values = (self._split(part) for part in (self.query(queries), memory.keys, memory.values))
        scores = queries @ keys.transpose(2, 3) * queries.size(-1) ** -0.5  # (B, heads, T, S)
        weights = self.weigh(scores, memory.mask[:, None, None])
        contexts = (weights @ values).transpose(1, 2).flatten(2)  # (B, T, H')
        return self.join(contexts), weights.mean(1)

    def _split(self, joined: Tensor) -> Tensor:
        """Split the last axis into heads: ``(B, T, H')`` to ``(B, heads, T, H' / heads)``."""
        return joined.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class NoAttention(nn.Module):
    """No attention: the decoder knows the source through its initial state only (Cho et al. 2014)."""

    def __init__(self, *, query_size: int, value_size: int) -> None:  # noqa: ARG002 - the signature of all attentions
        super().__init__()
        self.context_size = 0

    def init_memory(self, outputs: Tensor, mask: Tensor) -> Memory:
        """Return empty keys and values, ``(B, S, 0)``."""
        return Memory(outputs[..., :0], outputs[..., :0], mask)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, None]:  # noqa: ARG002 - see above
        """Return empty contexts, ``(B, T, 0)``, and no weights."""
        return queries[..., :0], None


ATTENTIONS: dict[str, type[nn.Module]] = {
    "general": GeneralAttention,
    "dot": DotAttention,
    "additive": AdditiveAttention,
    "multihead": MultiheadAttention,
    "none": NoAttention,
}
"""Registry of attentions: config name to class."""


def build_attention(name: str, *, query_size: int, value_size: int, **options: Any) -> Any:  # noqa: ANN401 - an `Attention`
    """Build an attention by its config name; ``options`` are the arguments of its class other than the sizes.

    Raises:
        ValueError: If there is no such attention or option, or the sizes do not fit it.
    """
    if name not in ATTENTIONS:
        raise ValueError(f"model.attention={name} must be one of {', '.join(ATTENTIONS)}")
    known = [one for one in inspect.signature(ATTENTIONS[name]).parameters if one not in ("query_size", "value_size")]
    if unknown := options.keys() - set(known):
        raise ValueError(
            f"model.attention.{min(unknown)} is unknown: {name} attention has {', '.join(known) or 'no options'}"
        )
    return ATTENTIONS[name](query_size=query_size, value_size=value_size, **options)
