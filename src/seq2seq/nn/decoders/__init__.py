"""Decoders: all have the same interface, and differ in where the context vector enters."""

from typing import Any

from seq2seq.nn.decoders.bahdanau import BahdanauDecoder
from seq2seq.nn.decoders.decoder import Decoder, DecoderOutput
from seq2seq.nn.decoders.gnmt import GNMTDecoder
from seq2seq.nn.decoders.luong import InputFeedingDecoder, LuongDecoder

DECODERS: dict[str, type[Decoder]] = {"luong": LuongDecoder, "gnmt": GNMTDecoder, "bahdanau": BahdanauDecoder}
"""Registry of decoders: config name to class."""


def build_decoder(*, kind: str, input_feeding: bool = False, num_layers: int, **arguments: Any) -> Decoder:  # noqa: ANN401
    """Build a decoder by its config name.

    Args:
        kind: A key of `DECODERS`.
        input_feeding: For ``luong`` only: whether to build an `InputFeedingDecoder`.
        num_layers: Number of layers, L'.
        **arguments: The remaining arguments of `Decoder`.

    Raises:
        ValueError: If there is no such decoder, or the values do not fit together.
    """
    if kind not in DECODERS:
        raise ValueError(f"decoder.kind={kind} must be one of {', '.join(DECODERS)}")
    if input_feeding and kind != "luong":
        raise ValueError(f"decoder.input_feeding=true does not fit decoder.kind={kind}; use luong or false")
    if kind == "gnmt" and num_layers == 1:
        raise ValueError(
            "decoder.num_layers=1 does not fit decoder.kind=gnmt, whose context feeds the layers above the bottom one; "
            "use luong, which is the same with one layer, or 2 or more layers"
        )
    return (InputFeedingDecoder if input_feeding else DECODERS[kind])(num_layers=num_layers, **arguments)


__all__ = ["DECODERS", "Decoder", "DecoderOutput", "build_decoder"]
