"""The two graphs of an export: the encoder with the bridge, and one step of the decoder.

Both run the model's own modules, so any attention, bridge and decoder is exported as it is. Only the recurrent layers
are replaced, by ONNX's operators ``GRU`` and ``LSTM``: packed sequences cannot be exported, but these operators take
the lengths of the sequences themselves.
"""

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.errors import UserError
from seq2seq.nn import Seq2Seq
from seq2seq.nn.attention import Memory
from seq2seq.nn.encoder import EncoderOutput
from seq2seq.nn.state import RNNState

OPSET = 18
"""Version of ONNX's operators."""

GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""For each gate of an ONNX operator, its place in PyTorch's order: reset, update, new; input, forget, cell, output."""

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Of each layer and direction of a recurrent network in PyTorch."""

NEXT = "next_"
"""Prefix of the decoder's outputs that are its inputs at the next step."""


class ExportRNN(nn.Module):
    """A recurrent network that computes what ``nn.GRU`` or ``nn.LSTM`` does, with the operator of the same name.

    It is for the exporter: elsewhere, the operators return zeros of the right shape. It is ``batch_first``.
    """

    def __init__(self, rnn: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.operator, self.num_layers, self.hidden_size = rnn.mode, rnn.num_layers, rnn.hidden_size
        self.bidirectional, self.directions = rnn.bidirectional, 1 + rnn.bidirectional
        for layer in range(rnn.num_layers):
            own = rnn.all_weights[layer * self.directions : (layer + 1) * self.directions]
            for name, both in zip(PARAMETERS, zip(*own, strict=True), strict=True):
                self.register_buffer(f"{name}{layer}", torch.stack([self._reordered(one.detach()) for one in both]))

    def _reordered(self, parameter: Tensor) -> Tensor:
        """Return a parameter of PyTorch with its gates in ONNX's order."""
        gates = parameter.chunk(len(GATES[self.operator]))
        return torch.cat([gates[number] for number in GATES[self.operator]])

    def forward(self, inputs: Tensor, initial: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:  # noqa: ANN401
        """Return what ``nn.GRU`` or ``nn.LSTM`` returns; ``lengths`` is the number of real steps, ``(B,)``, int32."""
        starts = () if initial is None else (initial,) if isinstance(initial, Tensor) else initial
        inputs, finals = inputs.transpose(0, 1), []  # (T, B, E)
        for layer in range(self.num_layers):
            rows = slice(layer * self.directions, (layer + 1) * self.directions)
            inputs, *final = self._run(layer, inputs, [one[rows] for one in starts], lengths)
            finals.append(final)
        parts = tuple(torch.cat(part) for part in zip(*finals, strict=True))
        return inputs.transpose(0, 1), parts if self.operator == "LSTM" else parts[0]

    def _run(self, layer: int, inputs: Tensor, starts: list[Tensor], lengths: Tensor | None) -> list[Tensor]:
        """Run one layer; return its outputs, ``(T, B, D * H)``, and the final state, ``(D, B, H)`` each."""
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self, f"{name}{layer}") for name in PARAMETERS)
        direction = "bidirectional" if self.bidirectional else "forward"
        attributes = {"hidden_size": self.hidden_size, "direction": direction}
        if self.operator == "GRU":
            attributes["linear_before_reset"] = 1  # as in PyTorch; the default of 0 is another network
        state = (self.directions, inputs.size(1), self.hidden_size)
        states = [state] * (2 if self.operator == "LSTM" else 1)
        outputs, *final = torch.onnx.ops.symbolic_multi_out(
            self.operator,
            [inputs, weight_ih, weight_hh, torch.cat([bias_ih, bias_hh], dim=-1), lengths, *starts],
            attributes,
            dtypes=[inputs.dtype] * (1 + len(states)),
            shapes=[(inputs.size(0), *state), *states],  # `len` would freeze the number of steps
            version=OPSET,
        )
        return [outputs.transpose(1, 2).flatten(2), *final]


class ExportEncoder(nn.Module):
    """An `Encoder` that runs an `ExportRNN`."""

    def __init__(self, encoder: Any) -> None:  # noqa: ANN401 - an `Encoder`
        super().__init__()
        self.embedding, self.rnn, self.directions = encoder.embedding, ExportRNN(encoder.rnn), encoder.directions

    def forward(self, source: Tensor, lengths: Tensor, added: Tensor | None = None) -> EncoderOutput:
        """Encode a padded batch; see `Encoder.forward`."""
        mask = torch.arange(source.size(1)) < lengths.unsqueeze(1)
        embedded = self.embedding(source) if added is None else self.embedding(source) + added
        outputs, final = self.rnn(embedded, lengths=lengths.to(torch.int32))
        return EncoderOutput(outputs, RNNState.from_torch(final, self.directions), mask)


def exportable(model: Seq2Seq) -> Any:  # noqa: ANN401 - a Seq2Seq, but nn.Module hides the classes of its parts
    """Return a copy of a model, in single precision, whose recurrent layers can be exported."""
    copied: Any = copy.deepcopy(model).cpu().float().eval()
    if hasattr(copied.encoder, "inner"):  # a mistake of the gallery, which is exported as it is
        copied.encoder.inner = ExportEncoder(copied.encoder.inner)
    else:
        copied.encoder = ExportEncoder(copied.encoder)
    copied.decoder.layers = nn.ModuleList(ExportRNN(layer) for layer in copied.decoder.layers)
    return copied


def state_tensors(state: Any) -> dict[str, Tensor]:  # noqa: ANN401 - see `DecoderOutput`
    """Return the tensors of a decoder's state by name, ``(N, ...)`` each: h and c are ``(N, L', H')``."""
    if isinstance(state, RNNState):
        parts = {"h": state.h, "c": state.c}
        return {name: part.squeeze(1).transpose(0, 1) for name, part in parts.items() if part is not None}
    tensors = {}
    for name, part in state._asdict().items():
        if part is not None:
            tensors |= {name: part} if isinstance(part, Tensor) else state_tensors(part)
    return tensors


def state_from(tensors: Mapping[str, Tensor], example: Any) -> Any:  # noqa: ANN401 - see `DecoderOutput`
    """Return what `state_tensors` took apart; ``example`` is any state of the same decoder."""
    if isinstance(example, RNNState):
        return RNNState(*(tensors[name].transpose(0, 1).unsqueeze(1) for name in ("h", "c") if name in tensors))
    parts = [(name, part) for name, part in example._asdict().items() if part is not None]
    own = {name: tensors[name] if isinstance(part, Tensor) else state_from(tensors, part) for name, part in parts}
    return example._replace(**own)


def memory_from(tensors: Mapping[str, Tensor]) -> Memory:
    """Return a memory, given its tensors by name; without attention, there is the mask only."""
    nothing = torch.zeros(*tensors["mask"].shape, 0)
    return Memory(tensors.get("keys", nothing), tensors.get("values", nothing), tensors["mask"], tensors.get("added"))


def final_state(state: RNNState) -> dict[str, Tensor]:
    """Return ``h_n``, and of an LSTM ``c_n``, as PyTorch lays them out, ``(L * D, B, H)``."""
    final = state.to_torch()
    return {"h_n": final} if isinstance(final, Tensor) else dict(zip(("h_n", "c_n"), final, strict=True))


class EncoderGraph(nn.Module):
    """Encoder, bridge, features and the attention's keys and values: what does not depend on the target."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - what `exportable` returns
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> dict[str, Tensor]:
        """Return the final state, h_n and c_n, and all that the decoder reads, by name."""
        encoded, vectors = self.model.run_encoder(source, lengths, features)
        memory, state = self.model.hand_over(encoded, vectors)
        read = {name: part for name, part in memory._asdict().items() if part is not None and part.size(-1)}
        started = {name: part.unsqueeze(1) for name, part in state_tensors(state).items()}
        return final_state(encoded.state) | read | started


class StepGraph(nn.Module):
    """One step of the decoder, for K hypotheses of each of B sequences; ``example`` is any state of the decoder."""

    def __init__(self, model: Any, example: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.decoder, self.example = model.decoder, example

    def forward(self, tokens: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Read one token per hypothesis.

        Args:
            tokens: Token ids, ``(B, K)``.
            inputs: What `EncoderGraph` returned, ``(B, S, ...)``, and the state, ``(B, K, ...)``.

        Returns:
            The logits, ``(B, K, V)``; the attention weights, ``(B, K, S)``, if there is attention; and the next state.
        """
        memory = memory_from(inputs)
        state = state_from({name: part.flatten(0, 1) for name, part in inputs.items()}, self.example)
        output = self.decoder(tokens.flatten().unsqueeze(1), memory, state)
        outputs = {"logits": output.logits.squeeze(1)}
        if output.weights is not None:
            outputs["weights"] = output.weights.squeeze(1)
        outputs |= {NEXT + name: part for name, part in state_tensors(output.state).items()}
        return {name: part.reshape(*tokens.shape, *part.shape[1:]) for name, part in outputs.items()}


def make_graphs(model: Seq2Seq, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return ``encoder.onnx`` and ``decoder_step.onnx``, with metadata in both; see `EncoderGraph`, `StepGraph`."""
    copied = exportable(model)
    source, lengths = torch.ones(2, 5, dtype=torch.long), torch.tensor([5, 4])  # no size is 0 or 1, nor frozen
    given = {"source": source, "lengths": lengths}
    if copied.features is not None:
        given["features"] = torch.ones(2, 3, dtype=torch.long)
    with torch.inference_mode():
        encoded = EncoderGraph(copied)(**given)
        state = copied.encode(**given).state
    read = {name: part for name, part in encoded.items() if name not in ("h_n", "c_n")}
    hypotheses = {name: part.repeat_interleave(3, dim=1) for name, part in read.items() if name not in Memory._fields}
    arguments = {"tokens": source.new_ones(2, 3), "inputs": read | hypotheses}
    encoder = export_graph(EncoderGraph(copied), given, metadata)
    return encoder, export_graph(StepGraph(copied, state), arguments, metadata)


def export_graph(graph: nn.Module, arguments: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return a graph as the content of an ONNX file.

    Args:
        graph: Returns a dict of tensors.
        arguments: Of the graph: tensors, or dicts of tensors, whose first two axes get any size; see `any_size`.
        metadata: Keys and values that the file holds, too.
    """
    names = [name for key, value in arguments.items() for name in (value if isinstance(value, dict) else [key])]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the user can do nothing about what it warns of
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        outputs = list(graph(**arguments))
        try:
            program = torch.onnx.export(
                graph.eval(), kwargs=dict(arguments), input_names=names, output_names=outputs, opset_version=OPSET,
                dynamic_shapes=any_size(arguments), dynamo=True, verbose=False,
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            problem = "PyTorch's exporter cannot translate a part of this model, as docs/extending.md explains"
            raise UserError(f"{problem}: {reason}; HYDRA_FULL_ERROR=1 shows where") from error
    assert program is not None
    program.model.metadata_props.update(metadata)
    return program.model_proto.SerializeToString()


def any_size(value: Any) -> Any:  # noqa: ANN401 - a tensor, or a mapping with tensors in it
    """Mark the first two axes of every tensor as of any size, except one of size 1, which stays 1.

    A third axis is of any size if the model allows it: that of an attention's state may be the source's.
    """
    if isinstance(value, Mapping):
        return {name: any_size(part) for name, part in value.items()}
    marks = (torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO)
    return {axis: mark for axis, (mark, size) in enumerate(zip(marks, value.shape, strict=False)) if size > 1}
