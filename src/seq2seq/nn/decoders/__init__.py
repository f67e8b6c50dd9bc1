"""Decoders: all have the same interface, and differ in where the context vector enters."""

from typing import Any

from seq2seq.nn.decoders.bahdanau import BahdanauDecoder
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput, DecoderState
from seq2seq.nn.decoders.gnmt import GNMTDecoder
from seq2seq.nn.decoders.luong import LuongDecoder

DECODERS: dict[str, type[Decoder]] = {"luong": LuongDecoder, "gnmt": GNMTDecoder, "bahdanau": BahdanauDecoder}
"""Registry of decoders: config name to class."""


def build_decoder(*, kind: str, input_feeding: bool = False, num_layers: int, **arguments: Any) -> Decoder:  # noqa: ANN401
    """Build a decoder by its config name.

    Args:
        kind: A key of `DECODERS`.
        input_feeding: Whether to build the decoder's variant with input feeding, if it has one.
        num_layers: Number of layers, L'.
        **arguments: The remaining arguments of `Decoder`.

    Raises:
        ValueError: If there is no such decoder, or the values do not fit together.
    """
    if kind not in DECODERS:
        raise ValueError(f"model.decoder.kind={kind} must be one of {', '.join(DECODERS)}")
    built = DECODERS[kind]
    if input_feeding:
        if built.with_input_feeding is None:
            fitting = "|".join(name for name, one in DECODERS.items() if one.with_input_feeding)
            problem = f"model.decoder.input_feeding=true does not fit model.decoder.kind={kind}"
            raise ValueError(f"{problem}; use {fitting} or false")
        built = built.with_input_feeding
    if num_layers < built.min_layers:
        raise ValueError(
            f"model.decoder.num_layers={num_layers} does not fit model.decoder.kind={kind}, which needs at least "
            f"{built.min_layers}; use more layers, or another decoder, such as luong"
        )
    return built(num_layers=num_layers, **arguments)


__all__ = ["DECODERS", "Decoder", "DecoderOutput", "DecoderState", "build_decoder"]
