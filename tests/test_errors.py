"""Errors: whose they are, and what becomes of them."""

import pytest
import torch
from conftest import model_settings

from seq2seq.errors import UserError, about_setting
from seq2seq.nn import build_model


def test_what_a_library_says_about_a_setting_is_one_line():
    with pytest.raises(UserError, match=r"^optimizer\.lr: Invalid learning rate: -1$"), about_setting("optimizer.lr"):
        torch.optim.SGD([torch.zeros(1)], lr=-1)


def test_an_error_of_a_class_of_the_users_keeps_its_traceback_below_the_key(caplog):
    def own():
        raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke") as caught, about_setting("callbacks.own"):
        own()

    assert caught.traceback[-1].name == "own"
    assert caplog.messages == ["callbacks.own leads to this error:"]


def test_what_our_network_says_is_left_as_it_is():
    with pytest.raises(UserError, match=r"bridge=none must be one of"), about_setting("model"):
        build_model(source_size=5, target_size=6, **model_settings(bridge="none"))


def test_a_bug_in_our_network_keeps_its_traceback():
    model = build_model(source_size=5, target_size=6, **model_settings())

    with pytest.raises(AttributeError, match="'list' object has no attribute"), about_setting("model"):
        model.encoder([[4]], torch.tensor([1]))


def test_our_own_errors_are_left_as_they_are():
    error = UserError("seed=x must be a whole number")

    with pytest.raises(UserError) as caught, about_setting("model"):
        raise error

    assert caught.value is error
