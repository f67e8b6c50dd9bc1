"""From the section ``model`` of a config to a model: a mistake is named by its key."""

import pytest
from conftest import model_settings
from torch import nn

from seq2seq.errors import UserError
from seq2seq.handoff.mistakes import WrongEncoder
from seq2seq.model import model_from_config, trained_model
from seq2seq.nn import fast as fast_layers


def build(settings, **options):
    return model_from_config(settings, source_size=10, target_size=9, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bridge": "concat", "decoder": {"hidden_size": 128}},
         r"model\.decoder\.hidden_size=128 does not fit model\.bridge=concat, which needs 2 x model\.encoder\."
         r"hidden_size=7 = 14; use model\.bridge=linear\|top\|learned\|zeros or model\.decoder\.hidden_size=14"),
        ({"bridge": "mean", "decoder": {"hidden_size": 14}},
         r"model\.decoder\.hidden_size=14 does not fit model\.bridge=mean, which needs 1 x model\.encoder\."
         r"hidden_size=7 = 7; use model\.bridge=linear\|concat\|top\|learned\|zeros or model\.decoder\.hidden_size=7"),
        ({"bridge": "liner"}, r"model\.bridge=liner must be one of linear, concat, mean, top, learned, zeros"),
        ({"encoder": {"cell": "rnn"}}, r"model\.encoder\.cell=rnn must be one of gru, lstm"),
        ({"decoder": {"cell": "GRU"}}, r"model\.decoder\.cell=GRU must be one of gru, lstm"),
        ({"encoder": {"num_layers": 0}},
         r"model\.encoder\.num_layers=0 must be a whole number of at least 1 and at most 1000"),
        ({"decoder": {"num_layers": "two"}},
         r"model\.decoder\.num_layers=two must be a whole number of at least 1 and at most 1000"),
        ({"encoder": {"hidden_size": 7.5}},
         r"model\.encoder\.hidden_size=7\.5 must be a whole number of at least 1 and at most 100000"),
        ({"decoder": {"hidden_size": True}},
         r"model\.decoder\.hidden_size=true must be a whole number of at least 1 and at most 100000"),
        ({"encoder": {"embedding_size": -1}},
         r"model\.encoder\.embedding_size=-1 must be a whole number of at least 1 and at most 100000"),
        ({"decoder": {"embedding_size": None}},
         r"model\.decoder\.embedding_size=null must be a whole number of at least 1 and at most 100000"),
        ({"encoder": {"bidirectional": 2}}, r"model\.encoder\.bidirectional=2 must be true or false"),
        ({"dropout": 1}, r"model\.dropout=1 must be a number of at least 0 and below 1"),
        ({"encoder": {"layers": 3}},
         r"model\.encoder\.layers is unknown; the keys of model\.encoder are bidirectional, cell, "
         r"embedding_size, hidden_size, num_layers, reads_features"),
        ({"encoder": None}, r"model\.encoder=null must be a mapping with the keys bidirectional, cell, .*"),
        ({"layers": 3}, r"model\.layers is unknown; the keys of model are attention, bridge, decoder, .*"),
        ({"attention": "dots"}, r"model\.attention=dots must be one of general, dot, additive, multihead, none(, .*)?"),
        ({"attention": "dot", "decoder": {"hidden_size": 6}},
         r"model\.decoder\.hidden_size=6 does not fit model\.attention=dot, which needs the size of the encoder's "
         r"outputs, 14; use general, additive or 14"),
        ({"attention": {"name": "multihead", "num_heads": 3}},
         r"model\.attention\.num_heads=3 must be a whole number that divides model\.decoder\.hidden_size=14"),
        ({"attention": {"name": "multihead", "heads": 3}},
         r"model\.attention\.heads is unknown: multihead attention has num_heads, normaliser"),
        ({"attention": {"num_heads": 3}}, r"model\.attention\.name is missing; the keys of model\.attention are name"),
        ({"attention": {"name": "multihead", "num_heads": 0}},
         r"model\.attention\.num_heads=0 must be a whole number .*"),
        ({"decoder": {"kind": "loung"}}, r"model\.decoder\.kind=loung must be one of luong, gnmt, bahdanau"),
        ({"decoder": {"tied": 1}}, r"model\.decoder\.tied=1 must be true or false"),
        ({"decoder": {"input_feeding": 0}}, r"model\.decoder\.input_feeding=0 must be true or false"),
        ({"decoder": {"kind": "gnmt", "input_feeding": True}},
         r"model\.decoder\.input_feeding=true does not fit model\.decoder\.kind=gnmt; use luong or false"),
        ({"decoder": {"kind": "gnmt", "num_layers": 1}},
         r"model\.decoder\.num_layers=1 does not fit model\.decoder\.kind=gnmt, which needs at least "
         r"2; use more layers, or another decoder, such as luong"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_by_key_and_value(changes, message):
    settings = model_settings()
    for key, value in changes.items():
        settings[key] = settings[key] | value if key in ("encoder", "decoder") and value else value

    with pytest.raises(UserError, match=f"^{message}$"):
        build(settings)


@pytest.mark.parametrize(("section", "key"), [("decoder", "cell"), ("encoder", "bidirectional"), (None, "bridge")])
def test_a_missing_key_is_named(section, key):
    settings = model_settings()
    del (settings[section] if section else settings)[key]
    name = f"model.{section}.{key}" if section else f"model.{key}"

    with pytest.raises(UserError, match=f"^{name} is missing; the keys of "):
        build(settings)


@pytest.mark.parametrize(("fast", "expected"), [("auto", fast_layers.GRU), (False, nn.GRU)])
def test_fast_layers_are_used_unless_they_are_disabled(fast, expected):
    model = build(model_settings(), fast=fast)

    assert {type(rnn) for rnn in (model.encoder.rnn, *model.decoder.layers)} == {expected}


def test_fast_is_auto_or_false():
    with pytest.raises(UserError, match=r"^search\.fast=true must be one of auto, false$"):
        trained_model({"fast": True, "max_length": 5})


def test_a_mistake_of_the_handoff_takes_the_place_of_the_encoder():
    model = build(model_settings(), handoff="wrong_first_rows")

    assert isinstance(model.encoder, WrongEncoder)


def test_a_mistake_of_the_handoff_that_changes_nothing_is_refused():
    with pytest.raises(UserError, match=r"^handoff=wrong_first_rows does not fit model\.bridge=zeros, which hands "):
        build(model_settings(bridge="zeros"), handoff="wrong_first_rows")
