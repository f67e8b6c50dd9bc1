"""Popular mistakes in the handoff, to be made on purpose.

Each mistake wraps the encoder's call and returns an `EncoderOutput` of the same shapes, so every bridge fits it and the
network is not changed. Training with one shows what it costs (``experiment=handoff_study``). All names begin with
``wrong_``, so that nobody overlooks the settings of such a run.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError
from seq2seq.nn.bridge import BRIDGES
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.state import RNNState
from seq2seq.settings import choose

RIGHT = "right"
"""The value of ``handoff`` in a config for no mistake."""

Encode = Callable[[Tensor, Tensor], EncoderOutput]
"""An encoder's call: source ``(B, S)`` and lengths ``(B,)`` to its output."""

Apply = Callable[[Encode, Tensor, Tensor], EncoderOutput]
"""Encodes a batch with a mistake."""


class Mistake(NamedTuple):
    """A popular way to get the handoff wrong.

    Attributes:
        code: The wrong expression, where ``h_n`` is ``(L * D, B, H)`` and ``output`` is ``(B, S, D * H)``.
        seen: Projects that contain it, with the commit that was read.
        effect: What is handed over instead, and to which layer.
        apply: Encodes a batch with the mistake.
        needs: Settings of the encoder without which there is nothing to get wrong.
        fits: Whether an `Encoder` has them.
    """

    code: str
    seen: str
    effect: str
    apply: Apply
    needs: str = ""
    fits: Callable[[Any], bool] = lambda encoder: True  # noqa: ARG005


def _first_rows(h_n: Tensor, shape: torch.Size) -> Tensor:
    return h_n[: shape[0]].unsqueeze(1).expand(shape)  # one row per layer, in place of both directions


def _joined_view(h_n: Tensor, shape: torch.Size) -> Tensor:
    layers, directions, batch, size = shape
    return h_n.view(layers, batch, directions * size).unflatten(-1, (directions, size)).transpose(1, 2)


def _halves(h_n: Tensor, shape: torch.Size) -> Tensor:
    return torch.stack(h_n.chunk(shape[1]), dim=1)


def _across_layers(h_n: Tensor, shape: torch.Size) -> Tensor:
    layers, directions, batch, size = shape
    return h_n.view(batch, layers, directions, size).permute(1, 2, 0, 3)


def _of_the_state(rearrange: Callable[[Tensor, torch.Size], Tensor]) -> Apply:
    """Return the mistake that rearranges ``h_n`` and, with an LSTM, ``c_n`` in the same way, given L, D, B and H."""

    def apply(right: Encode, source: Tensor, lengths: Tensor) -> EncoderOutput:
        encoded = right(source, lengths)
        final = encoded.state.to_torch()
        parts = (final,) if isinstance(final, Tensor) else final
        return encoded._replace(state=RNNState(*(rearrange(part, encoded.state.h.shape) for part in parts)))

    return apply


def _last_output(right: Encode, source: Tensor, lengths: Tensor) -> EncoderOutput:
    encoded = right(source, lengths)
    layers, directions, _, size = encoded.state.h.shape
    summary = encoded.outputs[:, -1].unflatten(-1, (directions, size)).transpose(0, 1)  # (D, B, H)
    return encoded._replace(state=encoded.state._replace(h=summary.expand(layers, -1, -1, -1)))


def _unpacked(right: Encode, source: Tensor, lengths: Tensor) -> EncoderOutput:
    mask = torch.arange(source.size(1)) < lengths.unsqueeze(1)
    return right(source, torch.full_like(lengths, source.size(1)))._replace(mask=mask.to(source.device))


def _unmasked(right: Encode, source: Tensor, lengths: Tensor) -> EncoderOutput:
    encoded = right(source, lengths)
    return encoded._replace(mask=torch.ones_like(encoded.mask))


def _cell(right: Encode, source: Tensor, lengths: Tensor) -> EncoderOutput:
    encoded = right(source, lengths)
    return encoded._replace(state=encoded.state._replace(c=encoded.state.h))


MISTAKES = {
    "wrong_first_rows": Mistake(
        code="h_n[:num_layers]",
        seen="keon/seq2seq@0e124a7 model.py:101; the chatbot tutorial of pytorch/tutorials@03b2773",
        effect="for layer l, row l of h_n, in place of both directions: with two layers, layer 0 forward for "
        "layer 0, layer 0 backward for layer 1, and nothing of the top layer",
        apply=_of_the_state(_first_rows),
        needs="model.encoder.bidirectional=true",
        fits=lambda encoder: encoder.directions == 2,
    ),
    "wrong_joined_view": Mistake(
        code="h_n.view(num_layers, batch, 2 * hidden)",
        seen="public code that discards the result of h.permute(0, 2, 1, 3) before the view",
        effect="for sequence b of layer l, neighbours in the batch instead of directions: places 2b and 2b + 1 of its "
        "forward and then its backward rows; right only with a batch of one",
        apply=_of_the_state(_joined_view),
        needs="model.encoder.bidirectional=true",
        fits=lambda encoder: encoder.directions == 2,
    ),
    "wrong_halves": Mistake(
        code="forward, backward = h_n.chunk(2)",
        seen="asked in spro/practical-pytorch#81 and #97: is the first half the forward direction?",
        effect="for layer l, rows l and L + l of h_n: with two layers, both forward directions for layer 0, and both "
        "backward directions for layer 1",
        apply=_of_the_state(_halves),
        needs="model.encoder.bidirectional=true and model.encoder.num_layers=2 or more",
        fits=lambda encoder: encoder.directions == 2 and encoder.num_layers > 1,
    ),
    "wrong_last_output": Mistake(
        code="output[:, -1]",
        seen="yunjey/pytorch-tutorial@4896cef bidirectional_recurrent_neural_network/main.py:54-58 (#149)",
        effect="for h of every layer, the top layer at the last padded step: zero for a shorter sequence; for the "
        "longest, the backward half has read one token",
        apply=_last_output,
    ),
    "wrong_unpacked": Mistake(
        code="rnn(embedding(source)) without pack_padded_sequence",
        seen="bentrevett/pytorch-seq2seq@b3cd54c notebook 3; IBM/pytorch-seq2seq@f146087 by default; eole 0.6.0, "
        "whose RNNEncoder gives a sentence another h_n with padding than alone (encoders/rnn_encoder.py, run)",
        effect="the right layers, but their state, and the outputs for attention, have read the padding: last in the "
        "forward direction, first in the backward one",
        apply=_unpacked,
    ),
    "wrong_unmasked": Mistake(
        code="softmax(scores) without masked_fill",
        seen="bentrevett/pytorch-seq2seq@b3cd54c notebook 3; IBM/pytorch-seq2seq@f146087",
        effect="the right state; attention, if there is any, also looks at padding",
        apply=_unmasked,
    ),
    "wrong_cell": Mistake(
        code="c_n = h_n",
        seen="joeynmt/joeynmt@cdc4d03 decoders.py:464-489, where h_0 and c_0 are the same projection of h_n",
        effect="for the cell of each layer its h_n too, and nothing of c_n",
        apply=_cell,
        needs="model.encoder.cell=lstm",
        fits=lambda encoder: encoder.cell == "lstm",
    ),
    "wrong_across_layers": Mistake(
        code="h_n.view(batch, num_layers, directions * hidden)",
        seen="h_n.view(batch, -1) in public classifiers; a relative is the bridge of OpenNMT-py@97111d9 "
        "(rnn_encoder.py:91-118), which turns the axes first and then cuts rows of L * H, across layers if L is odd",
        effect="for sequence b, what lies at its place in memory: other sequences of the batch, of other layers; right "
        "only with a batch of one",
        apply=_of_the_state(_across_layers),
        needs="model.encoder.bidirectional=true or model.encoder.num_layers=2 or more",
        fits=lambda encoder: encoder.directions * encoder.num_layers > 1,
    ),
}
"""The gallery: config name to mistake."""


def check_effect(name: str, model: Mapping[str, Any]) -> None:
    """Raise a `UserError` if a mistake concerns what the rest of the model, of settings ``model``, does not read."""
    if name == "wrong_cell" and model["decoder"]["cell"] != "lstm":
        raise UserError(f"handoff={name} needs model.decoder.cell=lstm: otherwise nothing reads the cell")
    if name not in ("wrong_unmasked", "wrong_unpacked") and BRIDGES[model["bridge"]].reads == "nothing":
        raise UserError(f"handoff={name} does not fit model.bridge={model['bridge']}, which hands nothing over")


class WrongEncoder(nn.Module):
    """An encoder that makes a mistake of the gallery.

    Its parameters are named ``inner.*``, so that a correct model refuses to load them.

    Raises:
        UserError: If there is no such mistake, or the encoder's shape leaves nothing to get wrong.
    """

    def __init__(self, encoder: nn.Module, name: str) -> None:
        super().__init__()
        mistake: Any = choose("handoff", name, {RIGHT: None} | MISTAKES)
        if not mistake.fits(encoder):
            raise UserError(f"handoff={name} needs {mistake.needs}: otherwise there is nothing to get wrong")
        self.inner = encoder
        self.mistake = mistake

    def forward(self, source: Tensor, lengths: Tensor, *added: Tensor) -> EncoderOutput:
        """Encode as `Encoder` does, with the mistake."""
        return self.mistake.apply(lambda *batch: self.inner(*batch, *added), source, lengths)
