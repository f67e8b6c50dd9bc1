"""The benchmark: what it counts, and that it times what it says."""

import json

import pytest
import torch
from conftest import TINY
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.benchmark.cases import Case
from seq2seq.benchmark.plain import plain_logits, plain_loop
from seq2seq.benchmark.profile import shares
from seq2seq.benchmark.roofline import products
from seq2seq.commands.benchmark import benchmark, report, timed
from seq2seq.data import Batch
from seq2seq.errors import UserError
from seq2seq.nn import EncoderOutput, RNNState, build_model
from seq2seq.nn.fast.dropout import dropout

B, S, T = 4, 5, 6
SMALL = [override for override in TINY if override.startswith(("data", "model"))]


def make_batch(source_lengths, target_lengths):
    return Batch(
        torch.ones(B, S, dtype=torch.long), torch.tensor(source_lengths), torch.ones(B, T + 1, dtype=torch.long),
        torch.tensor(target_lengths), torch.arange(B),
    )  # fmt: skip


@pytest.mark.parametrize("attention", ["general", "additive", "multihead"])
@pytest.mark.parametrize("bridge", ["zeros", "linear"])
def test_the_products_are_those_that_pytorch_counts(attention, bridge):
    part = {"cell": "gru", "embedding_size": 8, "hidden_size": 6, "num_layers": 1}
    model = build_model(
        source_size=10, target_size=9, encoder=part | {"bidirectional": True},
        decoder=part | {"kind": "luong", "input_feeding": False, "tied": False}, bridge=bridge, attention=attention,
        num_heads=2, dropout=0.0,
    )  # fmt: skip
    batch = make_batch([S] * B, [T] * B)
    ours = sum(2 * one.rows * one.inner * one.columns * one.times for one in products(model, batch)) / 3  # forward
    steps = {"encoder": S, "decoder": T}
    inside = sum(
        2 * B * steps[name.split(".")[0]] * weight.numel()
        for name, weight in model.named_parameters()
        if weight.dim() == 2 and ("rnn." in name or "layers." in name)
    )

    with FlopCounterMode(display=False) as counter:
        encoded = EncoderOutput(torch.randn(B, S, 12), RNNState(torch.randn(1, 2, B, 6)), torch.ones(B, S) > 0)
        memory, _ = model.decoder.remember(encoded), model.decoder.start(model.bridge(encoded.state))
        outputs = torch.randn(B, T, 6)
        contexts, _ = model.decoder.attention(outputs, memory)
        model.decoder.logits(model.decoder.combined(contexts, outputs))

    assert ours - inside == counter.get_total_flops()  # all but the recurrent networks, which the counter does not see


@pytest.mark.parametrize("kind", ["luong", "gnmt", "bahdanau"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_every_weight_meets_every_token_once_forward_and_twice_backward(kind, cell):
    part = {"cell": cell, "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
    decoder = part | {"kind": kind, "input_feeding": False, "tied": False}
    model = build_model(
        source_size=10, target_size=9, encoder=part | {"bidirectional": True}, decoder=decoder, bridge="zeros",
        attention="general", num_heads=1, dropout=0.0,
    )  # fmt: skip
    batch = make_batch([S] * B, [T] * B)

    counted = sum(one.rows * one.inner * one.columns * one.times * one.real for one in products(model, batch))

    def weights(part):
        return sum(p.numel() for n, p in part.named_parameters() if p.dim() == 2 and "embedding" not in n)

    key = model.decoder.attention.key.weight.numel()
    forward = B * S * (weights(model.encoder) + key) + B * T * (weights(model.decoder) - key)
    forward += B * T * S * (7 + 14)  # scores of size H' = 7, contexts of outputs of size D * H = 14
    assert counted == 3 * forward


def test_padding_does_not_count():
    part = {"cell": "gru", "embedding_size": 8, "hidden_size": 7, "num_layers": 1}
    model = build_model(
        source_size=10, target_size=9, encoder=part | {"bidirectional": False},
        decoder=part | {"kind": "luong", "input_feeding": False, "tied": False}, bridge="zeros", attention="none",
        num_heads=1, dropout=0.0,
    )  # fmt: skip

    whole, half = (
        sum(one.rows * one.inner * one.columns * one.times * one.real for one in products(model, make_batch(*lengths)))
        for lengths in (([S] * B, [T] * B), ([5, 3, 1, 1], [6, 3, 2, 1]))
    )

    assert half / whole == pytest.approx(0.5)


def test_rounds_are_interleaved_and_the_first_does_not_count():
    seen = []
    cases = [Case(name, lambda name=name: seen.append(name), 1, 1, 0.0, 1.0) for name in "ab"]

    seconds = timed(cases, rounds=2)

    assert seen == ["a", "b"] * 3
    assert [len(kept) for kept in seconds] == [2, 2]


def test_the_report_is_the_median_the_spread_and_how_many_times_as_fast_as_the_plain_model():
    cases = [Case(name, lambda: None, 10, 50, 0.2, 0.5) for name in ("x", "x, plain", "y")]

    rows = report(cases, [[1.0, 2.0, 4.0], [6.0, 5.0, 1.0], [2.0, 2.0, 2.0]])

    assert rows[0] == {
        "case": "x", "words_per_second": 5, "tokens_per_second": 25, "spread": 1.5, "times_plain": 2.5,
        "share_of_limit": 0.25, "padding": 0.2,
    }  # fmt: skip
    assert [row["times_plain"] for row in rows[1:]] == [None, None]


@torch.no_grad()
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["luong", "gnmt", "bahdanau"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_plain_model_is_the_same_model(kind, cell):
    part = {"cell": cell, "embedding_size": 8, "hidden_size": 7, "num_layers": 2}
    decoder = part | {"kind": kind, "input_feeding": False, "tied": False}
    model = build_model(
        source_size=10, target_size=9, encoder=part | {"bidirectional": True}, decoder=decoder, bridge="linear",
        attention="general", num_heads=1, dropout=0.5,
    ).eval()  # fmt: skip
    batch = make_batch([5, 3, 1, 4], [6, 3, 2, 1])

    torch.testing.assert_close(
        plain_logits(model, batch), model(batch.source, batch.source_lengths, batch.inputs).logits, rtol=0, atol=1e-12
    )
    assert not torch.equal(plain_logits(model.train(), batch), plain_logits(model, batch)), "dropout in training"


@pytest.mark.parametrize("kind", ["luong", "bahdanau"])
def test_a_pass_of_the_plain_model_takes_a_step(kind):
    part = {"cell": "gru", "embedding_size": 8, "hidden_size": 7, "num_layers": 1}
    decoder = part | {"kind": kind, "input_feeding": False, "tied": False}
    torch.manual_seed(0)
    model = build_model(
        source_size=10, target_size=9, encoder=part | {"bidirectional": True}, decoder=decoder, bridge="linear",
        attention="general", num_heads=1, dropout=0.0,
    )  # fmt: skip
    batch = make_batch([5, 3, 1, 4], [6, 3, 2, 1])
    before = [parameter.clone() for parameter in model.parameters()]

    plain_loop(model, [batch], "32-true")()

    assert all(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_the_table_and_the_file_hold_every_case(compose, tiny_checkpoint, tmp_path, capsys):
    small = ["data=reverse", *SMALL[1:], "batch_sizes=[8]", "kinds=[luong,gnmt]", "rounds=1", "batches=2"]
    given = [f"checkpoint={tiny_checkpoint}", "search.beam_size=3", "search.max_length=5", f"output={tmp_path}/b.json"]

    benchmark(compose("benchmark", *small, *given))

    content = json.loads((tmp_path / "b.json").read_text())
    assert [row["case"] for row in content["training"]] == [
        "luong, gru, batch 8, 32-true", "luong, gru, batch 8, 32-true, trainer", "luong, gru, batch 8, 32-true, plain",
        "gnmt, gru, batch 8, 32-true", "gnmt, gru, batch 8, 32-true, trainer", "gnmt, gru, batch 8, 32-true, plain",
    ]  # fmt: skip
    assert [row["times_plain"] is None for row in content["training"]] == [False, True, True] * 2
    assert [row["case"] for row in content["search"]] == ["greedy, batch 64", "beam 3, batch 64"]
    assert all(row["words_per_second"] > 0 for part in ("training", "search") for row in content[part])
    assert list(content["profile"]) == ["luong, gru, batch 8, 32-true", "gnmt, gru, batch 8, 32-true"]
    printed = capsys.readouterr().out
    assert "Speed of search" in printed
    assert "Where the time of a bare step goes" in printed


def test_a_profile_tells_products_from_the_rest_and_from_python():
    large, small = torch.randn(300, 300), torch.randn(3)

    products = shares(lambda: [large @ large for _ in range(20)])
    others = shares(lambda: [small.tanh() for _ in range(2000)])
    python = shares(lambda: sum(range(1_000_000)))

    assert products["matrix products"] > 0
    assert others["matrix products"] == 0 < others["other operations"]
    assert python["Python and autograd"] == pytest.approx(1)
    assert sum(products.values()) == pytest.approx(1)


def test_a_profile_tells_the_optimiser_clipping_and_random_numbers_apart():
    weight = torch.nn.Parameter(torch.randn(8, 8))
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step():
        dropout(torch.randn(8, 8) @ weight, 0.5, training=True).sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 1e-3)
        optimizer.step()

    assert all(share > 0 for share in shares(step).values())


def test_a_profile_is_made_only_if_wanted(compose, tmp_path, capsys):
    small = ["data=reverse", *SMALL[1:], "batch_sizes=[8]", "kinds=[luong]", "rounds=1", "batches=1", "profile=false"]

    content = benchmark(
        compose("benchmark", *small, "trainer_overhead=false", "plain=false", f"output={tmp_path}/b.json")
    )

    assert "profile" not in content
    assert len(content["training"]) == 1
    assert "Where the time" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds=0 must be a whole number of at least 1"),
        ("batches=0", "batches=0 must be a whole number of at least 1"),
        ("batch_sizes=4", "batch_sizes=4 must be a list of at least one"),
        ("batch_sizes=[0]", "batch_sizes=0 must be a whole number of at least 1"),
        ("kinds=[]", r"kinds=\[\] must be a list of at least one"),
        ("trainer_overhead=maybe", "trainer_overhead=maybe must be true or false"),
        ("plain=maybe", "plain=maybe must be true or false"),
        ("profile=maybe", "profile=maybe must be true or false"),
        ("matmul_precision=low", "matmul_precision=low must be one of highest, high, medium"),
        ("precisions=[16]", "precisions=16 must be one of 32-true, bf16-mixed"),
        ("+foo=1", "foo is unknown; the keys are batch_sizes, batches, "),
    ],
)
def test_what_cannot_be_is_refused(compose, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        benchmark(compose("benchmark", "data=reverse", override, f"output={tmp_path}/b.json"))


def test_a_file_that_cannot_be_written_is_named_before_anything_is_timed(compose, tmp_path):
    with pytest.raises(UserError, match=r"output=.* cannot be written: Is a directory"):
        benchmark(compose("benchmark", "data=reverse", f"output={tmp_path}"))


def test_drawing_is_not_timed(compose, tiny_checkpoint, tmp_path):
    given = ["data=reverse", *SMALL[1:], f"checkpoint={tiny_checkpoint}", "search=sample", "~search.beam_size"]

    with pytest.raises(UserError, match=r"search\.kind=sample must be one of beam"):
        benchmark(compose("benchmark", *given, f"output={tmp_path}/b.json"))


def test_a_beam_of_one_is_not_timed_twice(compose, tiny_checkpoint, tmp_path):
    given = ["data=reverse", *SMALL[1:], f"checkpoint={tiny_checkpoint}", "search.beam_size=1", "batches=1"]

    with pytest.raises(UserError, match=r"search\.beam_size=1 is greedy search, which is timed in any case"):
        benchmark(compose("benchmark", *given, f"output={tmp_path}/b.json"))
