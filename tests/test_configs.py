"""Configs: every key is read by something, every experiment runs, and every value is there once."""

import inspect

import pytest
import yaml
from conftest import ROOT, TINY, combinations
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from seq2seq.commands.train import train
from seq2seq.data import SOURCES, build_source
from seq2seq.handoff.mistakes import MISTAKES
from seq2seq.nn import Decoder, Encoder, build_decoder, build_model
from seq2seq.settings import resolve_config

CONFIGS = ROOT / "configs"


def options(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
CASES = options("study_case")
SMALL = [override for override in TINY if not override.startswith("data")]


def targets(node):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node[key])


def test_every_target_takes_the_keys_beside_it(compose):
    found = list(targets(compose("train")))

    assert found
    for node in found:
        accepted = inspect.signature(get_object(node["_target_"])).parameters
        assert set(node) - {"_target_", "_partial_"} <= set(accepted)


@pytest.mark.parametrize("name", options("data"))
def test_every_data_source_takes_exactly_its_keys(compose, name):
    settings = resolve_config(compose("train", f"data={name}").data)

    assert settings["task"] == name
    parameters = inspect.signature(SOURCES[name]).parameters
    required = {key for key, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert required <= set(settings) - {"task"} <= set(parameters)
    build_source(settings)


@pytest.mark.parametrize("name", options("model"))
def test_every_model_takes_exactly_its_keys(compose, name):
    settings = resolve_config(compose("train", f"model={name}").model)

    assert set(settings) == set(inspect.signature(build_model).parameters) - {
        "source_size", "target_size", "features_size", "fast",
    }  # fmt: skip
    shared = {"vocabulary_size", "dropout", "fast"}
    assert set(settings["encoder"]) == {*inspect.signature(Encoder).parameters, "reads_features"} - shared
    decoder_only = shared | {"value_size", "attention"}
    arguments = {*inspect.signature(build_decoder).parameters, *inspect.signature(Decoder).parameters} - {"arguments"}
    assert set(settings["decoder"]) == arguments - decoder_only


def test_one_override_makes_lstms_of_both_sides(compose):
    model = compose("train", "model=lstm").model

    assert (model.encoder.cell, model.decoder.cell) == ("lstm", "lstm")


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.pictures
def test_every_experiment_runs(compose, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("ab\tx y\tA;B\ncd\tz\tB\nda\ty\tA\n")
    (tmp_path / "one.txt").write_text("a b.\nb c.\nc a.\n")
    (tmp_path / "dictionary").write_text("ab X Y1\nab(2) X\ncd Z0 # a name\nda Y\n")
    splits = ("train", "val", "test")
    data = {
        "tsv": [f"data.{split}=pairs.tsv" for split in splits],
        "parallel": [f"data.{split}=[one.txt,one.txt]" for split in splits],
        "cmudict": ["data.file=dictionary", "data.val_share=0.3", "data.test_share=0.3"],
        "dates": [f"data.{split}_size=40" for split in splits],
    }[compose("train", f"experiment={name}").data.task]

    content = train(compose("train", f"experiment={name}", *data, *SMALL), tmp_path / "run")

    assert set(content["test"]) >= {"exact_match", "symbol_error_rate"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_overrides_the_groups(compose, name):
    delta = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    del delta["defaults"]
    if "hydra" in delta:
        del delta["hydra"]
    composed = compose("train", f"experiment={name}")

    assert OmegaConf.merge(composed, delta) == composed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_short_delta_with_a_question_and_a_command(name):
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text()
    delta = [line for line in text.splitlines() if line and not line.startswith("#")]

    assert len(delta) <= 20
    assert "# Question:" in text
    assert "# Command:" in text
    assert "# Result:" in text


@pytest.mark.parametrize("name", CASES)
def test_every_case_of_the_study_is_what_its_name_says(compose, name):
    config = compose("train", "experiment=handoff_study", f"study_case={name}")

    assert config.model.encoder.cell == config.model.decoder.cell == ("lstm" if name.startswith("lstm_") else "gru")
    assert name.removeprefix("lstm_") == (config.model.bridge if config.handoff == "right" else config.handoff)
    assert config.handoff == "right" or config.model.bridge == "linear"


def test_the_study_has_every_mistake_once():
    assert sorted(case.removeprefix("lstm_") for case in CASES if "wrong" in case) == sorted(MISTAKES)


def test_no_group_has_a_single_option_but_those_that_will_be_filled_by_users():
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"experiment", "hydra"}

    assert all(len(options(group)) > 1 for group in groups)


def test_files_are_valid_yaml_without_repeated_keys():
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    for path in CONFIGS.rglob("*.yaml"):
        yaml.load(path.read_text(), Loader=Strict)


USUAL = [
    ["model.encoder.cell=gru", "model.decoder.cell=lstm"],
    ["model.encoder.num_layers=3", "model.decoder.num_layers=2"],
    ["model.encoder.bidirectional=false"],
    ["model.bridge=concat", "model.decoder.hidden_size=12"],
    ["model.attention=none"],
    ["model.decoder.kind=bahdanau", "model.decoder.tied=true"],
    ["trainer.precision=bf16-mixed", "model.attention=multihead"],
    ["scheduled_sampling=0.3", "weight_averaging=0.99"],
]
TYPED = [
    ["model=lstm"],
    ["model.encoder.cell=lstm", "model.decoder.cell=gru"],
    ["model.encoder.num_layers=1", "model.decoder.num_layers=3"],
    ["model.bridge=zeros"],
    ["model.bridge=learned"],
    ["model.bridge=top"],
    ["model.bridge=mean", "model.decoder.hidden_size=6"],
    ["model.attention=additive"],
    ["model.attention=dot", "model.decoder.hidden_size=12"],
    ["model.dropout=0.3", "optimizer.lr=1e-3", "label_smoothing=0.1"],
    ["model.decoder.kind=gnmt", "model.attention=additive"],
    ["model.decoder.input_feeding=true", "model=lstm"],
    ["model.attention={name: multihead, num_heads: 2}"],
    ["fast=false", "model=lstm"],
]


@pytest.mark.parametrize("overrides", [*USUAL, *combinations(TYPED)], ids=" ".join)
def test_what_users_will_type_trains(compose, tmp_path, overrides):
    train(compose("train", *TINY, *overrides), tmp_path)
