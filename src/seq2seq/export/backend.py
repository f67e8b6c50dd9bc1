"""Exported models, run by ONNX Runtime, that are called like the models of `seq2seq.nn`."""

import os
from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from seq2seq.api import named_paths
from seq2seq.checkpoint import about_checkpoint, load_model
from seq2seq.data import Tokenizers
from seq2seq.errors import import_extra
from seq2seq.export.files import Export, export_module, read_export
from seq2seq.export.graphs import NEXT, memory_from
from seq2seq.model import TrainedModel
from seq2seq.nn import Encoded
from seq2seq.nn.attention import Memory
from seq2seq.nn.decoders import DecoderOutput
from seq2seq.runs.files import user_path


class OnnxState(NamedTuple):
    """A decoder's state: the inputs of the step's graph by name, ``(N, ...)`` each."""

    tensors: dict[str, Tensor]

    def select(self, indices: Tensor) -> Self:
        """Return the state of the hypotheses at ``indices``, in that order."""
        return self._replace(tensors={name: part.index_select(0, indices) for name, part in self.tensors.items()})


class OnnxModel(nn.Module):
    """An exported model, called like a `Seq2Seq` in evaluation mode; it computes on the CPU.

    Raises:
        ValueError: If its graphs do not fit together.
    """

    def __init__(self, export: Export) -> None:
        super().__init__()
        self._encoder, self._step = Graph(export.encoder), Graph(export.step)
        given = {"tokens", *self._encoder.outputs}
        self.has_features = "features" in self._encoder.inputs
        expected = ["source", "lengths", "features"][: 2 + self.has_features]
        if self._encoder.inputs != expected or not given.issuperset(self._step.inputs):
            raise ValueError("the graphs are not an encoder and a decoder's step that belong together")
        self._memory = [name for name in self._step.inputs if name in Memory._fields]
        self._state = [name for name in self._step.inputs if name not in ("tokens", *Memory._fields)]
        self.has_attention = "weights" in self._step.outputs
        self.target_size = self._step.sizes["logits"]

    def run_encoder(self, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> dict[str, Tensor]:
        """Return all outputs of ``encoder.onnx`` by name: the final state, the memory and the decoder's first state."""
        own = {"features": source[:, :0] if features is None else features} if self.has_features else {}
        return self._encoder({"source": source, "lengths": lengths} | own)

    def encode(self, source: Tensor, lengths: Tensor, features: Tensor | None = None) -> Encoded:
        """Encode a padded batch; see `Seq2Seq.encode`."""
        outputs = self.run_encoder(source, lengths, features)
        return Encoded(memory_from(outputs), OnnxState({name: outputs[name].squeeze(1) for name in self._state}))

    def step(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, Encoded]:
        """Read one token per sequence, ``(B,)``; see `Seq2Seq.step`."""
        output = self._run_step(tokens, *encoded)
        return output.logits, encoded._replace(state=output.state)

    def decoder(self, targets: Tensor, memory: Memory, state: OnnxState) -> DecoderOutput:
        """Read T tokens and predict the one after each; see `Decoder.forward`."""
        steps = []
        for tokens in targets.unbind(1):
            steps.append(self._run_step(tokens, memory, state))
            state = steps[-1].state
        weights = torch.stack([step.weights for step in steps], dim=1) if self.has_attention else None
        return DecoderOutput(torch.stack([step.logits for step in steps], dim=1), state, weights)

    def _run_step(self, tokens: Tensor, memory: Memory, state: OnnxState) -> DecoderOutput:
        """Read one token per hypothesis, ``(N,)``; return logits, ``(N, V)``, state, and weights, ``(N, S)``."""
        shape = (memory.mask.size(0), -1)  # B, K
        own = {"tokens": tokens} | state.tensors
        inputs = {name: part.view(*shape, *part.shape[1:]) for name, part in own.items()}
        found = self._step(inputs | {name: getattr(memory, name) for name in self._memory})
        outputs = {name: part.flatten(0, 1) for name, part in found.items()}
        after = OnnxState({name: outputs[NEXT + name] for name in state.tensors})
        return DecoderOutput(outputs["logits"], after, outputs.get("weights"))


class Graph:
    """The content of an ONNX file, loaded by ONNX Runtime for the CPU, with as many threads as PyTorch has.

    Raises:
        UserError: If ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._open()
        self.inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]
        self.sizes = {one.name: one.shape[-1] for one in self._session.get_outputs()}

    def _open(self) -> None:
        onnxruntime = import_extra("onnxruntime", "export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would take cores from PyTorch
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(self._content, options, providers=["CPUExecutionProvider"])
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        """Return what makes an equal graph in another process."""
        return type(self), (self._content,)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph; return its outputs by name."""
        if self._process != os.getpid():  # a forked worker, which lacks the session's threads
            self._open()
        outputs = self._session.run(self.outputs, {name: part.contiguous().numpy() for name, part in inputs.items()})
        return {name: torch.from_numpy(part) for name, part in zip(self.outputs, outputs, strict=True)}


def open_export(export: Export) -> TrainedModel:
    """Return an exported model with its tokenizers, as prediction takes it.

    Raises:
        ValueError: If its parts do not fit together.
    """
    model, max_length = OnnxModel(export), export.description["max_length"]
    tokenizers = Tokenizers.from_dicts({part: export.description.get(part) for part in Tokenizers._fields})
    if len(tokenizers.target.vocabulary) != model.target_size:
        raise ValueError(f"{len(tokenizers.target.vocabulary)} target symbols do not fit {model.target_size} logits")
    if type(max_length) is not int or not 1 <= max_length <= 100_000:
        raise ValueError(f"max_length={max_length}")
    return TrainedModel(model, tokenizers, max_length, export.description)


def load_exports(checkpoint: object) -> list[TrainedModel]:
    """Load the models that ``checkpoint`` in a config names, a path or a list; raise a `UserError` if one is not valid.

    Each is the folder of an export, or a checkpoint, which is first exported in memory.
    """
    models = []
    for path in named_paths(checkpoint):
        folder = user_path("checkpoint", path)
        if folder.is_dir():
            export = read_export(folder)
            with about_checkpoint(path):
                models.append(open_export(export))
        else:
            models.append(open_export(export_module(load_model(path))))
    return models
