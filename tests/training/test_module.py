"""Training: what the loss counts, how the learning rate moves, and that a model can learn by heart."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from conftest import LUONG
from torch.nn import functional as F
from torch.utils.data import DataLoader

from seq2seq.data import BOS, PAD, UNK, CharacterTokenizer, FlatSequences, PairDataset, Vocabulary
from seq2seq.decoding import Ensemble, Greedy, to_lists
from seq2seq.errors import UserError
from seq2seq.training.build import silence_expected_warnings
from seq2seq.training.module import Seq2SeqModule
from seq2seq.training.schedule import constant_with_warmup, cosine_with_warmup

PART = {"cell": "gru", "embedding_size": 16, "hidden_size": 24, "num_layers": 2}
LETTERS = CharacterTokenizer(Vocabulary(list("abcdefgh"))).to_dict()
PAIRS = ["abc", "bca", "fgh", "a", "gfedcba", "dd", "hah", "cafe"]


def make_module(cell="gru", label_smoothing=0.0, scheduled_sampling=0.0, kind="luong"):
    torch.manual_seed(0)
    part = PART | {"cell": cell}
    return Seq2SeqModule(
        model={
            "encoder": part | {"bidirectional": True}, "decoder": part | LUONG | {"kind": kind}, "bridge": "linear",
            "attention": "general",
            "dropout": 0.0,
        },
        handoff="right", optimizer=partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0),
        scheduler=partial(cosine_with_warmup, warmup=0.1),
        label_smoothing=label_smoothing, scheduled_sampling=scheduled_sampling,
        source_tokenizer=LETTERS, target_tokenizer=LETTERS,
        max_length=20, data={},
    )  # fmt: skip


def make_batch(module):
    sources = [module.tokenizers.source.encode(text) for text in PAIRS]
    return make_dataset(sources)[range(len(PAIRS))]


def make_dataset(sources):
    return PairDataset(FlatSequences(sources), FlatSequences(ids[::-1] for ids in sources))


def loss_of(module, batch):
    module.log = lambda *_, **__: None
    module.optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1.0)
    return module.training_step(batch, 0)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_eight_pairs_can_be_learned_by_heart(cell):
    module = make_module(cell)
    batch = make_batch(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)

    for _ in range(120):
        optimizer.zero_grad()
        loss_of(module, batch).backward()
        optimizer.step()

    ensemble = Ensemble([module.eval().model])
    found = Greedy(max_length=20)(ensemble, ensemble.encode(batch.source, batch.source_lengths))
    decoded = [module.tokenizers.target.decode(ids) for ids in to_lists(found.tokens[:, 0])]
    assert decoded == [text[::-1] for text in PAIRS]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_ignores_padding(label_smoothing):
    module = make_module(label_smoothing=label_smoothing)
    batch = make_batch(module)
    wider = batch._replace(source=F.pad(batch.source, (0, 3), value=PAD), target=F.pad(batch.target, (0, 5), value=PAD))

    torch.testing.assert_close(loss_of(module, wider), loss_of(module, batch))


def test_label_smoothing_spreads_part_of_the_loss_over_all_symbols():
    plain, smoothed = make_module(), make_module(label_smoothing=0.1)
    batch = make_batch(plain)
    logits = plain.model(batch.source, batch.source_lengths, batch.inputs).logits
    over_all = -logits.log_softmax(-1).mean(-1)[batch.labels != PAD].mean()

    torch.testing.assert_close(loss_of(smoothed, batch), 0.9 * loss_of(plain, batch) + 0.1 * over_all)


def test_the_loss_is_the_mean_over_the_tokens_of_sequences_taken_alone():
    module = make_module()
    batch = make_batch(module)
    dataset = make_dataset([module.tokenizers.source.encode(text) for text in PAIRS])

    alone = [loss_of(module, dataset[[i]]) * dataset[[i]].target_lengths[0] for i in range(len(PAIRS))]

    torch.testing.assert_close(loss_of(module, batch), sum(alone) / batch.target_lengths.sum())


def test_the_decoder_is_trained_to_predict_the_next_token():
    # Before each label stands the label before it, and before the first the begin: nothing predicts itself.
    batch = make_batch(make_module())

    assert torch.equal(batch.inputs[:, 1:], batch.labels[:, :-1])


def learning_rates(schedule, steps, warmup):
    """The learning rates of all steps, of an optimizer whose own is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = schedule(optimizer, steps, warmup), []
    for _ in range(steps + 1):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_learning_rate_rises_to_its_highest_and_falls_to_zero():
    factors = learning_rates(cosine_with_warmup, 200, 0.1)

    assert factors[0] > 0
    assert factors[:20] == sorted(factors[:20])
    assert max(factors) == factors[19] == factors[20] == 1.0
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[200] == 0.0


def test_without_warm_up_the_first_step_is_the_highest():
    assert learning_rates(cosine_with_warmup, 100, 0.0)[0] == 1.0
    assert learning_rates(constant_with_warmup, 100, 0.0) == [1.0] * 101


def test_a_constant_learning_rate_stays_where_the_warm_up_ends():
    assert learning_rates(constant_with_warmup, 20, 0.2) == [0.25, 0.5, 0.75] + [1.0] * 18


@pytest.mark.parametrize("schedule", [cosine_with_warmup, constant_with_warmup])
def test_a_schedule_of_a_run_without_an_end_is_refused(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    with pytest.raises(UserError, match=r"the run has no end; give trainer\.max_epochs or trainer\.max_steps"):
        schedule(optimizer, float("inf"), 0.1)


@pytest.mark.parametrize("kind", ["luong", "gnmt", "bahdanau"])
def test_scheduled_sampling_puts_predictions_in_the_place_of_tokens(kind):
    module = make_module(kind=kind, scheduled_sampling=0.5)
    batch = make_batch(module)
    logits = module.model(batch.source, batch.source_lengths, batch.inputs).logits
    logits[..., [PAD, BOS, UNK]] = -torch.inf
    predicted = logits.argmax(-1)

    torch.manual_seed(0)
    mixed = module._scheduled_inputs(batch)

    own, given = mixed[:, 1:] == predicted[:, :-1], mixed[:, 1:] == batch.inputs[:, 1:]
    assert torch.equal(mixed[:, 0], batch.inputs[:, 0])  # the begin stays
    assert (own | given).all()
    assert (own & ~given).any()
    assert (given & ~own).any()


def test_scheduled_sampling_takes_no_special_tokens():
    module = make_module(scheduled_sampling=1)
    with torch.no_grad():
        module.model.decoder.output_layer.bias[[PAD, BOS, UNK]] = 99.0

    mixed = module._scheduled_inputs(make_batch(module))

    assert not torch.isin(mixed[:, 1:], torch.tensor([PAD, BOS, UNK])).any()


def test_scheduled_sampling_of_one_leaves_no_token_but_the_begin():
    module = make_module(scheduled_sampling=1)
    batch = make_batch(module)

    mixed = module._scheduled_inputs(batch)

    logits = module.model(batch.source, batch.source_lengths, batch.inputs).logits
    logits[..., [PAD, BOS, UNK]] = -torch.inf
    assert torch.equal(mixed[:, 1:], logits.argmax(-1)[:, :-1])
    assert loss_of(module, batch) != loss_of(make_module(), batch)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_scheduled_sampling_is_a_probability(value):
    with pytest.raises(UserError, match=rf"scheduled_sampling={value} must be a number of at least 0"):
        make_module(scheduled_sampling=value)


def test_label_smoothing_that_is_not_allowed_is_refused():
    with pytest.raises(UserError, match=r"label_smoothing=1\.0 must be a number of at least 0 and below 1"):
        make_module(label_smoothing=1.0)


def trained_one_step(tmp_path, **settings):
    """Return the trainer after one step, and the absolute gradients that the step was taken with."""
    silence_expected_warnings()
    module = make_module()
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, limit_val_batches=0, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **settings,
    )  # fmt: skip
    loader = DataLoader([make_batch(module)], batch_size=None)
    trainer.fit(module, loader, loader)
    return trainer, torch.cat([parameter.grad.flatten() for parameter in module.parameters()]).abs()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("algorithm", "size"), [("norm", torch.linalg.vector_norm), (None, torch.linalg.vector_norm), ("value", torch.amax)]
)
def test_gradients_are_clipped_in_every_precision(algorithm, size, precision, tmp_path):
    trainer, gradients = trained_one_step(
        tmp_path, precision=precision, gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm
    )

    assert trainer.optimizers[0].param_groups[0]["fused"] is (True if precision == "32-true" else None)
    assert size(gradients).item() == pytest.approx(1e-3, rel=1e-2)


def test_nothing_is_clipped_unless_asked_for(tmp_path):
    _, gradients = trained_one_step(tmp_path, precision="bf16-mixed")

    assert gradients.norm() > 0.1
