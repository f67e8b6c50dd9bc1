"""The benchmark: what it counts, and that it times what it says."""

import itertools
import json
import math
import sys

import pytest
import torch
from conftest import LUONG, TINY
from torch import nn
from torch.nn import functional as F

from seq2seq.benchmark import timing
from seq2seq.benchmark.cases import BenchmarkSettings, bare_loop, load_batches, training_cases
from seq2seq.benchmark.timing import Case, measure, roofline_seconds
from seq2seq.commands.benchmark import benchmark
from seq2seq.data import Batch
from seq2seq.errors import UserError
from seq2seq.nn import build_model
from seq2seq.settings import read_settings, resolve_config

B, S, T, H, E, V, LAYERS, DECODER_SIZE = 4, 5, 6, 7, 8, 9, 2, 10
CPU = torch.device("cpu")
SMALL = ["data=reverse", *(override for override in TINY if override.startswith(("data.", "model")))]


def make_batch(source_lengths, target_lengths):
    return Batch(
        torch.ones(B, S, dtype=torch.long), torch.tensor(source_lengths), torch.ones(B, T + 1, dtype=torch.long),
        torch.tensor(target_lengths), torch.arange(B),
    )  # fmt: skip


def small_model(*, cell="gru", kind="luong", attention="general", fast=True):
    torch.manual_seed(0)
    part = {"cell": cell, "embedding_size": E, "num_layers": LAYERS}
    options = {"num_heads": 2} if attention == "multihead" else {}
    return build_model(
        source_size=11, target_size=V, encoder=part | {"hidden_size": H, "bidirectional": True},
        decoder=LUONG | part | {"hidden_size": DECODER_SIZE, "kind": kind}, bridge="linear",
        attention={"name": attention} | options, dropout=0.1, fast=fast,
    )  # fmt: skip


def flops(model, batch, precision="32-true", seen=None):
    """The limit of a step on a machine that takes a second for each operation."""
    with pytest.MonkeyPatch.context() as patch:
        seen = [] if seen is None else seen
        patch.setattr(timing, "matmul_seconds", lambda left, right, *key: seen.append(key) or flops_of(left, right))
        return roofline_seconds(model, batch, precision, CPU)


def flops_of(left, right):
    return 2 * math.prod(left) * right[-1]


def weights(part):
    """Number of weights that vectors are multiplied by; an embedding is looked up."""
    return sum(p.numel() for name, p in part.named_parameters() if p.dim() == 2 and "embedding" not in name)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("kind", ["luong", "gnmt", "bahdanau"])
def test_every_weight_meets_every_token_once_forward_and_twice_backward(kind, cell):
    model = small_model(kind=kind, cell=cell)

    forward = B * S * (weights(model.encoder) + weights(model.decoder.attention))  # which maps the outputs to keys
    forward += B * weights(model.bridge)
    forward += B * T * (weights(model.decoder) - weights(model.decoder.attention))
    forward += B * T * S * (DECODER_SIZE + 2 * H)  # queries meet keys, and weights meet values

    assert flops(model, make_batch([S] * B, [T] * B)) == 2 * 3 * forward


@pytest.mark.parametrize(
    ("attention", "source_weights", "target_weights", "pair_weights"),
    [
        ("none", 0, 0, 0),
        ("additive", 2 * H * DECODER_SIZE, DECODER_SIZE**2, DECODER_SIZE + 2 * H),
        ("multihead", 2 * 2 * H * DECODER_SIZE, 2 * DECODER_SIZE**2, 2 * DECODER_SIZE),
    ],
)
def test_what_an_attention_multiplies_is_counted(attention, source_weights, target_weights, pair_weights):
    model = small_model(attention=attention)

    forward = B * S * (weights(model.encoder) + source_weights) + B * weights(model.bridge)
    forward += B * T * (weights(model.decoder) - weights(model.decoder.attention) + target_weights)
    forward += B * T * S * pair_weights

    assert flops(model, make_batch([S] * B, [T] * B)) == 2 * 3 * forward


def test_padding_of_the_source_is_not_multiplied_by_the_encoder():
    model = small_model()

    saved = flops(model, make_batch([5, 5, 5, 5], [T] * B)) - flops(model, make_batch([5, 3, 1, 1], [T] * B))

    assert saved == 2 * 3 * (20 - 10) * weights(model.encoder)


def test_fused_attention_is_counted():
    class FusedAttention(nn.Module):
        def __init__(self, general):
            super().__init__()
            self.key, self.init_memory = general.key, general.init_memory

        def forward(self, queries, memory):
            mask = memory.mask.unsqueeze(1)
            return F.scaled_dot_product_attention(queries, memory.keys, memory.values, mask, scale=1.0), None

    model, batch = small_model(), make_batch([5, 3, 1, 1], [T] * B)
    expected = flops(model, batch)

    model.decoder.attention = FusedAttention(model.decoder.attention)

    assert flops(model, batch) == expected


def test_a_model_whose_multiplications_are_not_known_has_no_limit():
    def convolve(*_):
        F.conv1d(torch.ones(1, 1, 3), torch.ones(1, 1, 2))

    model = small_model()
    model.encoder.register_forward_hook(convolve)

    with pytest.raises(NotImplementedError, match=r"the limit of a step with aten\.convolution is not known"):
        roofline_seconds(model, make_batch([S] * B, [T] * B), "32-true", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_limit_is_the_best_time_of_all_multiplications_in_their_precision(monkeypatch, precision, dtype):
    model, batch = small_model(), make_batch([S] * B, [T] * B)
    keys, dtypes = [], set()

    class Timer:
        def __init__(self, code, globals, num_threads):  # noqa: A002
            self.code, self.names, self.num_threads = code, globals, num_threads

        def blocked_autorange(self, **_):
            left, right = self.names["matrices"]
            dtypes.update({left.dtype, right.dtype, eval(self.code, {"torch": torch} | self.names).dtype})
            best = 0.5 * flops_of(left.shape, right.shape)
            return type("Measurement", (), {"times": (2 * best, best, 3 * best)})

    monkeypatch.setattr(timing, "Timer", Timer)
    monkeypatch.setattr(timing, "matmul_seconds", timing.matmul_seconds.__wrapped__)  # without its cache

    assert roofline_seconds(model, batch, precision, CPU) == 0.5 * flops(model, batch, precision, keys)
    assert set(keys) == {(precision, CPU, "highest")}
    assert dtypes == {dtype}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_pass_updates_every_parameter(fast, precision):
    model = small_model(fast=fast)
    before = [parameter.clone() for parameter in model.parameters()]
    batches = [make_batch([5, 3, 1, 4], [6, 3, 2, 1])]

    seconds = bare_loop(model, [batches], {"accelerator": "cpu", "precision": precision})()

    assert seconds > 0

    assert all(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def case_of(name, *seconds, variant="", batches=None, **numbers):
    """A case whose passes take these seconds, after one of warm-up."""
    passes = iter((1e9, *seconds))
    return Case(name, variant, lambda: next(passes), batches or [make_batch([S] * B, [T] * B)], **numbers)


def test_rounds_are_interleaved_and_the_first_does_not_count():
    seen = []
    times = {"a": iter([9.0, 1.0, 3.0]), "b": iter([9.0, 2.0, 6.0])}
    batches = [make_batch([S] * B, [T] * B)]
    cases = [Case(name, "", lambda name=name: seen.append(name) or next(times[name]), batches) for name in "ab"]

    rows = measure(cases, 2, CPU)

    assert seen == ["a", "b"] * 3
    assert [row["spread"] for row in rows] == [1.0, 1.0]
    assert [row["sequences_per_second"] for row in rows] == [B / 2.0, B / 4.0]


def test_a_pass_that_does_not_measure_its_time_is_timed(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("seq2seq.benchmark.timing.timer", lambda: next(clock))

    (row,) = measure([Case("a", "", lambda: next(clock) and None, [make_batch([S] * B, [T] * B)])], 2, CPU)

    assert row["sequences_per_second"] == B / 2


def test_the_rows_have_medians_their_spread_and_the_comparison_with_the_textbook_model():
    batches = [make_batch([5, 3, 1, 1], [6, 3, 2, 1]), make_batch([S] * B, [T] * B)]
    cases = [
        case_of("x", 1.0, 2.0, 4.0, batches=batches, limit=0.5),
        case_of("x", 2.0, 2.0, 2.0, batches=batches, limit=0.5, variant="trainer"),
        case_of("x", 6.0, 5.0, 1.0, batches=batches, limit=0.5, variant="textbook"),
        case_of("y", 2.0, 2.0, 2.0, batches=batches),
    ]

    rows = measure(cases, 3, CPU)

    assert rows[0] == {
        "case": "x", "sequences_per_second": 4, "tokens_per_second": 18, "spread": 1.5, "times_textbook": 2.5,
        "share_of_limit": 0.25, "waiting_for_data": None, "padding": 1 - (10 + 12 + 20 + 24) / 88,
        "beside_busy": None, "megabytes": None,
    }  # fmt: skip
    assert [row["case"] for row in rows[1:]] == ["x, trainer", "x, textbook", "y"]
    assert [row["times_textbook"] for row in rows[1:]] == [None, None, None]
    assert [row["share_of_limit"] for row in rows[1:]] == [0.25, 0.1, None]


def test_each_round_is_also_run_beside_a_busy_process_for_each_core(monkeypatch):
    commands, running = [], set()

    class Process:
        def __init__(self, command, start_new_session):
            assert start_new_session  # Linux divides its cores among sessions first
            commands.append(command)
            running.add(self)

        def kill(self):
            running.remove(self)

        def wait(self):
            assert self not in running

    monkeypatch.setattr(timing.subprocess, "Popen", Process)
    monkeypatch.setattr(timing, "available_cores", lambda: 3)
    case = Case("a", "", lambda: 4.0 if len(running) == 3 else 1.0, [make_batch([S] * B, [T] * B)])

    (row,) = measure([case], 2, CPU, busy=True)

    assert row["beside_busy"] == 0.25
    assert row["sequences_per_second"] == B
    assert commands == [[sys.executable, "-c", "while True: pass"]] * 9
    assert not running


def test_the_memory_of_a_pass_is_what_it_needs_beside_what_it_keeps(monkeypatch):
    memory = {"reset_peak_memory_stats": None, "memory_allocated": 2_000_000, "max_memory_allocated": 5_000_000}
    for name, value in memory.items():
        monkeypatch.setattr(torch.accelerator, name, lambda _, value=value: value)

    assert measure([case_of("x", 1.0)], 1, torch.device("cuda"))[0]["megabytes"] == 3.0


def test_the_table_and_the_file_hold_every_case(compose, tiny_checkpoint, tmp_path, capsys):
    small = [*SMALL, "batch_sizes=[8]", "kinds=[luong,gnmt]", "rounds=1", "batches=3"]
    given = [f"checkpoint={tiny_checkpoint}", "search.beam_size=3", "search.max_length=5", f"output={tmp_path}/b.json"]
    given += ["backends=[torch,onnx]", "search_batch_sizes=[2]", "workers=[0,1]"]

    benchmark(compose("benchmark", *small, *given))

    content = json.loads((tmp_path / "b.json").read_text())
    assert [row["case"] for row in content["training"]] == [
        "luong, gru, batch 8, 32-true", "luong, gru, batch 8, 32-true, trainer",
        "luong, gru, batch 8, 32-true, textbook", "gnmt, gru, batch 8, 32-true",
        "gnmt, gru, batch 8, 32-true, trainer", "gnmt, gru, batch 8, 32-true, textbook",
    ]  # fmt: skip
    assert [row["times_textbook"] is None for row in content["training"]] == [False, True, True] * 2
    assert [row["case"] for row in content["search"]] == [
        f"{search}, batch 2, {backend}{workers}"
        for search in ("greedy", "beam 3") for backend in ("torch", "onnx") for workers in ("", ", 1 worker")
    ]  # fmt: skip
    assert all(row["sequences_per_second"] > 0 for part in ("training", "search") for row in content[part])
    printed = capsys.readouterr().out
    assert "x textbook" in printed
    assert "Speed of search" in printed


@pytest.mark.slow
def test_two_processes_are_timed_on_their_shares_of_the_same_batches(compose):
    small = [*SMALL, "batch_sizes=[8]", "kinds=[luong]", "textbook=false", "batches=2"]
    config = compose("benchmark", *small, "processes=[2]")
    settings = read_settings(BenchmarkSettings, resolve_config(config))
    bare, _, case = training_cases(settings, CPU)

    assert (case.name, case.variant) == ("luong, gru, batch 8, 32-true", "2 processes")
    assert case.batches is bare.batches
    assert (case.run() or 0) > 0


def test_the_textbook_case_trains_with_the_layers_of_pytorch(compose, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(
        "seq2seq.benchmark.cases.bare_loop", lambda model, *_, **__: models.append(model) or (lambda: 1.0)
    )
    small = [*SMALL, "batch_sizes=[8]", "kinds=[luong]", "rounds=1", "batches=1", "trainer_overhead=false"]

    benchmark(compose("benchmark", *small, f"output={tmp_path}/b.json"))

    fast, textbook = models
    assert type(textbook.encoder.rnn) is nn.GRU
    assert type(fast.encoder.rnn) is not nn.GRU
    assert all(torch.equal(*pair) for pair in zip(fast.parameters(), textbook.parameters(), strict=True))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds=0 must be a whole number of at least 1"),
        ("batch_sizes=4", "batch_sizes=4 must be a list of at least one"),
        ("batch_sizes=[0]", "batch_sizes=0 must be a whole number of at least 1"),
        ("kinds=[]", r"kinds=\[\] must be a list of at least one"),
        ("kinds=[vaswani]", r"decoder\.kind=vaswani must be one of luong, gnmt, bahdanau"),
        ("cells=[rnn]", r"model\.encoder\.cell=rnn must be one of gru, lstm"),
        ("trainer_overhead=maybe", "trainer_overhead=maybe must be true or false"),
        ("matmul_precision=low", "matmul_precision=low must be one of highest, high, medium"),
        ("precisions=[16]", "precisions=16 must be one of 32-true, tf32, bf16-mixed"),
        ("precisions=[tf32]", "precisions=tf32 needs a GPU; give 32-true or bf16-mixed"),
        ("device=typewriter", "device=typewriter is not available here"),
        ("+foo=1", "foo is unknown; the keys are backends, batch_sizes, "),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(compose, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        benchmark(compose("benchmark", "data=reverse", override, f"output={tmp_path}/b.json"))


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_timed(compose, tmp_path):
    with pytest.raises(UserError, match=r"output=.* cannot be written: Is a directory"):
        benchmark(compose("benchmark", "data=reverse", f"output={tmp_path}"))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (["search=sample", "~search.beam_size"], r"search\.kind=sample must be one of beam"),
        (["search.beam_size=1"], r"search\.beam_size=1 is greedy search, which is timed in any case"),
    ],
)
def test_only_a_beam_is_timed_beside_greedy_search(compose, tiny_checkpoint, tmp_path, search, message):
    with pytest.raises(UserError, match=message):
        benchmark(compose("benchmark", *SMALL, f"checkpoint={tiny_checkpoint}", *search, f"output={tmp_path}/b.json"))


def test_what_training_waits_for_is_timed_without_the_first_batch(monkeypatch):
    clock = itertools.count()  # each look at the clock comes a second later
    monkeypatch.setattr("seq2seq.benchmark.cases.timer", lambda: next(clock))

    def loader():
        for _ in range(9):
            next(clock)  # so does each batch
            yield make_batch([S] * B, [T] * B)

    batches, waiting = load_batches(loader(), 5)

    assert len(batches) == 5
    assert waiting == 5 * (4 + 1) / 4  # four batches, and the clock itself, for five
    assert load_batches(loader(), 1)[1] is None

    assert measure([case_of("case", 3.0, waiting=1.0)], 1, CPU)[0]["waiting_for_data"] == 0.25
